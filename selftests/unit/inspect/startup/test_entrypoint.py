"""Commands behind an entrypoint, started by this machine's shell and Python."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlcheck.engines.base import Completed, OpenImage
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.startup import behind, launcher, probe
from mlcheck.inspect.startup.facts import LINE, EntrypointRuns
from mlcheck.inspect.startup.launcher import is_launcher
from mlcheck.model.environment import Environment
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

PATH = os.pathsep.join(
    directory for directory in os.get_exec_path() if os.access(directory, os.X_OK)
)
"""Where this user may look."""
PARENT = "#!/usr/bin/env python3\nimport signal, subprocess, sys\n"


class Machine:
    """An image that is this machine, with an entrypoint of its own."""

    def __init__(self, entrypoint: Sequence[str], cmd: Sequence[str] = ()) -> None:
        self.rootfs = DirectoryRootFS(Path("/"))
        self.environment = config(entrypoint, cmd)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        limit_s: float,
        output_limit: int,
    ) -> Completed:
        """See `OpenImage.start`."""
        whole = (*(self.environment.entrypoint or ()), *argv)
        begun = time.monotonic()
        with subprocess.Popen(
            whole,
            cwd="/",
            env={"PATH": PATH, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(stdin, limit_s)
                code = process.returncode
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            if code is None:
                out, err = process.communicate()
        code = 128 - code if code is not None and code < 0 else code
        ended = "timeout" if code is None else "exited"
        return Completed(whole, code, out, err, cast(Any, ended), time.monotonic() - begun)


def config(entrypoint: Sequence[str], cmd: Sequence[str] = ()) -> Environment:
    return Environment(
        {"PATH": PATH}, tuple(entrypoint), tuple(cmd), None, None, None, None, "config"
    )


def found(image: Machine) -> EntrypointRuns:
    runs = probe.entrypoint(cast(OpenImage, image))
    assert runs is not None
    return runs


def wrong(runs: EntrypointRuns) -> set[str]:
    promise = Profile.of({"entrypoint": {"argv": ["/entrypoint"]}})
    return {finding.subject for finding in judge("entrypoint-command", runs, promise).findings}


ENTRYPOINTS: list[tuple[str, set[str]]] = [
    ('#!/bin/sh\nexec "$@"\n', set()),
    ('#!/bin/bash\nset -e\necho banner\nset -- env "$@"\nexec "$@"\n', set()),
    ('#!/bin/bash\n"$@" &\np=$!\ntrap "kill $p" TERM\nwait $p\nexit $?\n', {"input"}),
    ('#!/bin/bash\n"$@" <&0 &\np=$!\ntrap "kill $p" TERM\nwait $p\nexit $?\n', set()),
    ("#!/bin/bash\nIFS=\nexec $@\n", {"words"}),
    ("#!/bin/bash\nexec $@\n", {"words", "exit code", "SIGTERM?"}),
    ('#!/bin/bash\nset -- $*\nexec "$@"\n', {"words", "exit code", "SIGTERM?"}),
    ('#!/bin/bash\nexec "$@" < /dev/null\n', {"input"}),
    ('#!/bin/bash\nread -r _\nexec "$@"\n', {"input"}),
    (
        '#!/bin/bash\n"$@"\nc=$?\n[ $c -gt 128 ] && exit 0\nexit $c\n',
        {"exit code", "signal", "SIGTERM"},
    ),
    ('#!/bin/bash\n"$@"\nexit 0\n', {"exit code", "signal", "SIGTERM"}),
    ('#!/bin/bash\n"$@" || exit 7\n', {"exit code", "SIGTERM"}),
    ('#!/bin/bash\ntrap "" TERM\n"$@"\nexit $?\n', {"SIGTERM"}),
    ('#!/bin/bash\ntrap "" TERM\nexec "$@"\n', {"SIGTERM"}),
    ('#!/bin/bash\ntrap : TERM\n"$@"\nexit $?\n', {"SIGTERM"}),
    ('#!/bin/bash\n"$@"\nexit $?\n', {"SIGTERM"}),
    ('#!/bin/bash\n"$@"\nc=$?\necho done\nexit $c\n', {"output", "SIGTERM"}),
    (
        PARENT + "p = subprocess.Popen(sys.argv[1:])\n"
        "import time; time.sleep(0.2)\n"
        "signal.signal(15, lambda *a: p.terminate())\n"
        "c = p.wait()\nsys.exit(c if c >= 0 else 128 - c)\n",
        set(),
    ),
    (
        PARENT + "c = subprocess.call(sys.argv[1:])\nsys.exit(max(c, 0))\n",
        {"signal", "SIGTERM"},
    ),
    (PARENT + "import os\nos.execvp(sys.argv[1], sys.argv[1:])\n", set()),
]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["sh", "python"])
@pytest.mark.parametrize(("text", "expected"), ENTRYPOINTS)
def test_entrypoints_compared_with_what_their_shell_does(
    text: str,
    expected: set[str],
    language: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if language == "python":
        speaker = behind.Speaker((sys.executable, "-c"), "python")
        monkeypatch.setattr(behind, "speaker", lambda *_: speaker)
    if "SIGTERM" in expected:
        monkeypatch.setattr(probe, "STOP_LIMIT_S", 1.5)
    script = tmp_path / "entrypoint"
    script.write_text(text)
    script.chmod(0o755)
    runs = found(Machine([str(script)]))
    assert runs.launcher
    assert wrong(runs) - {"SIGTERM"} == expected - {"SIGTERM", "SIGTERM?"}
    if "SIGTERM?" not in expected:
        assert ("SIGTERM" in wrong(runs)) == ("SIGTERM" in expected)


def test_words_compared_with_exec(tmp_path: Path) -> None:
    """Words and input arrive as the kernel passes them on."""
    runs = found(Machine(["/usr/bin/env"]))
    assert runs.heard.words == behind.WORDS
    assert runs.heard.line == LINE
    assert runs.stopped is not None
    assert (runs.stopped.replaced, runs.stopped.ignored, runs.stopped.caught) == (True, False, True)
    assert {code: answer.exit_code for code, answer in runs.codes.items()} == {1: 1, 7: 7, 139: 139}


@pytest.mark.skipif(shutil.which("tini") is None, reason="this machine has no tini")
def test_a_launcher_that_blocks_the_signal_compared_with_tini() -> None:
    runs = found(Machine(["tini", "-s", "--"]))
    assert wrong(runs) == set()


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "launcher"),
    [
        (["python3"], [], False),
        (["python3"], ["app.py"], False),
        (["sh", "-c", "exec python3 app.py"], ["sh"], False),
        (["sh", "-c", 'exec "$@"', "sh"], [], True),
        (["/no/such"], ["sh"], True),
        (["/no/such"], [], False),
        (["env", "A=b"], [], True),
        (["dumb-init", "--"], [], True),
    ],
)
def test_launchers(entrypoint: list[str], cmd: list[str], launcher: bool) -> None:
    assert is_launcher(DirectoryRootFS(Path("/")), config(entrypoint, cmd)) == launcher


@pytest.mark.parametrize(
    ("text", "launcher"),
    [
        ('#!/bin/sh\nset -e\nexec "$@"\n', True),
        ("#!/bin/sh\nexec $@\n", True),
        ('#!/bin/bash\nif [ $# = 0 ]; then bash; else "${@}"; fi\n', True),
        ('#!/bin/sh\nexec gosu app "$@"\n', True),
        ('#!/bin/sh\nexec jupyter lab "$@"\n', False),
        ('#!/bin/sh\nexec python3 -m app "$@"\n', False),
        ("#!/bin/sh\nexec jupyter lab\n", False),
        ("\x7fELF$@", False),
        (PARENT + "os.execvp(sys.argv[1], sys.argv[1:])\n", True),
        ("#!/usr/bin/python3\nimport sys\nprint(sys.argv)\n", False),
    ],
)
def test_scripts_that_are_launchers(text: str, launcher: bool, tmp_path: Path) -> None:
    script = tmp_path / "entrypoint"
    script.write_text(text)
    script.chmod(0o755)
    assert is_launcher(DirectoryRootFS(Path("/")), config([str(script)])) == launcher


def test_a_program_is_started_once(tmp_path: Path) -> None:
    runs = found(Machine([sys.executable]))
    assert not runs.launcher
    assert (runs.heard.words, runs.codes, runs.stopped) == (None, {}, None)


WORDS = [
    "exec",
    "set",
    "gosu",
    "su-exec",
    "tini",
    "user",
    "-g",
    "--",
    "x",
    ";",
    "&&",
    "(",
    "tini-x",
]
WORDS += ["$@", '"$@"', "${@}", "'$*'", "$*", " ", "  ", "\t", "\n", "\n\n", "-", "'", '"']


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_arguments_where_a_command_stands(words: list[str]) -> None:
    """As the same pattern finds them that goes back and tries again."""
    plain = (
        r"""(?:^|[;&|({!]|\b(?:exec|eval|then|else|do|set|command|time|nohup|gosu\s+\S+|"""
        r"""su-exec\s+\S+|tini(?:\s+-\S+)*))\s*(?:-\S*\s+)*["']?\$\{?[@*]"""
    )
    text = " ".join(words)
    assume(not re.search(r"(?:gosu|su-exec)\s*\n", text))
    expected = re.search(plain, text, re.MULTILINE) is not None
    assert (launcher._OF_SHELL.search(text) is not None) == expected


def test_no_text_is_gone_through_again_and_again() -> None:
    """Every repetition without end is possessive, and none goes beyond its line."""
    without_classes = re.sub(r"\[[^]]*\]", ".", launcher._OF_SHELL.pattern)
    assert set(re.findall(r"[*+]+", without_classes)) == {"++", "*+"}
    assert not launcher._OF_SHELL.search("exec\n" * 5 + "-a\n" * 5 + "$")
