"""The checks of frameworks, CUDA's libraries and hints on literal facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.checks import framework as checks
from mlcheck.facts import (
    CommandResult,
    Computation,
    CudaLibraries,
    CudaLibrary,
    Framework,
    Hint,
    Hints,
)
from mlcheck.probes import cuda
from mlcheck.probes import framework as probe
from mlcheck.profile import Catalog, Profile
from selftests import images

ROOT = Path(__file__).parents[1]
CATALOG = Catalog([ROOT / "tests"])
GPU = CATALOG.load("ml-tensorflow-gpu", "alma9-python311")
CPU = CATALOG.load("ml-tensorflow-cpu", "alma9-python311")
BASE = CATALOG.load("ml-base", "alma9-python311")
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
    verdict = checks.build(fact, profile)
    assert [f.found for f in verdict.findings] == ([found] if found else [])
    assert checks.build(fact, BASE).outcome == "skipped"


def test_computes() -> None:
    assert checks.computes(GOOD, GPU).outcome == "passed"
    wrong = ((VALUE[0][0] + 0.1, *VALUE[0][1:]), *VALUE[1:])
    verdict = checks.computes(replace(GOOD, cpu=Computation("CPU:0", wrong)), GPU)
    assert "element [0][0]" in verdict.findings[0].found
    verdict = checks.computes(replace(GOOD, cpu=Computation("CPU:0", ())), GPU)
    assert "0 rows" in verdict.findings[0].found
    verdict = checks.computes(replace(GOOD, cpu=None, error="SIGILL"), GPU)
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
        (1, "2.14.0\n", 0, "names no GPU"),
    ],
)
def test_script(devices: int, stdout: str, code: int, found: str | None) -> None:
    verdict = checks.script(answer(stdout, code), replace(GOOD, devices=devices), GPU)
    assert (found or "") in "".join(f.found for f in verdict.findings)
    assert bool(verdict.findings) == (found is not None)


def test_libraries_and_driver() -> None:
    need = CudaLibrary("libcudnn.so.8", "/opt/conda/a.so", "/opt/conda/lib/libcudnn.so.8")
    fact = CudaLibraries("/opt/conda/tensorflow", (need,), (), ("/opt/conda/lib/stubs/libcuda.so",))
    assert checks.libraries(fact, GPU).outcome == "passed"
    assert checks.libraries(fact, CPU).outcome == "skipped"
    assert "stubs" in checks.driver(fact, GPU).notes[0]
    lost = replace(fact, needs=(replace(need, path=None), replace(need, by="", path=None)))
    found = [finding.found for finding in checks.libraries(lost, GPU).findings]
    assert [text.partition(":")[0] for text in found] == [
        "needs libcudnn.so.8",
        "opens libcudnn.so.8",
    ]
    assert checks.libraries(replace(fact, package=None), GPU).outcome == "failed"
    # A framework in which no file needs and nothing opens a CUDA library was not looked at.
    assert checks.libraries(replace(fact, needs=()), GPU).outcome == "failed"
    baked = replace(fact, driver_files=("/usr/lib64/libcuda.so.1",))
    assert [f.subject for f in checks.driver(baked, CPU).findings] == ["/usr/lib64/libcuda.so.1"]


def test_hint() -> None:
    quiet, complaint = answer("banner\n"), answer("banner\nno driver\n")
    good = Hint("/printme.sh", quiet, complaint, quiet)
    assert checks.hint(Hints((good,)), GPU).outcome == "passed"
    assert checks.hint(Hints((), driver=True), GPU).outcome == "skipped"
    assert checks.hint(Hints((), "there is no bash"), GPU).outcome == "failed"
    assert checks.hint(Hints(()), GPU).outcome == "failed"
    for bad in (
        replace(good, with_library=complaint),
        replace(good, without=quiet),
        replace(good, alone=answer("", 127)),
        replace(good, with_library=replace(quiet, ended="timeout", exit_code=None)),
    ):
        assert checks.hint(Hints((good, bad)), GPU).outcome == "failed"


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
        checks.build(fact, CPU),
        checks.computes(fact, CPU),
        checks.script(script, fact, CPU),
        checks.driver(libraries, CPU),
    ):
        assert verdict.outcome == "passed", verdict
    # The build for CPUs is what the rule for GPU images is there to find.
    assert checks.build(fact, GPU).outcome == "failed"
