"""ROOT at work: in Python, and in a program that is compiled in the image."""

from __future__ import annotations

import pytest

from mlcheck.checks import root_runs
from mlcheck.facts import PyRoot, RootProgram
from mlcheck.judge import Judge
from mlcheck.profile import Profile


@pytest.mark.slow
def test_pyroot_computes(pyroot_run: PyRoot, profile: Profile, judge: Judge) -> None:
    judge(root_runs.pyroot(pyroot_run, profile))


@pytest.mark.slow
def test_program_gets_the_images_libz(
    root_program: RootProgram, profile: Profile, judge: Judge
) -> None:
    judge(root_runs.program(root_program, profile))
