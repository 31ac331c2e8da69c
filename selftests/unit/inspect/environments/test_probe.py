"""The probe of environments, with scripts of a small image that behave and misbehave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlcheck.inspect.environments import probe as newenv
from mlcheck.inspect.environments.facts import NewEnv
from mlcheck.profile.catalog import Profile
from selftests import images
from selftests.rules import judge

PROFILE = Profile.of(
    {"prefix": "/opt/conda", "new_env": {"script": "/new.sh", "reuse": "enter.sh"}}
)
STATE = {
    "executable": "/x/bin/python3",
    "prefix": "/x",
    "version": "3.11.9",
    "path": ["/x/lib"],
    "package": None,
    "module": None,
}


@pytest.fixture
def image(root: Path) -> Path:
    images.copy_programs(root, ["date", "tail", "rm", "ls"])
    return root


def probe(root: Path, script: str) -> NewEnv:
    images.write(root, "new.sh", script)
    with images.opened(root) as image:
        found = newenv.probe(image, "/new.sh", "enter.sh", "/opt/conda")
        left = image.run(["ls", "-A", "/tmp"]).stdout
    assert left == b""
    return found


def test_an_image_without_anything(image: Path) -> None:
    with images.opened(image) as opened:
        fact = newenv.probe(opened, "/new.sh", "enter.sh", "/opt/conda")
    assert fact.create.code == 1
    assert (fact.pyvenv, fact.entries, fact.create.pythons) == (None, {}, (None, None))
    assert judge("newenv-created", fact, PROFILE).outcome == "failed"
    assert judge("newenv-usage", fact, PROFILE).outcome == "failed"


def test_words_of_the_session_are_not_those_of_the_script(image: Path) -> None:
    fact = probe(image, 'echo "$# words: $*"; return $#')
    assert (fact.create.code, fact.help.code, fact.missing.code) == (2, 1, 0)
    assert fact.missing.output.strip() == "0 words:"


def test_a_script_that_ends_the_shell(image: Path) -> None:
    fact = probe(image, "exit 3")
    assert fact.create.code is None
    assert fact.create.result.exit_code == 3
    assert (fact.help.code, fact.missing.code) == (None, None)
    # Executed, it may do that.
    assert fact.executed.code == 3
    assert judge("newenv-executed", fact, PROFILE).outcome == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["while :; do :; done", "while :; do echo usage; done"])
def test_a_script_that_loops_when_it_is_executed(
    image: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newenv, "ATTEMPT_LIMIT_S", 1.0)
    fact = probe(image, f'[ "${{BASH_SOURCE[0]}}" != "$0" ] && return 0\n{loop}\n')
    assert fact.executed.code is None
    assert judge("newenv-executed", fact, PROFILE).outcome == "failed"


def test_what_an_attempt_makes_is_told(image: Path) -> None:
    fact = probe(image, "mkdir made; echo usage")
    assert (fact.help.made, fact.missing.made) == (("made",), ("made",))


def test_lines_of_a_script_are_not_taken_for_those_of_the_session(image: Path) -> None:
    fake = f"python {json.dumps(STATE)}"
    fact = probe(image, f"echo 'code 7 1'; echo '{fake}'; printf '\\n%032d code 9 9\\n' 0")
    assert fact.create.code == 0
    assert fact.create.pythons == (None, None)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{}",
        "[" * 5000,
        "null",
        json.dumps({**STATE, "path": "x"}),
        json.dumps({**STATE, "path": [1]}),
        json.dumps({**STATE, "prefix": None}),
        json.dumps({**STATE, "module": 1}),
    ],
)
def test_answers_of_a_python_that_are_none(answer: str) -> None:
    assert newenv._python(answer) is None
    assert newenv._python(json.dumps(STATE)) is not None


def test_pyvenv_as_site_reads_it() -> None:
    text = "home = /opt/conda/bin\nInclude-System-Site-Packages=TRUE\nnoise\nversion= 3.11 = x\n"
    assert newenv._pyvenv(text) == {
        "home": "/opt/conda/bin",
        "include-system-site-packages": "TRUE",
        "version": "3.11 = x",
    }
