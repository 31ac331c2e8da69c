"""The rules of requested packages, small programs and notebooks."""

from __future__ import annotations

import pytest

from mlcheck.inspect.packages.facts import ImportResult, Imports, Requested
from mlcheck.inspect.work.facts import NotebookRun, NotebookRuns, Picture, TaskRun, TaskRuns
from mlcheck.inspect.work.names import names_to_load
from mlcheck.model.command import CommandResult
from mlcheck.model.files import Problem
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

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
    assert names_to_load(Requested(names, "history"), PROFILE) == (
        {"numpy": "numpy", "scikit-learn": "sklearn", "a-b": "a_b"},
        {"r-jsonlite": "jsonlite", "r-rcurl": "RCurl"},
    )


def test_packages_that_load_and_do_not() -> None:
    fact = Requested(("numpy", "r-rcurl"), "history")
    good = judge("requested-packages", fact, loaded("numpy"), loaded("RCurl"), PROFILE)
    assert good.outcome == "passed"
    bad = judge(
        "requested-packages", fact, loaded(numpy="ImportError: no"), loaded(RCurl="Error"), PROFILE
    )
    assert subjects(bad) == ["numpy", "r-rcurl"]
    untried = judge("requested-packages", fact, loaded(), loaded("RCurl"), PROFILE)
    assert subjects(untried) == ["numpy"]


def test_a_history_that_cannot_be_read_and_one_that_asks_for_nothing() -> None:
    gone = Requested((), "/history", (Problem("/history", "is a FIFO"),))
    assert subjects(judge("requested-packages", gone, loaded(), loaded(), PROFILE)) == ["/history"]
    assert (
        judge("requested-packages", Requested((), "h"), loaded(), loaded(), PROFILE).outcome
        == "skipped"
    )


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
    assert subjects(judge("tasks", fact, PROFILE)) == found


@pytest.mark.parametrize(
    ("error", "printed", "found"),
    [(None, "42\n", []), (None, "41\n", ["python3"]), ("ended with exit code 1", "", ["python3"])],
)
def test_notebooks(error: str | None, printed: str, found: list[str]) -> None:
    fact = NotebookRuns((NotebookRun("python3", error, printed, "42", 0.1),))
    assert subjects(judge("notebooks", fact, PROFILE)) == found
