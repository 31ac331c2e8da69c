"""The ladder of GPUs, rung by rung, with a stand-in for NVIDIA's driver.

No machine with a GPU was to be had: libcuda.so.1 is compiled here and answers what a test wants,
the device files are FIFOs in a directory of the image, and the machine is made up. The
probes, the loader, the framework's stand-in in the reference image and the checks are what runs
for users too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.inspect.framework.facts import Computation
from mlcheck.inspect.gpu import probe
from mlcheck.inspect.gpu.facts import CudaDriver, Gpus
from mlcheck.model.host_gpus import GpuDevice, HostGpus
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Catalog
from mlcheck.reference import cache, elf, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.python import SITE
from selftests.checkout import CHECKOUT
from selftests.images import opened
from selftests.rules import judge, rule

RUNGS = (
    *("gpu-machine", "gpu-passed", "gpu-driver-loads", "gpu-driver-starts", "gpu-driver-version"),
    *("gpu-devices", "gpu-framework", "gpu-computation", "gpu-control"),
)
HERE = CHECKOUT / "selftests"
DEV = "/opt/standin-dev"
LIBCUDA = "/usr/local/nvidia/lib64/libcuda.so.1"
UUIDS = tuple(bytes(range(16 * n, 16 * n + 16)).hex() for n in range(3))
HOST = HostGpus(
    "550.54.15", ("0000:01:00.0",), tuple(GpuDevice("a GPU", uuid) for uuid in UUIDS[:2])
)
PROFILE = Catalog([HERE.parent / "tests"]).load("ml-tensorflow-gpu", "alma9-python311")
SITE_PACKAGES_KEPT = ("numpy", "tensorflow")


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """A copy of the reference image that a test may change."""
    with tempfile.TemporaryDirectory(prefix=".selftest-", dir=cache.cache_root()) as top:
        yield lean_copy(reference.build("ml-tensorflow-gpu"), Path(top, "image"))


def lean_copy(good: Path, copy: Path) -> Path:
    """A copy, by hard links, with no more of Python's packages than TensorFlow needs."""

    def left_out(directory: str, names: list[str]) -> list[str]:
        at_packages = directory.endswith("/site-packages")
        return [name for name in names if at_packages and not name.startswith(SITE_PACKAGES_KEPT)]

    shutil.copytree(good, copy, symlinks=True, ignore=left_out, copy_function=os.link)
    return copy


def compile_driver(target: Path, **answers: int) -> None:
    """The stand-in for libcuda.so.1, which gives these answers."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    defines = {"INIT": 0, "CRASH": 0, "DEAF": 0, "VERSION": 12040, "COUNT": 2} | answers
    texts = {name: str(value) for name, value in defines.items()}
    flags = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    elf.compile_c(Job(), str(HERE / "standin_libcuda.c"), target, texts, flags)


def drive(
    image: Path,
    *,
    init: int = 0,
    crash: bool = False,
    deaf: bool = False,
    version: int = 12040,
    count: int = 2,
    library: bool = True,
    nodes: bool = True,
) -> Gpus:
    """What is found with such a driver."""
    shutil.rmtree(image / DEV.lstrip("/"), ignore_errors=True)
    tree.at(image, DEV).mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidiactl") if nodes else ():
        os.mkfifo(tree.at(image, f"{DEV}/{name}"))
    target = tree.at(image, LIBCUDA)
    target.unlink(missing_ok=True)
    if library:
        answers = {"INIT": init, "CRASH": int(crash), "DEAF": int(deaf)}
        compile_driver(target, **answers, VERSION=version, COUNT=count)
    with opened(image) as running:
        return probe.climb(running, HOST, "tensorflow", dev=DEV)


def climb(fact: Gpus) -> dict[str, Verdict]:
    return {name: judge(name, fact, PROFILE) for name in RUNGS}


def stops_at(fact: Gpus, name: str, outcome: str) -> Verdict:
    """See that exactly this rung does not hold: those below do, those above are not judged."""
    verdicts = climb(fact)
    at = RUNGS.index(name)
    assert {verdicts[below].outcome for below in RUNGS[:at]} <= {"passed"}
    assert verdicts[name].outcome == outcome, verdicts[name]
    for above in RUNGS[at + 1 :]:
        assert verdicts[above].untried == f"not judged: see {name}"
    return replace(verdicts[name], remedy=verdicts[name].remedy or rule(name).fix)


def text(verdict: Verdict) -> str:
    return f"{verdict.trouble} {[f.found for f in verdict.findings]} {verdict.remedy}"


@pytest.mark.slow
def test_a_working_gpu_climbs_the_whole_ladder(image: Path) -> None:
    fact = drive(image)
    assert {name: verdict.outcome for name, verdict in climb(fact).items()} == dict.fromkeys(
        RUNGS, "passed"
    )
    assert fact.driver is not None
    assert fact.driver.nodes == dict.fromkeys(
        (f"{DEV}/{name}" for name in ("nvidia0", "nvidia1", "nvidiactl")), ""
    )
    assert (fact.driver.library, fact.driver.from_image) == (LIBCUDA, True)
    assert fact.driver.devices == tuple(
        GpuDevice(f"stand-in GPU {n}", uuid) for n, uuid in enumerate(UUIDS[:2])
    )
    assert fact.framework is not None
    assert fact.framework.gpu is not None
    assert fact.framework.gpu.device.endswith("GPU:0")
    assert fact.control_driver is not None
    assert fact.control_driver.init == 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "outcome", "says"),
    [
        (34, "failed", "CUDA_ERROR_STUB_LIBRARY"),
        (46, "error", "EXCLUSIVE_PROCESS"),
        (100, "error", "CUDA_VISIBLE_DEVICES"),
        (802, "error", "nvidia-fabricmanager"),
        (803, "failed", "does not fit the loaded kernel driver"),
        (804, "failed", "cuda-compat"),
        (999, "error", "nvidia-modprobe"),
        (12345, "error", "a CUresult"),
    ],
)
def test_a_driver_that_does_not_start(image: Path, code: int, outcome: str, says: str) -> None:
    fact = drive(image, init=code)
    verdict = stops_at(fact, "gpu-driver-starts", outcome)
    assert str(code) in text(verdict)
    assert says in text(verdict)
    # The same answer of a library that the engine has brought is no fault of the image.
    assert fact.driver is not None
    own = replace(fact, driver=replace(fact.driver, from_image=False))
    assert "of this machine" in text(stops_at(own, "gpu-driver-starts", "error"))


@pytest.mark.slow
def test_a_driver_that_crashes_is_told_with_what_it_did_before(image: Path) -> None:
    fact = drive(image, crash=True)
    assert fact.driver is not None
    assert fact.driver.library == LIBCUDA
    assert "SIG" in text(stops_at(fact, "gpu-driver-starts", "failed"))


@pytest.mark.slow
def test_a_gpu_that_was_not_passed(image: Path) -> None:
    assert "--gpus all" in text(stops_at(drive(image, nodes=False), "gpu-passed", "error"))


@pytest.mark.slow
def test_devices_without_the_drivers_libraries(image: Path) -> None:
    verdict = stops_at(drive(image, library=False), "gpu-driver-loads", "error")
    assert "libcuda.so.1: cannot open shared object file" in text(verdict)


@pytest.mark.slow
def test_a_driver_that_is_too_old(image: Path) -> None:
    verdict = stops_at(drive(image, version=10020), "gpu-driver-version", "error")
    assert "supports CUDA 10.2" in text(verdict)
    assert "cudaErrorInsufficientDriver" in text(verdict)


@pytest.mark.slow
def test_devices_that_are_not_those_outside(image: Path) -> None:
    verdict = stops_at(drive(image, count=3), "gpu-devices", "error")
    assert UUIDS[2] in text(verdict)
    verdict = stops_at(drive(image, count=1), "gpu-devices", "error")
    assert f"{UUIDS[1]} (a GPU) not inside" in text(verdict)


@pytest.mark.slow
def test_a_driver_without_devices(image: Path) -> None:
    assert "0 devices" in text(stops_at(drive(image, count=0), "gpu-devices", "error"))


@pytest.mark.slow
def test_a_device_that_does_not_go_away_is_none(image: Path) -> None:
    verdict = stops_at(drive(image, deaf=True), "gpu-control", "failed")
    assert [f.found for f in verdict.findings] == ["shows 2 devices", "sees 2 GPUs"]


@pytest.mark.slow
def test_a_framework_on_the_cpu(image: Path) -> None:
    """A CPU build of TensorFlow in an image for GPUs."""
    path = f"{SITE}/tensorflow/_build.py"
    good = tree.at(image, path).read_text()
    tree.replace(image, path, "'11.8'", "None")
    try:
        verdict = stops_at(drive(image), "gpu-framework", "failed")
    finally:
        tree.write(image, path, good)
    assert "sees 0 of 2 GPUs" in text(verdict)


@pytest.mark.slow
def test_a_computation_that_goes_wrong(image: Path) -> None:
    fact = drive(image)
    framework = fact.framework
    assert framework is not None
    assert framework.gpu is not None
    value = tuple(tuple(x + 1 for x in row) for row in framework.gpu.value)
    for wrong, says in (
        (replace(framework, gpu=replace(framework.gpu, value=value)), "element [0][0]"),
        (replace(framework, gpu=Computation("/device:CPU:0", framework.gpu.value)), "CPU:0"),
        (replace(framework, gpu=None, error="out of memory"), "out of memory"),
    ):
        verdict = stops_at(replace(fact, framework=wrong), "gpu-computation", "failed")
        assert says in text(verdict)


# Literal facts: what no stand-in shows.


def asked(driver: CudaDriver, **more: str) -> Gpus:
    return Gpus(HOST, "", False, driver, variables=more)


NODES = {"/dev/nvidia0": "", "/dev/nvidiactl": ""}


def test_device_files_that_cannot_be_opened() -> None:
    closed = asked(CudaDriver({"/dev/nvidia0": "Permission denied", "/dev/nvidiactl": ""}))
    assert "Permission denied" in text(stops_at(closed, "gpu-passed", "error"))
    control = asked(CudaDriver({"/dev/nvidia0": "", "/dev/nvidiactl": "No such file"}))
    assert "/dev/nvidiactl: No such file" in text(stops_at(control, "gpu-passed", "error"))


def test_an_image_without_python_shows_no_device_files() -> None:
    fact = asked(CudaDriver(ended="python3 ended with exit code 127"))
    assert "127" in text(stops_at(fact, "gpu-passed", "failed"))


def test_a_c_library_that_is_older_than_the_driver() -> None:
    error = (
        "/lib64/libc.so.6: version `GLIBC_2.34' not found (required by "
        "/.singularity.d/libs/libcuda.so.1)"
    )
    verdict = stops_at(asked(CudaDriver(NODES, None, error)), "gpu-driver-loads", "failed")
    assert "2.34 or newer" in verdict.remedy


def test_an_image_that_does_not_want_the_driver_to_compute() -> None:
    error = "libcuda.so.1: cannot open shared object file: No such file or directory"
    fact = asked(CudaDriver(NODES, None, error), NVIDIA_DRIVER_CAPABILITIES="graphics,utility")
    assert "Add compute" in stops_at(fact, "gpu-driver-loads", "failed").remedy


def test_a_left_over_of_a_driver_is_the_images() -> None:
    fact = asked(CudaDriver(NODES, None, "/usr/lib64/libcuda.so.1: file too short"))
    assert "Remove the file" in stops_at(fact, "gpu-driver-loads", "failed").remedy


def test_an_image_that_hides_the_gpus() -> None:
    driver = CudaDriver(NODES, LIBCUDA, init=100)
    fact = asked(driver, CUDA_VISIBLE_DEVICES="")
    assert "CUDA_VISIBLE_DEVICES" in stops_at(fact, "gpu-driver-starts", "failed").remedy


def test_a_machine_without_a_gpu_is_a_skip_and_with_require_gpu_an_error() -> None:
    skipped = Gpus(HostGpus(None, ()), "this machine has no NVIDIA GPU")
    assert {v.untried for v in climb(skipped).values()} == {"this machine has no NVIDIA GPU"}
    required = climb(replace(skipped, required=True))
    assert required["gpu-machine"].trouble == "--require-gpu: this machine has no NVIDIA GPU."
    assert {v.outcome for v in required.values()} == {"error", "skipped"}


def test_a_gpu_without_driver_and_no_gpu_are_two_things() -> None:
    bare = Gpus(HostGpus(None, ("0000:01:00.0",)), "", driver=CudaDriver(NODES))
    assert "no driver" in text(stops_at(bare, "gpu-machine", "error"))
    none = Gpus(HostGpus(None, ()), "", driver=CudaDriver(NODES))
    assert "no NVIDIA GPU" in text(stops_at(none, "gpu-machine", "error"))


def test_of_a_split_gpu_one_instance_is_enough() -> None:
    split = (GpuDevice("GPU", "a"), GpuDevice("MIG 1g", "b", "a"), GpuDevice("MIG 1g", "c", "a"))
    driver = CudaDriver(NODES, LIBCUDA, None, False, 0, 12040, 1, 0, (GpuDevice("MIG 1g", "c"),))
    fact = replace(asked(driver), host=replace(HOST, listed=split))
    assert judge("gpu-devices", fact, PROFILE).outcome == "passed"
    unknown = replace(fact, host=replace(HOST, listed=None, note="nvidia-smi is not there"))
    assert "nvidia-smi" in (judge("gpu-devices", unknown, PROFILE).untried or "")
