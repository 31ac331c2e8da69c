"""The rules of frameworks, CUDA's libraries and hints on literal facts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.inspect.framework import cuda, probe
from mlcheck.inspect.framework.facts import (
    Computation,
    CudaLibraries,
    CudaLibrary,
    Framework,
    Hint,
    Hints,
)
from mlcheck.model.command import CommandResult
from mlcheck.profile.catalog import Catalog, Profile
from mlcheck.reference import elf
from mlcheck.reference.cache import Job
from selftests import images
from selftests.checkout import CHECKOUT
from selftests.rules import judge

CATALOG = Catalog([CHECKOUT / "tests"])
GPU = CATALOG.load("ml-tensorflow-gpu", "alma9-python311")
TORCH = CATALOG.load("ml-torch-gpu", "alma9-python311")
CPU = CATALOG.load("ml-tensorflow-cpu", "alma9-python311")
EXACT = probe.exact()
VALUE = tuple(tuple(float(x) for x in row) for row in EXACT)
GOOD = Framework("tensorflow", "2.14.0", True, "11.8", 0, Computation("CPU:0", VALUE), None, EXACT)


def answer(stdout: str = "", code: int | None = 0) -> CommandResult:
    return CommandResult(("bash",), code, stdout, "", "exited", 0.1)


@pytest.mark.parametrize(
    ("build", "cuda_version", "profile", "found"),
    [
        (True, "11.8", GPU, None),
        (True, "11.8.89", GPU, None),
        (True, "11.80", GPU, "built for CUDA 11.80"),
        (True, "12.2", GPU, "built for CUDA 12.2"),
        (True, None, GPU, "built for CUDA of a version that it does not say"),
        (False, None, GPU, "built for CPUs"),
        (False, None, CPU, None),
        (True, "12.2", CPU, "built for CUDA 12.2"),
        (None, None, GPU, "does not say how it was built: no module"),
    ],
)
def test_build(
    build: bool | None, cuda_version: str | None, profile: Profile, found: str | None
) -> None:
    fact = replace(GOOD, cuda_build=build, cuda=cuda_version, error="no module")
    verdict = judge("framework-build", fact, profile)
    assert [f.found for f in verdict.findings] == ([found] if found else [])


def test_computes() -> None:
    assert judge("framework-computes", GOOD, GPU).outcome == "passed"
    wrong = ((VALUE[0][0] + 0.1, *VALUE[0][1:]), *VALUE[1:])
    verdict = judge("framework-computes", replace(GOOD, cpu=Computation("CPU:0", wrong)), GPU)
    assert "element [0][0]" in verdict.findings[0].found
    verdict = judge("framework-computes", replace(GOOD, cpu=Computation("CPU:0", ())), GPU)
    assert "0 rows" in verdict.findings[0].found
    verdict = judge("framework-computes", replace(GOOD, cpu=None, error="SIGILL"), GPU)
    assert "SIGILL" in verdict.findings[0].found


@pytest.mark.parametrize(
    ("devices", "stdout", "code", "found"),
    [
        (0, "2.14.0\n", 0, None),
        (0, "2.14.0\n0 GPUs\n", 0, None),
        (0, "2.14.0\n", 1, "exit code 1"),
        (0, "hello\n", 0, "does not print"),
        (0, "2.14.0\n1 Physical GPUs\n", 0, "sees no GPU"),
        (0, "2.14.0 /physical_device:GPU:0\n", 0, "sees no GPU"),
        (2, "2.14.0\n2 Physical GPUs\n", 0, None),
        (1, "2.14.0\nNVIDIA A100\n", 0, None),
        (1, "2.14.0\n", 0, "claims no GPU"),
        # As torch.cuda.is_available() answers.
        (1, "2.14.0 True\n", 0, None),
        (0, "2.14.0 True\n", 0, "prints 'True', and tensorflow sees no GPU"),
        (1, "2.14.0 False\n", 0, "prints 'False', and tensorflow sees 1"),
        (0, "2.14.0 False\n", 0, None),
        (0, "2.14.0\nbuilt with CUDA: True\nGPU: False\n", 0, None),
        (0, "2.14.0\nBuilt with CUDA: True\n", 0, None),
        (1, "2.14.0\nbuilt with CUDA: True\n", 0, "claims no GPU"),
        (1, "2.14.0\nbuilt with CUDA: True\nGPU: False\n", 0, "prints 'False'"),
        (1, "2.14.0\nNVIDIA H200, MIG: False\n", 0, None),
        (0, "2.14.0\nNum GPUs Available:  0\n", 0, None),
        (0, "2.14.0\nNum GPUs Available:  1\n", 0, "sees no GPU"),
        (1, "2.14.0\nNum GPUs Available:  1\n", 0, None),
        (0, "2.14.0\nNVIDIA A100-SXM4-40GB\n", 0, "prints 'NVIDIA A100', and"),
        (0, "2.14.0\nTesla T4\n", 0, "sees no GPU"),
        (0, "2.14.0\nFound no NVIDIA driver\n", 0, None),
    ],
)
def test_script(devices: int, stdout: str, code: int, found: str | None) -> None:
    verdict = judge("framework-script", answer(stdout, code), replace(GOOD, devices=devices), GPU)
    assert (found or "") in "".join(f.found for f in verdict.findings)
    assert bool(verdict.findings) == (found is not None)


def test_libraries_and_driver() -> None:
    need = CudaLibrary("libcudnn.so.8", "/opt/conda/a.so", "/opt/conda/lib/libcudnn.so.8")
    fact = CudaLibraries("/opt/conda/tensorflow", (need,), (), ("/opt/conda/lib/stubs/libcuda.so",))
    assert judge("cuda-libraries", fact, GPU).outcome == "passed"
    assert "stubs" in judge("cuda-driver-in-image", fact).notes[0]
    lost = replace(fact, needs=(replace(need, path=None), replace(need, by="", path=None)))
    found = [finding.found for finding in judge("cuda-libraries", lost, GPU).findings]
    assert [text.partition(":")[0] for text in found] == [
        "needs libcudnn.so.8",
        "opens libcudnn.so.8",
    ]
    assert judge("cuda-libraries", replace(fact, package=None), GPU).outcome == "failed"
    # A framework in which no file needs and nothing opens a CUDA library was not looked at.
    assert judge("cuda-libraries", replace(fact, needs=()), GPU).outcome == "failed"
    baked = replace(fact, driver_files=("/usr/lib64/libcuda.so.1",))
    assert [f.subject for f in judge("cuda-driver-in-image", baked).findings] == [
        "/usr/lib64/libcuda.so.1"
    ]


def test_hint() -> None:
    quiet, complaint = answer("banner\n"), answer("banner\nno driver\n")
    good = Hint("/printme.sh", quiet, complaint, quiet)
    assert judge("gpu-hint", Hints((good,)), TORCH).outcome == "passed"
    assert judge("gpu-hint", Hints((), driver=True), TORCH).outcome == "skipped"
    assert judge("gpu-hint", Hints((), "there is no bash"), TORCH).outcome == "failed"
    assert judge("gpu-hint", Hints(()), TORCH).outcome == "failed"
    for bad in (
        replace(good, with_library=complaint),
        replace(good, without=quiet),
        replace(good, alone=answer("", 127)),
        replace(good, with_library=replace(quiet, ended="timeout", exit_code=None)),
    ):
        assert judge("gpu-hint", Hints((good, bad)), TORCH).outcome == "failed"


# Answers of an image are not to be believed.


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 3", "exit code 3"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("echo", "ended with exit code 0"),
        ('echo; echo "$5 {\\"done\\": 1, \\"cpu\\": 7, \\"devices\\": \\"x\\"}"', "ended"),
        ('echo; echo "$5 nonsense"', "ended"),
    ],
)
def test_a_python_that_answers_nonsense(root: Path, script: str, error: str) -> None:
    images.script(root, "usr/bin/python3", script)
    with images.opened(root) as opened:
        fact = probe.probe(opened, "tensorflow")
    assert error in fact.error
    assert (fact.cpu, fact.devices) == (None, None)


@pytest.mark.parametrize(
    "said",
    [None, 7, [], ["cpu"], ["cpu", 7], ["cpu", [7]], ["cpu", [["x"]]], ["cpu", [[float("inf")]]]],
)
def test_a_product_that_is_none(said: object) -> None:
    assert probe.computation(said) is None


def test_libraries_of_the_driver_are_found_where_the_loader_looks(root: Path) -> None:
    for path in (
        *("usr/lib64/libcuda.so.1", "opt/conda/lib/libnvidia-ml.so.1", "opt/stubs/libcuda.so"),
        *("usr/lib64/libcudart.so.12", "usr/lib64/libcurl.so.4"),
    ):
        images.write(root, path, b"")
    with images.opened(root) as opened:
        fact = cuda.probe(opened, "/opt/conda", "tensorflow", ())
        given = cuda.probe(opened, "/opt/conda", "tensorflow", (), ("/usr/lib64/libcuda.so.1",))
    assert fact.package is None
    assert set(fact.driver_files) == {"/lib64/libcuda.so.1", "/opt/conda/lib/libnvidia-ml.so.1"}
    assert fact.driver_aside == ("/opt/stubs/libcuda.so",)
    assert set(given.driver_files) == {"/opt/conda/lib/libnvidia-ml.so.1"}


def test_libraries_of_the_driver_are_found_wherever_a_loader_looks(root: Path) -> None:
    """In directories for some CPUs, where a search path leads, and those that ldconfig reads."""
    images.write(root, "etc/ld.so.conf", "# all\ninclude ld.so.conf.d/*.conf\n")
    images.write(root, "etc/ld.so.conf.d/more.conf", "include /etc/ld.so.conf\n/srv/more # here\n")
    package = "opt/conda/lib/python3.11/site-packages/tensorflow"
    places = (
        "usr/lib64/glibc-hwcaps/x86-64-v2",
        "usr/lib/tls/x86_64",
        "srv/more",
        f"{package}/own",
    )
    for place in places:
        images.write(root, f"{place}/libcuda.so.1", b"")
    library = root / f"{package}/libtensorflow.so"
    elf.library(Job(), library, "libtensorflow.so", "tensorflow", "2.14.0")
    elf.patchelf(Job(), "--add-needed", "libcuda.so.1", library)
    elf.set_rpath(Job(), library, "$ORIGIN/nothing:$ORIGIN/./own", runpath=True)
    with images.opened(root) as opened:
        fact = cuda.probe(opened, "/opt/conda", "tensorflow", ())
    found = {path.rpartition("/")[0] for path in fact.driver_files}
    assert {opened.rootfs.resolve(path).final_path for path in found} == {f"/{p}" for p in places}


def test_libraries_of_another_version_and_what_they_need_themselves(root: Path) -> None:
    lib = root / "opt/conda/lib"
    package = lib / "python3.11/site-packages/tensorflow"
    names = ("libcudart.so.11.0", "libcudnn.so.8", "libcublas.so.11", "libcublasLt.so.11")
    for name in names:
        soname = "libcudart.so.12" if "cudart" in name else name
        elf.library(Job(), lib / name, soname, "cuda", "1")
    elf.patchelf(Job(), "--add-needed", "libz.so.1.99", lib / "libcudnn.so.8")
    # It is opened too, and so found, though not by itself.
    elf.patchelf(Job(), "--add-needed", "libcublasLt.so.11", lib / "libcublas.so.11")
    elf.patchelf(Job(), "--add-needed", "libcuda.so.1", lib / "libcublas.so.11")
    elf.library(Job(), package / "libtf.so", "libtf.so", "tensorflow", "2.14.0")
    elf.set_rpath(Job(), package / "libtf.so", "$ORIGIN/../../..", runpath=True)
    shutil.copy(root / "usr/bin/true", images.write(root, "opt/conda/bin/python3", b""))
    with images.opened(root) as opened:
        fact = cuda.probe(opened, "/opt/conda", "tensorflow", names)
    findings = {f.subject: f.found for f in judge("cuda-libraries", fact, GPU).findings}
    assert {subject.rpartition("/")[2] for subject in findings} == {
        "libcudart.so.11.0",
        "libcudnn.so.8",
    }
    assert any("says that it is libcudart.so.12" in found for found in findings.values())
    assert any("needs libz.so.1.99" in found for found in findings.values())


@pytest.mark.parametrize(
    ("wanted", "says", "fails"),
    [
        ("libcudart.so.11.0", "libcudart.so.12", True),
        ("libcudart.so.11.0", "libcudart.so.11.1", True),
        ("libcudart.so.11.0", "libcudart.so.11.0", False),
        ("libcudnn.so.8.9.7", "libcudnn.so.8", False),
        ("libcudnn.so.8", "libcudnn.so.8.9.7", False),
        ("libcudart.so", "libcudart.so.12", False),
        ("libcudart.so.11.0", "libcudart-d0da41ae.so.11.0", False),
        ("libcudart.so.11.0", "libcublas.so.11.0", True),
        ("libcudart.so.11.0", None, False),
    ],
)
def test_names_of_libraries(wanted: str, says: str | None, fails: bool) -> None:
    need = CudaLibrary(wanted, "", f"/opt/conda/lib/{wanted}", (), (), says)
    verdict = judge("cuda-libraries", CudaLibraries("/opt/conda/tensorflow", (need,), ()), GPU)
    assert bool(verdict.findings) == fails


# The real thing, for CPUs.


@pytest.mark.slow
def test_tensorflow_itself_conforms(tmp_path: Path) -> None:
    """The wheel of PyPI in the reference image: built for CPUs, it imports and computes."""
    image = reference.build("ml-tensorflow-cpu", framework=True)
    with images.opened(image) as opened:
        fact = probe.probe(opened, "tensorflow")
        script = cuda.script(opened, "/test-tensorflow-with-cpu.py")
        libraries = cuda.probe(opened, "/opt/conda", "tensorflow", ())
    assert fact.error == ""
    assert fact.devices == 0
    assert fact.cpu is not None
    assert fact.cpu.device.endswith("CPU:0")
    for verdict in (
        judge("framework-build", fact, CPU),
        judge("framework-computes", fact, CPU),
        judge("framework-script", script, fact, CPU),
        judge("cuda-driver-in-image", libraries),
    ):
        assert verdict.outcome == "passed", verdict
    # The build for CPUs is what the rule for GPU images is there to find.
    assert judge("framework-build", fact, GPU).outcome == "failed"
