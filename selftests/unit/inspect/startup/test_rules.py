"""The rules of how an image starts: configuration, entrypoint, banner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlcheck.inspect.startup.behind import WORDS
from mlcheck.inspect.startup.facts import (
    LINE,
    Banner,
    EntrypointProgram,
    EntrypointRuns,
    Heard,
    Stopped,
)
from mlcheck.model.command import CommandResult
from mlcheck.model.environment import Environment
from mlcheck.model.files import File, ResolvedFile
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge


def subjects(verdict: Verdict) -> list[str]:
    return [finding.subject for finding in verdict.findings]


def answer(stdout: str = "", exit_code: int = 0) -> CommandResult:
    return CommandResult(("x",), exit_code, stdout, "", "exited", 0.1)


def script(mode: int) -> EntrypointProgram:
    file = File("/entrypoint.sh", "file", mode, 0, 0, 5)
    return EntrypointProgram(ResolvedFile("/entrypoint.sh", file, file, "/entrypoint.sh"))


SCRIPT, NOT_EXECUTABLE = script(0o755), script(0o644)
MISSING = EntrypointProgram(ResolvedFile("/entrypoint.sh", None, None, "/entrypoint.sh"))
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
    assert subjects(judge("environment", CONFIG, Profile.of({"environment": promise}))) == wrong


ENTRYPOINT = Profile.of({"entrypoint": {"argv": ["/entrypoint.sh"], "cmd": ["/bin/bash"]}})


@pytest.mark.parametrize(
    ("config", "script", "wrong"),
    [
        (CONFIG, SCRIPT, []),
        (replace(CONFIG, entrypoint=None), SCRIPT, ["ENTRYPOINT"]),
        (replace(CONFIG, cmd=("/bin/sh",)), SCRIPT, ["CMD"]),
        (replace(CONFIG, cmd=("/bin/sh", "-c", "/bin/bash")), SCRIPT, []),
        (replace(CONFIG, cmd=("/bin/bash", "-o", "pipefail", "-c", "/bin/bash")), SCRIPT, []),
        (replace(CONFIG, cmd=("/bin/sh", "-c", "/bin/bash; true")), SCRIPT, ["CMD"]),
        (replace(CONFIG, entrypoint=("/bin/sh", "-c", "/entrypoint.sh")), SCRIPT, ["ENTRYPOINT"]),
        (CONFIG, NOT_EXECUTABLE, ["/entrypoint.sh"]),
        (CONFIG, MISSING, ["/entrypoint.sh"]),
    ],
)
def test_entrypoint(config: Environment, script: EntrypointProgram, wrong: list[str]) -> None:
    assert subjects(judge("entrypoint", config, script, ENTRYPOINT)) == wrong


LATE = replace(answer(), ended="timeout", exit_code=None)
RUNS = EntrypointRuns(
    True,
    Heard(answer(), WORDS, WORDS, LINE, ""),
    {1: answer(exit_code=1), 7: answer(exit_code=7)},
    answer(exit_code=137),
    Stopped(answer(), True, ignored=False, handled=True, caught=True),
    answer("PATH=/x\n"),
)


@pytest.mark.parametrize(
    ("runs", "wrong"),
    [
        (RUNS, []),
        (replace(RUNS, codes={7: answer()}), ["exit code"]),
        (replace(RUNS, killed=answer()), ["signal"]),
        # The first process of a container cannot kill itself.
        (replace(RUNS, killed=answer(exit_code=9)), []),
        (replace(RUNS, heard=replace(RUNS.heard, words=None, line=None)), ["words"]),
        (replace(RUNS, heard=replace(RUNS.heard, words=WORDS[1:])), ["words"]),
        (replace(RUNS, heard=replace(RUNS.heard, words=(*WORDS, "more"))), ["words"]),
        (replace(RUNS, heard=replace(RUNS.heard, line="")), ["input"]),
        (replace(RUNS, heard=replace(RUNS.heard, more="an afterword\n")), ["output"]),
        (replace(RUNS, heard=replace(RUNS.heard, result=answer(exit_code=3))), ["exit code"]),
        (replace(RUNS, stopped=Stopped(answer(), True, True, False, False)), ["SIGTERM"]),
        (replace(RUNS, stopped=Stopped(answer(), False, False, False, False)), ["SIGTERM"]),
        (replace(RUNS, stopped=Stopped(answer(), False, False, False, True)), []),
        (replace(RUNS, stopped=Stopped(answer(), False, False, True, False)), []),
        (replace(RUNS, stopped=Stopped(LATE, False, False, True, False)), ["SIGTERM"]),
        (replace(RUNS, stopped=Stopped(answer(), None, False, False, False)), []),
        (replace(RUNS, launcher=False), []),
    ],
)
def test_entrypoint_command(runs: EntrypointRuns, wrong: list[str]) -> None:
    assert subjects(judge("entrypoint-command", runs, ENTRYPOINT)) == wrong


def test_a_program_as_the_entrypoint_is_not_judged_as_a_launcher() -> None:
    heard = Heard(answer("", 2), WORDS, None, None, "")
    program = EntrypointRuns(False, heard, {}, None, None, None)
    assert judge("entrypoint-command", program, ENTRYPOINT).not_applicable
    assert judge("entrypoint-command", replace(program, launcher=True), ENTRYPOINT).findings
    # What comes before a command is promised: a script that forgot its words is no program.
    argv: dict[str, object] = {"argv": ["/entrypoint.sh"]}
    banner = {"script": "/printme.sh", "silenced_by": "QUIET"}
    for told in (
        {"entrypoint": {**argv, "activates": False}},
        {"entrypoint": argv, "banner": banner},
    ):
        assert judge("entrypoint-command", program, Profile.of(told)).findings


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
    verdict = judge("configuration", config, Profile.of({"configuration": promise}))
    assert subjects(verdict) == wrong
    assert verdict.outcome == ("failed" if wrong else "passed")


def test_configuration_with_other_promises() -> None:
    promise = {"user": "jovyan", "exposed": ["8888/tcp", "22/tcp"]}
    profile = Profile.of({"configuration": promise})
    good = replace(DOCKER, user="jovyan", exposed=("22/tcp", "8888/tcp"))
    assert judge("configuration", good, profile).outcome == "passed"
    assert subjects(judge("configuration", DOCKER, profile)) == ["USER", "EXPOSE"]


def test_a_directory_that_tells_nothing_of_its_configuration_is_not_judged() -> None:
    profile = Profile.of({"configuration": {"labels": ["imageVersion"], "user": ""}})
    verdict = judge("configuration", CONFIG, profile)
    assert verdict.outcome == "skipped"
    assert verdict.not_applicable == "/env.sh does not tell the labels; /env.sh does not tell USER"


HINTS = {
    "script": "/printme.sh",
    "says": ["/list.txt"],
    "writable": ["micromamba install"],
    "read_only": ["/create.sh"],
    "silenced_by": "QUIET",
}
LISTED = "read /list.txt\n"
WRITABLE, READ_ONLY = "read /list.txt, micromamba install\n", "read /list.txt, source /create.sh\n"


@pytest.mark.parametrize(
    ("started", "said", "silenced", "writable", "wrong"),
    [
        (READ_ONLY, LISTED, "", False, []),
        (WRITABLE, LISTED, "", True, []),
        (WRITABLE, LISTED, "", False, ["/printme.sh", "/printme.sh"]),
        (READ_ONLY, LISTED, "", True, ["/printme.sh", "/printme.sh"]),
        (READ_ONLY + "micromamba install\n", LISTED, "", False, ["/printme.sh"]),
        (LISTED, LISTED, "", False, ["/printme.sh"]),
        (READ_ONLY, "source /create.sh", "", False, ["/printme.sh"]),
        (READ_ONLY, LISTED, LISTED, False, ["QUIET"]),
        ("", LISTED, "", False, ["entrypoint"]),
        # A command does not answer behind the entrypoint: that is for entrypoint-command to say.
        ("", LISTED, "", None, []),
    ],
)
def test_banner(
    started: str, said: str, silenced: str, writable: bool | None, wrong: list[str]
) -> None:
    end = "/opt/conda can be written"
    start, quiet = answer(f"{started}{end}\n"), answer(f"\n{end}\n")
    fact = Banner("/printme.sh", answer(said), answer(silenced), start, quiet, end, writable)
    assert subjects(judge("entrypoint-banner", fact, Profile.of({"banner": HINTS}))) == wrong


@pytest.mark.parametrize(
    ("started", "quiet", "wrong"),
    [
        (WRITABLE, "", []),
        (WRITABLE + LISTED, "", ["entrypoint"]),
        (WRITABLE, LISTED, ["entrypoint"]),
        (WRITABLE, "welcome\n", ["entrypoint"]),
    ],
)
def test_a_banner_is_printed_once_and_a_start_can_be_silenced(
    started: str, quiet: str, wrong: list[str]
) -> None:
    end = "/opt/conda can be written"
    starts = answer(f"{started}{end}\n"), answer(f"{quiet}{end}\n")
    fact = Banner("/printme.sh", answer(LISTED), answer(), *starts, end, True)
    assert subjects(judge("entrypoint-banner", fact, Profile.of({"banner": HINTS}))) == wrong


def test_a_banner_that_is_not_there_is_left_to_the_check_of_files() -> None:
    fact = Banner("/printme.sh", None, None, None, None, "", None)
    verdict = judge("entrypoint-banner", fact, Profile.of({"banner": HINTS}))
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
    runs = replace(RUNS, env=answer(env))
    for promised in (True, False):
        entrypoint = {"argv": ["/entrypoint.sh"], "activates": promised}
        verdict = judge("entrypoint-activation", runs, Profile.of({"entrypoint": entrypoint}))
        assert verdict.outcome == ("passed" if active == promised else "failed")
