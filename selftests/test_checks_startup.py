"""The checks of how an image starts: configuration, entrypoint, banner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlcheck.checks import startup
from mlcheck.facts import (
    Banner,
    CommandResult,
    EntrypointRuns,
    Environment,
    File,
    ResolvedFile,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Verdict


def subjects(verdict: Verdict) -> list[str]:
    return [finding.subject for finding in verdict.findings]


def answer(stdout: str = "", exit_code: int = 0) -> CommandResult:
    return CommandResult(("x",), exit_code, stdout, "", "exited", 0.1)


def script(mode: int) -> ResolvedFile:
    file = File("/entrypoint.sh", "file", mode, 0, 0, 5)
    return ResolvedFile("/entrypoint.sh", file, file, "/entrypoint.sh")


SCRIPT, NOT_EXECUTABLE = script(0o755), script(0o644)
CONFIG = Environment(
    {"A": "1", "PATH": "/opt/conda/bin:/usr/bin", "L": "/usr/lib64:/.singularity.d/libs"},
    ("/entrypoint.sh",),
    ("/bin/bash",),
    None,
    None,
    None,
    None,
    "/env.sh",
)


@pytest.mark.parametrize(
    ("promise", "wrong"),
    [
        ({"equals": {"A": "1"}}, []),
        ({"equals": {"A": "2"}}, ["A"]),
        ({"equals": {"B": "2"}}, ["B"]),
        ({"starts": {"PATH": ["/opt/conda/bin"], "L": ["/usr/lib64"]}}, []),
        ({"starts": {"PATH": ["/usr/bin"]}}, ["PATH"]),
        ({"starts": {"NO": ["/usr/bin"]}}, ["NO"]),
    ],
)
def test_environment(promise: dict[str, Any], wrong: list[str]) -> None:
    assert subjects(startup.environment(CONFIG, Profile.of({"environment": promise}))) == wrong


ENTRYPOINT = Profile.of({"entrypoint": {"argv": ["/entrypoint.sh"], "cmd": ["/bin/bash"]}})


@pytest.mark.parametrize(
    ("config", "script", "wrong"),
    [
        (CONFIG, SCRIPT, []),
        (replace(CONFIG, entrypoint=None), SCRIPT, ["ENTRYPOINT"]),
        (replace(CONFIG, cmd=("/bin/sh",)), SCRIPT, ["CMD"]),
        (CONFIG, NOT_EXECUTABLE, ["/entrypoint.sh"]),
        (CONFIG, None, ["/entrypoint.sh"]),
    ],
)
def test_entrypoint(config: Environment, script: ResolvedFile | None, wrong: list[str]) -> None:
    assert subjects(startup.entrypoint(config, script, ENTRYPOINT)) == wrong


@pytest.mark.parametrize(
    ("exit_code", "words", "wrong"),
    [
        (7, "a banner\ntwo words\n", []),
        (0, "two words\n", ["exit code"]),
        (7, "\n", ["words"]),
        (0, "", ["exit code", "words"]),
        (7, "two words\nan afterword\n", ["words"]),
    ],
)
def test_entrypoint_command(exit_code: int, words: str, wrong: list[str]) -> None:
    runs = EntrypointRuns(answer("", exit_code), answer(words), answer(""))
    assert subjects(startup.entrypoint_command(runs, ENTRYPOINT)) == wrong


DOCKER = replace(CONFIG, user="", workdir="", exposed=(), labels={"imageVersion": "1"})


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (DOCKER, []),
        (replace(DOCKER, workdir="/"), []),
        (replace(DOCKER, labels={"imageVersion": ""}), []),
        (replace(DOCKER, labels={}), ["label imageVersion"]),
        (replace(DOCKER, user="1000"), ["USER"]),
        (replace(DOCKER, workdir="/home"), ["WORKDIR"]),
        (replace(DOCKER, exposed=("8888/tcp",)), ["EXPOSE"]),
        (replace(DOCKER, user=None, workdir=None, exposed=None), []),
        (replace(DOCKER, user=None, labels={}), ["label imageVersion"]),
    ],
)
def test_configuration(config: Environment, wrong: list[str]) -> None:
    promise = {"labels": ["imageVersion"], "user": "", "workdir": "", "exposed": []}
    verdict = startup.configuration(config, Profile.of({"configuration": promise}))
    assert subjects(verdict) == wrong
    assert verdict.outcome == ("failed" if wrong else "passed")


def test_configuration_with_other_promises() -> None:
    promise = {"user": "jovyan", "exposed": ["8888/tcp", "22/tcp"]}
    profile = Profile.of({"configuration": promise})
    good = replace(DOCKER, user="jovyan", exposed=("22/tcp", "8888/tcp"))
    assert startup.configuration(good, profile).outcome == "passed"
    assert subjects(startup.configuration(DOCKER, profile)) == ["USER", "EXPOSE"]


def test_a_directory_that_tells_nothing_of_its_configuration_is_not_judged() -> None:
    profile = Profile.of({"configuration": {"labels": ["imageVersion"], "user": ""}})
    verdict = startup.configuration(CONFIG, profile)
    assert verdict.outcome == "skipped"
    assert verdict.not_applicable == "/env.sh does not tell the labels; /env.sh does not tell USER"


HINTS = {
    "script": "/printme.sh",
    "says": ["/list.txt"],
    "writable": ["micromamba install"],
    "read_only": ["/create.sh"],
    "silenced_by": "QUIET",
}
WRITABLE, READ_ONLY = "read /list.txt, micromamba install\n", "read /list.txt, source /create.sh\n"


@pytest.mark.parametrize(
    ("started", "said", "silenced", "writable", "wrong"),
    [
        (READ_ONLY, READ_ONLY, "", False, []),
        (READ_ONLY, WRITABLE, "", True, []),
        (READ_ONLY, WRITABLE, "", False, ["/printme.sh", "/printme.sh"]),
        (READ_ONLY, READ_ONLY, "", True, ["/printme.sh", "/printme.sh"]),
        (READ_ONLY, WRITABLE + READ_ONLY, "", False, ["/printme.sh"]),
        (READ_ONLY, "source /create.sh", "", False, ["/printme.sh"]),
        (READ_ONLY, READ_ONLY, READ_ONLY, False, ["QUIET"]),
        ("HOME=/\n", READ_ONLY, "", False, ["entrypoint"]),
    ],
)
def test_banner(started: str, said: str, silenced: str, writable: bool, wrong: list[str]) -> None:
    runs = EntrypointRuns(answer(), answer(), answer(started))
    fact = Banner("/printme.sh", answer(said), answer(silenced), writable)
    assert subjects(startup.banner(runs, fact, Profile.of({"banner": HINTS}))) == wrong


def test_a_banner_that_is_not_there_is_left_to_the_check_of_files() -> None:
    fact = Banner("/printme.sh", None, None, writable=False)
    verdict = startup.banner(None, fact, Profile.of({"banner": HINTS}))
    assert verdict.untried == "there is no /printme.sh (see the check files)"


@pytest.mark.parametrize(
    ("env", "active"),
    [
        ("PATH=/x\nHOME=/\n", False),
        ("banner\nPATH=/x\nCONDA_DEFAULT_ENV=base\n", True),
        ("CONDA_SHLVL=1\n", True),
        ("CONDA_PREFIX=/opt/conda\nNO_CONDA_SHLVL=1\n", False),
    ],
)
def test_activation(env: str, active: bool) -> None:
    runs = EntrypointRuns(answer(), answer(), answer(env))
    for promised in (True, False):
        entrypoint = {"argv": ["/entrypoint.sh"], "activates": promised}
        verdict = startup.activation(runs, Profile.of({"entrypoint": entrypoint}))
        assert verdict.outcome == ("passed" if active == promised else "failed")
    assert startup.activation(runs, ENTRYPOINT).outcome == "skipped"
