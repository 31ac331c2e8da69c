"""The suite on images for GPUs: without one, and through docker with stand-ins for one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.machine import gpu
from mlcheck.model.host_gpus import GpuDevice, HostGpus
from mlcheck.reference import cache
from selftests import warm
from selftests.judging import by_outcome
from selftests.unit.inspect.gpu.test_ladder import compile_driver, lean_copy

GPU_ALONE = ("tests/gpu", "tests/general/test_framework.py")


def suite(report: Path, *arguments: str, **env: str) -> tuple[str, dict[str, set[str]]]:
    """Run the tests of GPUs; returns the output, and the checks by their outcome."""
    done = warm.pytest(
        *("-q", "-p", "no:cacheprovider", *GPU_ALONE, f"--mlcheck-json={report}", *arguments),
        env=os.environ | env,
    )
    assert report.is_file(), done.stdout + done.stderr
    return done.stdout, by_outcome(json.loads(report.read_text()))


@pytest.mark.slow
@pytest.mark.skipif(gpu.host_has_driver(), reason="this machine has a GPU")
def test_why_there_is_no_gpu_is_said_in_one_line(tmp_path: Path) -> None:
    report, image = tmp_path / "report.json", "--image=reference:ml-torch-gpu"
    for option, reason in (
        ("--nv=never", "no GPU was asked for (--nv)"),
        ("--nv", "this machine has no NVIDIA GPU"),
    ):
        said, outcomes = suite(report, image, option, "-m", "not slow")
        assert said.count(reason) == 1
        assert f"  not judged  {reason}   [" in said
        assert "CONFORMS" not in said
        assert "gpu-machine" in outcomes["skipped"]
        assert "error" not in outcomes
    said, outcomes = suite(report, image, "--require-gpu", "-m", "not slow")
    assert outcomes["error"] == {"gpu-machine"}
    assert "ERROR   --require-gpu: this machine has no NVIDIA GPU." in said


@pytest.fixture(scope="module")
def archive() -> Iterator[Path]:
    """The reference image with few of its packages, as docker loads it."""
    good = reference.build("ml-tensorflow-gpu")
    with tempfile.TemporaryDirectory(prefix=".selftest-", dir=cache.cache_root()) as top:
        lean = lean_copy(good, Path(top, good.name))
        file = Path(top, "ml-tensorflow-gpu.tar")
        reference.export_docker_archive(lean, file)
        shutil.rmtree(lean)
        yield file


@pytest.mark.engine("docker")
@pytest.mark.parametrize(
    ("init", "error"),
    [(0, set[str]()), (803, {"gpu-driver-starts"}), (999, {"gpu-driver-starts"})],
)
def test_docker_gives_a_gpu_and_the_suite_says_what_it_is_worth(
    archive: Path, tmp_path: Path, init: int, error: set[str]
) -> None:
    compile_driver(tmp_path / "libraries/libcuda.so.1", INIT=init)
    said, outcomes = suite(
        tmp_path / "report.json",
        *("-p", "selftests.standin_gpu_plugin", "--engine=docker", "--nv", "--require-gpu"),
        *(f"--image=docker-archive:{archive}", f"--profile={archive.stem}:alma9-python311"),
        MLCHECK_STANDIN_LIBRARIES=str(tmp_path / "libraries"),
    )
    # The driver that the engine brought is not taken for one in the image.
    assert "cuda-driver-in-image" in outcomes["passed"], said
    assert outcomes.get("error", set()) == error, said
    assert "failed" not in outcomes, said
    assert ("gpu-computation" in outcomes["passed"]) == (not error)


# This machine, from files as the kernel and the driver have them.


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_machine_is_read_from_its_files(tmp_path: Path) -> None:
    assert gpu.host(tmp_path) == HostGpus(None, ())
    for address, vendor, kind in (
        ("0000:00:02.0", "0x8086", "0x030000"),
        ("0000:01:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),
    ):
        put(tmp_path, f"sys/bus/pci/devices/{address}/vendor", f"{vendor}\n")
        put(tmp_path, f"sys/bus/pci/devices/{address}/class", f"{kind}\n")
    assert gpu.host(tmp_path) == HostGpus(None, ("0000:01:00.0",))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19", "535.129.03"),
        ("NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release", "570.86.15"),
        ("something else", "unknown"),
    ],
)
def test_the_version_of_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    put(tmp_path, "proc/driver/nvidia/version", f"NVRM version: {text}\nGCC version:\n")
    found = gpu.host(tmp_path)
    assert found.driver == version
    assert found.note == "nvidia-smi is not on this machine's PATH"


def test_nvidia_smi_is_asked_for_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-00010203-0405-0607-0809-0a0b0c0d0e0f)\n"
        "  MIG 1g.5gb      Device  0: (UUID: MIG-11111111-2222-3333-4444-555555555555)\n"
        "GPU 1: Tesla T4 (UUID: GPU-99999999-0405-0607-0809-0a0b0c0d0e0f)\n"
    )
    first = "000102030405060708090a0b0c0d0e0f"
    assert gpu.parse_list(listed) == (
        GpuDevice("NVIDIA A100-SXM4-40GB", first),
        GpuDevice("MIG 1g.5gb", "11111111222233334444555555555555", first),
        GpuDevice("Tesla T4", "99999999040506070809" + "0a0b0c0d0e0f"),
    )
    assert gpu.parse_list("nothing of the kind\n") == ()
    put(tmp_path, "proc/driver/nvidia/version", "NVRM version: X  1.2  \n")
    put(tmp_path, "nvidia-smi", "#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu.host(tmp_path).note == "nvidia-smi -L ended with 6: No devices were found"
