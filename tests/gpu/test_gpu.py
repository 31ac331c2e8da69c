"""GPUs: first what can be seen without one, then the ladder up to a computation (docs/gpu.md)."""

from __future__ import annotations

import pytest

from mlcheck.checks import framework, gpu
from mlcheck.facts import CudaLibraries, Gpus, Hints
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_cuda_libraries_are_found(
    cuda_libraries: CudaLibraries, profile: Profile, judge: Judge
) -> None:
    judge(framework.libraries(cuda_libraries, profile))


def test_hint_tells_the_truth(gpu_hints: Hints, profile: Profile, judge: Judge) -> None:
    judge(framework.hint(gpu_hints, profile))


def test_machine_has_a_gpu(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.MACHINE, gpus, profile))


def test_gpu_is_passed(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.PASSED, gpus, profile))


def test_driver_is_loaded(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.LOADS, gpus, profile))


def test_driver_starts(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.STARTS, gpus, profile))


def test_driver_is_new_enough(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.VERSION, gpus, profile))


def test_gpus_inside_are_those_outside(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.DEVICES, gpus, profile))


@pytest.mark.slow
def test_framework_sees_the_gpus(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.SEEN, gpus, profile))


@pytest.mark.slow
def test_framework_computes_on_the_gpu(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.COMPUTES, gpus, profile))


@pytest.mark.slow
def test_without_devices_none_is_seen(gpus: Gpus, profile: Profile, judge: Judge) -> None:
    judge(gpu.rung(gpu.CONTROL, gpus, profile))
