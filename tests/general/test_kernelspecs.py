"""The Jupyter kernels that the image offers."""

from __future__ import annotations

from mlcheck.checks import kernelspecs
from mlcheck.facts import Kernelspecs
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_kernelspecs_are_valid(
    jupyter_kernels: Kernelspecs, profile: Profile, judge: Judge
) -> None:
    judge(kernelspecs.valid(jupyter_kernels, profile))


def test_kernels_are_exactly_the_promised(
    jupyter_kernels: Kernelspecs, prefix_or_none: str | None, profile: Profile, judge: Judge
) -> None:
    judge(kernelspecs.promised(jupyter_kernels, profile))


def test_kernels_start_the_promised_program(
    jupyter_kernels: Kernelspecs, profile: Profile, judge: Judge
) -> None:
    judge(kernelspecs.argv(jupyter_kernels, profile))
