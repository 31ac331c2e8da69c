"""Two images that should hold the same: collected with --compare alone."""

from __future__ import annotations

import pytest

from mlcheck.checks import parity
from mlcheck.facts import ImageFiles, Side
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_operating_system(
    this_side: Side, other_side: Side, profile: Profile, judge: Judge
) -> None:
    judge(parity.judge("os", this_side, other_side, profile))


def test_packages(this_side: Side, other_side: Side, profile: Profile, judge: Judge) -> None:
    judge(parity.judge("packages", this_side, other_side, profile))


def test_kernels(this_side: Side, other_side: Side, profile: Profile, judge: Judge) -> None:
    judge(parity.judge("kernels", this_side, other_side, profile))


def test_tools(this_side: Side, other_side: Side, profile: Profile, judge: Judge) -> None:
    judge(parity.judge("tools", this_side, other_side, profile))


def test_environment(this_side: Side, other_side: Side, profile: Profile, judge: Judge) -> None:
    judge(parity.judge("environment", this_side, other_side, profile))


@pytest.mark.slow
def test_files(
    this_side: Side,
    other_side: Side,
    these_files: ImageFiles,
    other_files: ImageFiles,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(parity.files(this_side, other_side, these_files, other_files, profile))
