"""TensorFlow or torch: the build for GPUs, and it computes; its libraries are in the image."""

from __future__ import annotations

import pytest

from mlcheck.checks import framework
from mlcheck.facts import CudaLibraries, Framework
from mlcheck.judge import Judge
from mlcheck.profile import Profile


@pytest.mark.slow
def test_framework_is_the_promised_build(
    framework_said: Framework, profile: Profile, judge: Judge
) -> None:
    judge(framework.build(framework_said, profile))


@pytest.mark.slow
def test_framework_computes(framework_said: Framework, profile: Profile, judge: Judge) -> None:
    judge(framework.computes(framework_said, profile))


def test_no_driver_is_in_the_image(
    cuda_libraries: CudaLibraries, profile: Profile, judge: Judge
) -> None:
    judge(framework.driver(cuda_libraries, profile))
