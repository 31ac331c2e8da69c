"""Jupyter, running: kernels, the list of them, JupyterLab and its terminals."""

from __future__ import annotations

import pytest

from mlcheck.checks import jupyterlab as lab
from mlcheck.checks import kernel_cells, kernels, run_server
from mlcheck.facts import (
    JupyterServer,
    KernelLists,
    KernelRuns,
    KernelSessions,
    Shells,
    Speech,
)
from mlcheck.judge import Judge
from mlcheck.profile import Profile

pytestmark = pytest.mark.slow


def test_kernels_start_and_compute(kernel_runs: KernelRuns, profile: Profile, judge: Judge) -> None:
    judge(kernels.start(kernel_runs, profile))


def test_kernels_run_the_images_python(
    kernel_runs: KernelRuns, profile: Profile, judge: Judge
) -> None:
    judge(kernels.own_python(kernel_runs, profile))


def test_kernels_see_the_users_packages_as_promised(
    kernel_runs: KernelRuns, profile: Profile, judge: Judge
) -> None:
    judge(kernels.usersite(kernel_runs, profile))


def test_kernel_list_is_clean(
    kernel_lists: KernelLists, jupyterlab: JupyterServer, profile: Profile, judge: Judge
) -> None:
    judge(kernels.clean_list(kernel_lists, jupyterlab, profile))


def test_jupyterlab_starts(jupyterlab: JupyterServer, profile: Profile, judge: Judge) -> None:
    judge(lab.starts(jupyterlab, profile))


def test_jupyterlab_wants_its_token(
    jupyterlab: JupyterServer, profile: Profile, judge: Judge
) -> None:
    judge(lab.token(jupyterlab, profile))


def test_jupyterlab_starts_a_kernel(
    jupyterlab: JupyterServer, kernel_runs: KernelRuns, profile: Profile, judge: Judge
) -> None:
    judge(lab.kernels(jupyterlab, kernel_runs, profile))


def test_jupyterlab_opens_terminals(
    jupyterlab: JupyterServer, shells: Shells, profile: Profile, judge: Judge
) -> None:
    judge(lab.terminals(jupyterlab, shells, profile))


def test_jupyter_wrappers_speak(speech: Speech, profile: Profile, judge: Judge) -> None:
    judge(lab.wrappers(speech, profile))


def test_cells_print_what_they_must(
    kernel_sessions: KernelSessions, kernel_runs: KernelRuns, profile: Profile, judge: Judge
) -> None:
    judge(kernel_cells.cells(kernel_sessions, kernel_runs, profile))


def test_cells_know_the_setup_file(
    kernel_sessions: KernelSessions, kernel_runs: KernelRuns, profile: Profile, judge: Judge
) -> None:
    judge(kernel_cells.setup(kernel_sessions, kernel_runs, profile))


def test_run_prints_the_address_of_a_server(
    server_run: JupyterServer | None, profile: Profile, judge: Judge
) -> None:
    judge(run_server.url(server_run, profile))


def test_run_server_wants_its_token(
    server_run: JupyterServer | None, profile: Profile, judge: Judge
) -> None:
    judge(run_server.token(server_run, profile))
