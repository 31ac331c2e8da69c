"""What must work for users: packages that were asked for, small programs, notebooks."""

from __future__ import annotations

import pytest

from mlcheck.checks import work
from mlcheck.facts import Imports, NotebookRuns, Requested, TaskRuns
from mlcheck.judge import Judge
from mlcheck.profile import Profile


@pytest.mark.slow
def test_requested_packages_load(
    requested_packages: Requested,
    requested_imports: Imports,
    requested_libraries: Imports,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(work.requested(requested_packages, requested_imports, requested_libraries, profile))


@pytest.mark.slow
def test_programs_work(task_runs: TaskRuns, profile: Profile, judge: Judge) -> None:
    judge(work.tasks(task_runs, profile))


@pytest.mark.slow
def test_notebooks_execute(notebook_runs: NotebookRuns, profile: Profile, judge: Judge) -> None:
    judge(work.notebooks(notebook_runs, profile))
