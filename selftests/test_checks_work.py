"""The checks of requested packages, small programs and notebooks."""

from __future__ import annotations

import pytest

from mlcheck.checks import work
from mlcheck.facts import (
    CommandResult,
    ImportResult,
    Imports,
    NotebookRun,
    NotebookRuns,
    Picture,
    Problem,
    Requested,
    TaskRun,
    TaskRuns,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Verdict

NOTHING = Profile.of({})
PROFILE = Profile.of(
    {
        "packages": {
            "requested": {
                "scikit-learn": "sklearn",
                "tini": False,
                "jupyterlab-*": False,
                "r-rcurl": "RCurl",
            }
        },
        "tasks": {"plot": {"run": ["python3"], "prints": "done", "draws": ["a.png"]}},
        "notebooks": {"python3": {"code": "print({a} * {b})"}},
    }
)


def subjects(verdict: Verdict) -> list[str]:
    return [finding.subject for finding in verdict.findings]


def loaded(*names: str, **errors: str) -> Imports:
    results = [ImportResult(name, None, 0.1) for name in names]
    return Imports((*results, *(ImportResult(name, what, 0.1) for name, what in errors.items())))


def test_names_to_load() -> None:
    names = ("jupyterlab-git", "numpy", "r-jsonlite", "r-rcurl", "scikit-learn", "tini", "a-b")
    assert work.loads(Requested(names, "history"), PROFILE) == (
        {"numpy": "numpy", "scikit-learn": "sklearn", "a-b": "a_b"},
        {"r-jsonlite": "jsonlite", "r-rcurl": "RCurl"},
    )


def test_packages_that_load_and_do_not() -> None:
    fact = Requested(("numpy", "r-rcurl"), "history")
    good = work.requested(fact, loaded("numpy"), loaded("RCurl"), PROFILE)
    assert good.outcome == "passed"
    bad = work.requested(fact, loaded(numpy="ImportError: no"), loaded(RCurl="Error"), PROFILE)
    assert subjects(bad) == ["numpy", "r-rcurl"]
    untried = work.requested(fact, loaded(), loaded("RCurl"), PROFILE)
    assert subjects(untried) == ["numpy"]


def test_a_history_that_cannot_be_read_and_one_that_asks_for_nothing() -> None:
    gone = Requested((), "/history", (Problem("/history", "is a FIFO"),))
    assert subjects(work.requested(gone, loaded(), loaded(), PROFILE)) == ["/history"]
    assert work.requested(Requested((), "h"), loaded(), loaded(), PROFILE).outcome == "skipped"


def run(stdout: str, exit_code: int, picture: Picture | str) -> TaskRuns:
    result = CommandResult(("python3",), exit_code, stdout, "no such module", "exited", 0.1)
    return TaskRuns((TaskRun("plot", result, {"a.png": picture}),))


@pytest.mark.parametrize(
    ("fact", "found"),
    [
        (run("done\n", 0, Picture(640, 480, 9000)), []),
        (run("done\n", 1, Picture(640, 480, 9000)), ["plot"]),
        (run("", 0, Picture(640, 480, 9000)), ["plot"]),
        (run("done\n", 0, "is no PNG file"), ["plot: a.png"]),
        (run("done\n", 0, Picture(0, 480, 100)), ["plot: a.png"]),
    ],
)
def test_tasks(fact: TaskRuns, found: list[str]) -> None:
    assert subjects(work.tasks(fact, PROFILE)) == found


@pytest.mark.parametrize(
    ("error", "printed", "found"),
    [(None, "42\n", []), (None, "41\n", ["python3"]), ("ended with exit code 1", "", ["python3"])],
)
def test_notebooks(error: str | None, printed: str, found: list[str]) -> None:
    fact = NotebookRuns((NotebookRun("python3", error, printed, "42", 0.1),))
    assert subjects(work.notebooks(fact, PROFILE)) == found


def test_a_profile_that_says_nothing_skips_all() -> None:
    verdicts = [
        work.requested(Requested((), ""), loaded(), loaded(), NOTHING),
        work.tasks(TaskRuns(()), NOTHING),
        work.notebooks(NotebookRuns(()), NOTHING),
    ]
    assert {verdict.outcome for verdict in verdicts} == {"skipped"}
