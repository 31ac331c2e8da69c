"""Jupyter, running: kernels, the list of them, JupyterLab and its terminals."""

from __future__ import annotations

import pytest

from mlcheck.checks import jupyterlab as lab
from mlcheck.checks import kernels
from mlcheck.facts import JupyterServer, KernelLists, KernelRuns, Shells, Speech
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
