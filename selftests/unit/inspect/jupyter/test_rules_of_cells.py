"""The rules of cells, setup files and the image's own server, on literal facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlcheck.inspect.jupyter.facts import (
    CellRun,
    JupyterServer,
    KernelRun,
    KernelRuns,
    KernelSession,
    KernelSessions,
)
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

KERNEL: dict[str, Any] = {
    "mounts": ["/data"],
    "setup": {"file": "~/.setup", "variables": {"PYTHON_VER": "2.7"}},
    "cells": {"sum": {"code": "print(1 + 1)", "prints": "2"}},
}
PROFILE = Profile.of(
    {
        "kernelspecs": {"generation": "only", "generations": {"only": {"py": KERNEL}}},
        "run_server": {"url": r"http://localhost/\?token=(?P<token>\w+)"},
    }
)
NOTHING = Profile.of({"kernelspecs": {"generation": "x", "generations": {"x": {"py": {}}}}})
STARTS = KernelRuns((KernelRun("py", (), None, 1.0),))
FAILS = KernelRuns((KernelRun("py", (), "no", 1.0),))
GOOD = KernelSession("py", None, {"PYTHON_VER": "2.7"}, {"sum": CellRun("2\n", None)})


def judged(session: KernelSession, runs: KernelRuns = STARTS) -> tuple[Verdict, Verdict]:
    fact = KernelSessions((session,))
    return judge("kernel-cells", fact, runs, PROFILE), judge("kernel-setup", fact, runs, PROFILE)


def test_a_good_session() -> None:
    assert [verdict.outcome for verdict in judged(GOOD)] == ["passed", "passed"]


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        (CellRun("3\n", None), "printed '3'"),
        (CellRun("", None), "printed ''"),
        (CellRun("", None, "error: no TH1F"), "printed ''; it said: error: no TH1F"),
        (CellRun("2\n", "ImportError: no"), "ImportError: no"),
        (None, "was not run"),
    ],
)
def test_a_cell_that_prints_something_else(cell: CellRun | None, found: str) -> None:
    cells, setup = judged(replace(GOOD, cells={"sum": cell} if cell else {}))
    (finding,) = cells.findings
    assert (finding.subject, finding.found, finding.expected) == ("py: sum", found, "prints '2'")
    assert setup.outcome == "passed"


@pytest.mark.parametrize(
    ("setup", "found"),
    [
        (None, "did not source ~/.setup"),
        ({}, "PYTHON_VER is not set there"),
        ({"PYTHON_VER": ""}, "PYTHON_VER is not set there"),
        ({"PYTHON_VER": "3.6"}, "PYTHON_VER is '3.6' there"),
        ({"PYTHON_VER": "2.6.6"}, "PYTHON_VER is '2.6.6' there"),
    ],
)
def test_a_setup_file_that_does_not_see_what_it_should(
    setup: dict[str, str] | None, found: str
) -> None:
    cells, verdict = judged(replace(GOOD, setup=setup))
    assert [finding.found for finding in verdict.findings] == [found]
    assert cells.outcome == "passed"


@pytest.mark.parametrize("version", ["2", "2.7", "2.7.18"])
def test_a_version_may_be_told_in_more_or_fewer_parts(version: str) -> None:
    assert judged(replace(GOOD, setup={"PYTHON_VER": version}))[1].outcome == "passed"


def test_what_does_not_start_is_for_another_check() -> None:
    dead = KernelSession("py", "died")
    for verdict in judged(dead, FAILS):
        assert verdict.outcome == "skipped"
    for verdict in judged(dead):  # but it did start there
        assert [finding.found for finding in verdict.findings] == ["died"]
    for rule in ("kernel-cells", "kernel-setup"):
        # Nothing is bound, so that nothing was started.
        assert judge(rule, KernelSessions(()), KernelRuns(()), PROFILE).outcome == "skipped"


def server(**changed: int | None) -> JupyterServer:
    status: dict[str, int | None] = {"address": 200, "lab": 200, "api/kernels": 200}
    status |= {"lab without a token": 302, "lab with a wrong token": 302}
    status |= {"api/kernels without a token": 403, "api/kernels with a wrong token": 403}
    return JupyterServer(("/run", "it"), None, 1.0, status | changed)


def test_a_good_server() -> None:
    assert judge("run-url", server(), PROFILE).outcome == "passed"
    assert judge("run-token", server(), PROFILE).outcome == "passed"


@pytest.mark.parametrize(
    ("question", "status"), [("address", 404), ("lab", 302), ("api/kernels", None)]
)
def test_an_address_where_it_does_not_answer(question: str, status: int | None) -> None:
    fact = server(**{question: status})
    assert [finding.subject for finding in judge("run-url", fact, PROFILE).findings] == [question]
    assert judge("run-token", fact, PROFILE).outcome == "passed"


def test_no_address() -> None:
    fact = JupyterServer(("/run", "it"), "printed no such address in 90 s")
    (finding,) = judge("run-url", fact, PROFILE).findings
    assert (finding.subject, finding.found) == ("/run it", fact.error)
    assert judge("run-token", fact, PROFILE).outcome == "skipped"
    (finding,) = judge("run-url", JupyterServer((), "says nothing"), PROFILE).findings
    assert finding.subject == "the image"


@pytest.mark.parametrize("question", ["lab without a token", "api/kernels with a wrong token"])
def test_a_server_that_lets_everybody_in(question: str) -> None:
    fact = server(**{question: 200})
    assert [finding.subject for finding in judge("run-token", fact, PROFILE).findings] == [question]
    assert judge("run-url", fact, PROFILE).outcome == "passed"


@pytest.mark.parametrize(
    ("token", "outcome"),
    [("made", "passed"), ("JUPYTER_TOKEN", "failed"), ("a configuration", "failed")],
)
def test_a_server_whose_token_everybody_has(token: str, outcome: str) -> None:
    assert judge("run-token", replace(server(), token=token), PROFILE).outcome == outcome
