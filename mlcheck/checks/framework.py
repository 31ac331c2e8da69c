"""TensorFlow and torch: their build, a computation, CUDA's libraries and the image's hints."""

from __future__ import annotations

import re

from mlcheck.checks.system import how_it_ended
from mlcheck.expectations.contents import Framework as Promised
from mlcheck.facts import (
    CommandResult,
    Computation,
    CudaLibraries,
    CudaLibrary,
    Framework,
    Hint,
    Hints,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Verdict

BUILD = Rule(
    "framework-build",
    "The framework is the build that the image is named after: for CUDA of the promised version, "
    "or for CPUs alone.",
    "Install the other build (conda-forge's name ends in cuda... or cpu...); without a GPU on the "
    "building machine set CONDA_OVERRIDE_CUDA.",
    "On a machine without a GPU the solver installs a build for CPUs into the image for GPUs, "
    'and nothing says so (README of usatlas/ML-Containers, "CUDA-Enabled Image Building on '
    'Machines Without a GPU").',
    keys=("framework",),
)
COMPUTES = Rule(
    "framework-computes",
    "The framework multiplies two matrices on the CPU and gets it right.",
    "Run it in the image; its message says what is missing.",
    "An import proves little: the libraries that compute are opened with the first operation. "
    "The tests of StatCan/aaw-kubeflow-containers sum a constant for that reason.",
    keys=("framework",),
)
SCRIPT = Rule(
    "framework-script",
    "The image's own check of its framework runs, names the framework's version, and claims a GPU "
    "if and only if the framework sees one.",
    "Correct the script; it ends with 0 also without a GPU, so that only what it prints counts.",
    "Users run this script to learn whether the GPU works, and it ends with 0 either way: what "
    "it prints has to be true (check-gpu-in-*.py and test-tensorflow-with-cpu.py of "
    "usatlas/ML-Containers).",
    keys=("framework.script",),
)
LIBRARIES = Rule(
    "cuda-libraries",
    "The loader finds in the image every CUDA library that the framework needs or opens.",
    "Install the package that has the library (cudatoolkit, cudnn, nccl, libcublas, ...), in the "
    "version that the framework was built for.",
    "Frameworks open CUDA's libraries by name and go on with the CPU where one is missing, with "
    "a warning that nobody reads (https://www.tensorflow.org/install/pip).",
    keys=("framework",),
)
DRIVER = Rule(
    "cuda-driver-in-image",
    "No library of NVIDIA's driver is in the image where the loader looks: it has to be that of "
    "the machine, and one in the image hides it (cuInit then answers 803 or 804).",
    "Remove the file. The engine brings the driver's libraries (--nv, --gpus all).",
    "The driver's library must be of the version of the machine's kernel module; apptainer "
    "searches its own directory last, so that a libcuda.so.1 in the image wins (cuInit in "
    "https://docs.nvidia.com/cuda/cuda-driver-api/, errors 803 and 804).",
    keys=("framework",),
)
HINT = Rule(
    "gpu-hint",
    "The hint about the GPU driver is shown when an NVIDIA device is there and libcuda.so.1 cannot "
    "be loaded, and not when it can.",
    "Look for libcuda.so.1, the name that programs load, with the loader; it may lie anywhere.",
    "The hint of usatlas/ML-Containers looks for libcuda.so alone, which engines do not bring, "
    "and so tells people to mend a GPU that works.",
    keys=("framework.hints",),
)

TOLERANCE = 1e-3
"""Of a value relative to its size, at least of 1."""

_NO_FRAMEWORK = "the profile promises no framework"
_CLAIM = re.compile(r"device:GPU:\d|\bcuda:\d|\b[1-9]\d* (?:physical )?GPUs?\b", re.IGNORECASE)
_NAME = re.compile(rf"{_CLAIM.pattern}|NVIDIA|Tesla|GeForce|Quadro", re.IGNORECASE)


def show(module: str) -> ShowRun:
    """How a person sees which GPUs a framework has."""
    asked = {
        "tensorflow": "print(m.sysconfig.get_build_info(), m.config.list_physical_devices())",
        "torch": "print(m.version.cuda, m.cuda.device_count())",
    }
    return ShowRun(("python3", "-c", f"import {module} as m; {asked[module]}"))


def build(fact: Framework, profile: Profile) -> Verdict:
    """Built for the CUDA of the profile, or for none."""
    expected = profile.expect.framework
    if expected is None:
        return BUILD.skipped(_NO_FRAMEWORK)
    source, see = profile.source("framework", "cuda"), show(expected.module)
    wanted = f"built for CUDA {expected.cuda}" if expected.cuda else "not built for CUDA"
    if fact.cuda_build is None:
        found = f"does not say how it was built: {fact.error or 'no reason given'}"
    elif fact.cuda_build != bool(expected.cuda):
        found = f"built for CUDA {fact.cuda or ''}".strip() if fact.cuda_build else "built for CPUs"
    elif expected.cuda and not _leads(expected.cuda, fact.cuda or ""):
        found = f"built for CUDA {fact.cuda or 'of a version that it does not say'}"
    else:
        return BUILD.judged(1)
    return BUILD.judged(1, [Finding(expected.module, found, wanted, source, see)])


def computes(fact: Framework, profile: Profile) -> Verdict:
    """The product on the CPU is the exact one."""
    expected = profile.expect.framework
    if expected is None:
        return COMPUTES.skipped(_NO_FRAMEWORK)
    if fact.cpu is None:
        found = f"no product: {fact.error or 'no reason given'}"
    elif (wrong := differs(fact.cpu, fact.exact)) is not None:
        found = f"on {fact.cpu.device}: {wrong}"
    else:
        return COMPUTES.judged(1)
    finding = Finding(
        expected.module, found, "the product", profile.source("framework"), show(expected.module)
    )
    return COMPUTES.judged(1, [finding])


def differs(found: Computation, expected: tuple[tuple[float, ...], ...]) -> str | None:
    """The first value that is not the expected one, in words; None when all are."""
    shape = [len(row) for row in found.value]
    if not expected or shape != [len(row) for row in expected]:
        return f"{len(shape)} rows of {sorted(set(shape))} values"
    for i, (row, wanted) in enumerate(zip(found.value, expected, strict=True)):
        for j, (x, y) in enumerate(zip(row, wanted, strict=True)):
            if abs(x - y) > TOLERANCE * max(1.0, abs(y)):
                return f"element [{i}][{j}] is {x:g}, not {y:g}"
    return None


def script(result: CommandResult | None, fact: Framework, profile: Profile) -> Verdict:
    """The script's end and what it printed."""
    expected = profile.expect.framework
    if expected is None or expected.script is None:
        return SCRIPT.skipped("the profile promises no script that checks the framework")
    assert result is not None
    found = _script_says(result, fact, expected)
    source = profile.source("framework", "script")
    finding = Finding(
        expected.script, found or "", "the truth", source, ShowRun(("python3", expected.script))
    )
    return SCRIPT.judged(1, [finding] if found else [])


def _script_says(result: CommandResult, fact: Framework, expected: Promised) -> str | None:
    if result.ended != "exited" or result.exit_code != 0:
        return how_it_ended(result)
    if not fact.version or fact.version not in result.stdout:
        return f"does not print {expected.module}'s version {fact.version or ''}".strip()
    if fact.devices == 0 and (claim := _CLAIM.search(result.stdout)):
        return f"prints {claim[0]!r}, and {expected.module} sees no GPU"
    if fact.devices and not _NAME.search(result.stdout):
        return f"names no GPU, and {expected.module} sees {fact.devices}"
    return None


def libraries(fact: CudaLibraries, profile: Profile) -> Verdict:
    """Every CUDA library resolves inside the image."""
    expected = profile.expect.framework
    if expected is None or not expected.cuda:
        return LIBRARIES.skipped("the profile promises no framework for CUDA")
    source = profile.source("framework")
    if fact.package is None:
        found = "no such package in the prefix"
        see = show(expected.module)
        return LIBRARIES.judged(1, [Finding(expected.module, found, "a package", source, see)])
    findings = [
        Finding(
            need.by or fact.package,
            f"{'needs' if need.by else 'opens'} {need.soname}: not in "
            f"{', '.join(need.searched) or 'any directory'}",
            "found by the loader",
            source if need.by else profile.source("framework", "opens"),
            ShowFile("readelf -d", need.by) if need.by else _looked_for(need),
        )
        for need in fact.needs
        if need.path is None
    ]
    if not fact.needs:
        found = "needs and opens no library of CUDA"
        wanted = f"a build for CUDA {expected.cuda}"
        findings = [Finding(fact.package, found, wanted, source, show(expected.module))]
    return LIBRARIES.judged(len(fact.needs), findings)


def _looked_for(need: CudaLibrary) -> ShowFile:
    first, *others = (f"{directory}/{need.soname}" for directory in need.searched or ("/usr/lib",))
    return ShowFile("ls -l", first, tuple(others))


def driver(fact: CudaLibraries, profile: Profile) -> Verdict:
    """No libcuda.so*, no libnvidia-*.so* on the loader's path."""
    expected = profile.expect.framework
    if expected is None:
        return DRIVER.skipped(_NO_FRAMEWORK)
    findings = [
        Finding(path, "a library of NVIDIA's driver", "no such file", show=ShowFile("ls -l", path))
        for path in fact.driver_files
    ]
    notes = [
        f"{path} is a library of NVIDIA's driver where the loader does not look (to link with, or "
        "cuda-compat): harmless unless LD_LIBRARY_PATH names its directory"
        for path in fact.driver_aside
    ]
    return DRIVER.judged(1, findings, notes)


def hint(fact: Hints, profile: Profile) -> Verdict:
    """What is said without the library is not said with it."""
    expected = profile.expect.framework
    if expected is None or not expected.hints:
        return HINT.skipped("the profile promises no hint about a GPU")
    if fact.driver:
        return HINT.skipped("libcuda.so.1 is there: what is said without it is judged without --nv")
    source = profile.source("framework", "hints")
    if fact.problem:
        first, *others = expected.hints
        see = ShowFile("ls -l", first, tuple(others))
        finding = Finding("hint", fact.problem, "hints that can be tried", source, see)
        return HINT.judged(1, [finding])
    findings = [
        Finding(hint.path, found, wanted, source, ShowFile("cat -v", hint.path))
        for hint in fact.hints
        for found, wanted in _untrue(hint)
    ]
    return HINT.judged(len(fact.hints), findings)


def _untrue(hint: Hint) -> list[tuple[str, str]]:
    for name, result in (
        ("", hint.alone),
        (" where lspci shows a GPU", hint.without),
        (" where libcuda.so.1 can be loaded", hint.with_library),
    ):
        if result.ended != "exited" or result.exit_code in (125, 126, 127):
            return [(how_it_ended(result) + name, "a script that can be sourced")]
    complaint = [line for line in _lines(hint.without) if line not in _lines(hint.alone)]
    if not complaint:
        what = "says nothing where lspci shows an NVIDIA device and libcuda.so.1 cannot be loaded"
        return [(what, "a hint")]
    said = [line for line in _lines(hint.with_library) if line in complaint]
    if said:
        what = f"says where libcuda.so.1 can be loaded: {said[0]}"
        return [(what, "nothing about a driver that is not there")]
    return []


def _lines(result: CommandResult) -> list[str]:
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]


def _leads(expected: str, found: str) -> bool:
    """Whether the parts of a version begin with the expected ones."""
    parts = expected.split(".")
    return found.split(".")[: len(parts)] == parts
