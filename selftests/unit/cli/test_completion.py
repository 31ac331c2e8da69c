"""`mlcheck completion`: TAB in a real bash and a real zsh, on a terminal, and what fish would
complete."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

MLCHECK = Path(sys.executable).with_name("mlcheck")
LIMIT_S = 60.0

# In place of mlcheck: shows the words with which it is called.
SHOW = "mlcheck() { printf 'GOT<'; printf '[%s]' \"$@\"; printf '>\\n'; }\n"
RC = {
    "bash": ".bashrc",
    "zsh": ".zshrc",
}
BEGIN = {
    "bash": "source ~/_mlcheck; bind 'set bell-style none'; PS1='ready> '\n"
    "bind 'set enable-bracketed-paste off'\n",
    "zsh": "fpath=(~ $fpath); autoload -Uz compinit; compinit -u -D; PS1='ready> '\n"
    "unset zle_bracketed_paste\n",
}


class Shell:
    """A shell on a terminal in which mlcheck's completion is loaded."""

    def __init__(self, name: str, home: Path) -> None:
        script = subprocess.run([MLCHECK, "completion", name], capture_output=True, check=True)
        (home / "_mlcheck").write_bytes(script.stdout)
        (home / RC[name]).write_text(BEGIN[name] + SHOW)
        options = ["--rcfile", RC[name], "-i"] if name == "bash" else ["-i"]
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [shutil.which(name) or name, *options],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=home,
            env={"HOME": str(home), "ZDOTDIR": str(home), "PATH": os.environ["PATH"]}
            | {"TERM": "dumb" if name == "bash" else "xterm", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        os.close(theirs)
        self._until(r"ready> ")

    def typed(self, keys: str) -> list[str]:
        """The words with which mlcheck is called after these keys and Return."""
        os.write(self._terminal, f"{keys}\r".encode())
        found = self._until(r"GOT<(.*?)>\r?\n")
        return re.findall(r"\[([^]]*)\]", found[1])

    def _until(self, pattern: str) -> re.Match[str]:
        said, end = "", time.monotonic() + LIMIT_S
        while not (found := re.search(pattern, said)):
            left = end - time.monotonic()
            assert left > 0 and select.select([self._terminal], [], [], left)[0], repr(said)
            said += os.read(self._terminal, 65536).decode(errors="replace")
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(scope="module", params=["bash", "zsh"])
def shell(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    home = tmp_path_factory.mktemp(request.param)
    (home / "pictures/mini").mkdir(parents=True)
    (home / "report.json").touch()
    shell = Shell(request.param, home)
    yield shell
    shell.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("mlcheck doc", ["doctor"]),
        ("mlcheck info --engine pod", ["podman"]),
        ("mlcheck check x ml-torch-gpu:al", ["ml-torch-gpu:alma9-python311"]),
        ("mlcheck check --profiles pict", ["pictures/"]),
        ("mlcheck check --mlcheck-json rep", ["report.json"]),
        ("mlcheck explain rpath-h", ["rpath-hard-coded"]),
        ("mlcheck reference build --defect rpath-dea", ["rpath-dead"]),
        ("mlcheck completion f", ["fish"]),
    ],
)
def test_fish_completes_words(tmp_path: Path, words: str, completed: list[str]) -> None:
    """fish itself says what it would complete, without a terminal."""
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "report.json").touch()
    script = subprocess.run([MLCHECK, "completion", "fish"], capture_output=True, check=True)
    (tmp_path / "mlcheck.fish").write_bytes(script.stdout)
    done = subprocess.run(
        ["fish", "-c", f"source mlcheck.fish; complete -C '{words}'"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == completed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("mlcheck doc\t", ["doctor"]),
        ("mlcheck info --engine pod\t", ["info", "--engine", "podman"]),
        ("mlcheck check --requ\t", ["check", "--require-gpu"]),
        ("mlcheck check --engine appt\t", ["check", "--engine", "apptainer"]),
        ("mlcheck check ml-tor\t", ["check", "ml-torch-gpu:alma9-python311"]),
        ("mlcheck check ml-torch-gpu:al\t", ["check", "ml-torch-gpu:alma9-python311"]),
        ("mlcheck check x ml-torch-gpu:al\t", ["check", "x", "ml-torch-gpu:alma9-python311"]),
        ("mlcheck check reference:ml-tor\t", ["check", "reference:ml-torch-gpu"]),
        ("mlcheck check -k x pict\tmi\t", ["check", "-k", "x", "pictures/mini"]),
        ("mlcheck check --profiles pict\t", ["check", "--profiles", "pictures"]),
        ("mlcheck check --mlcheck-json rep\t", ["check", "--mlcheck-json", "report.json"]),
        ("mlcheck diff ml-torch-gpu:alma9-python311 reference:at\t",
         ["diff", "ml-torch-gpu:alma9-python311", "reference:atlas-jupyter"]),
        ("mlcheck explain rpath-h\t", ["explain", "rpath-hard-coded"]),
        ("mlcheck reference bu\t", ["reference", "build"]),
        ("mlcheck reference build --defect rpath-dea\t",
         ["reference", "build", "--defect", "rpath-dead"]),
        ("mlcheck cache cl\t", ["cache", "clear"]),
        ("mlcheck completion z\t", ["completion", "zsh"]),
        ("mlcheck check nothing-like-it\t", ["check", "nothing-like-it"]),
    ],
)  # fmt: skip
def test_tab_completes_words(shell: Shell, keys: str, words: list[str]) -> None:
    # At the end of a word zsh takes the slash away again.
    assert [word.rstrip("/") for word in shell.typed(keys)] == words
