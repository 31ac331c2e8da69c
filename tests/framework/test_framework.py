"""TensorFlow or torch: the right build, and it computes."""

from __future__ import annotations

import pytest

from mlcheck.checks import framework
from mlcheck.facts import CommandResult, CudaLibraries, Framework
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


@pytest.mark.slow
def test_script_of_the_image_tells_the_truth(
    framework_script: CommandResult | None,
    framework_said: Framework,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(framework.script(framework_script, framework_said, profile))


def test_no_driver_is_in_the_image(
    cuda_libraries: CudaLibraries, profile: Profile, judge: Judge
) -> None:
    judge(framework.driver(cuda_libraries, profile))
