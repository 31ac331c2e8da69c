"""TensorFlow or torch: build, computation, and libraries in the image."""

from __future__ import annotations

import re

from mlcheck.inspect.framework.computation import differs, shown_by
from mlcheck.inspect.framework.facts import CudaLibraries, Framework, ScriptAnswer
from mlcheck.model.command import CommandResult
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, ShowRun, Verdict, judged
from mlcheck.model.version import leads
from mlcheck.profile.catalog import Profile, promised

_CLAIM = re.compile(
    r"device:GPU:\d|\bcuda:\d|\b[1-9]\d* (?:physical )?GPUs?\b"
    r"|\bGPUs?(?: available)?\s*:\s*[1-9]\d*\b"
    r"|\b(?:Tesla|GeForce|Quadro|NVIDIA (?:RTX|TITAN|[A-Z]{1,2}\d+))\b",
    re.IGNORECASE,
)
_NAME = re.compile(rf"{_CLAIM.pattern}|NVIDIA", re.IGNORECASE)
_TRUTH = re.compile(r"^(?!.*\b[Bb]uil[dt]\b).*\b(True|False)\b", re.MULTILINE)
"""What torch.cuda.is_available() and the like answer; how a framework was built is no claim."""


@rule("framework-build", keys=["framework"], slow=True)
def test_framework_build(said: Framework, profile: Profile) -> Verdict:
    """The framework is the build that the image is named after: for CUDA of the promised version,
    or for CPUs alone.

    Why: On a machine without a GPU the solver installs a build for CPUs into the image for GPUs,
    and nothing says so (README of usatlas/ML-Containers, "CUDA-Enabled Image Building on Machines
    Without a GPU").

    Fix: Install the other build (conda-forge's name ends in cuda... or cpu...); without a GPU on
    the building machine set CONDA_OVERRIDE_CUDA.
    """
    expected = promised(profile.expect.framework)
    source, see = profile.source("framework", "cuda"), shown_by(expected.module)
    wanted = f"built for CUDA {expected.cuda}" if expected.cuda else "not built for CUDA"
    if said.cuda_build is None:
        found = f"does not say how it was built: {said.error or 'no reason given'}"
    elif said.cuda_build != bool(expected.cuda):
        found = f"built for CUDA {said.cuda or ''}".strip() if said.cuda_build else "built for CPUs"
    elif expected.cuda and not leads(expected.cuda, said.cuda or ""):
        found = f"built for CUDA {said.cuda or 'of a version that it does not say'}"
    else:
        return judged(1)
    return judged(1, [Finding(expected.module, found, wanted, source, see)])


@rule("framework-computes", keys=["framework"], slow=True)
def test_framework_computes(said: Framework, profile: Profile) -> Verdict:
    """The framework multiplies two matrices on the CPU and gets it right.

    Why: An import proves little: the libraries that compute are opened with the first operation.
    The tests of StatCan/aaw-kubeflow-containers sum a constant for that reason.

    Fix: Run it in the image; its message says what is missing.
    """
    expected = promised(profile.expect.framework)
    if said.cpu is None:
        found = f"no product: {said.error or 'no reason given'}"
    elif (wrong := differs(said.cpu, said.exact)) is not None:
        found = f"on {said.cpu.device}: {wrong}"
    else:
        return judged(1)
    source, show = profile.source("framework"), shown_by(expected.module)
    return judged(1, [Finding(expected.module, found, "the product", source, show)])


@rule("framework-script", keys=["framework.script"], slow=True)
def test_framework_script(answer: ScriptAnswer, framework: Framework, profile: Profile) -> Verdict:
    """The image's own check of its framework runs, names the framework's version, and claims a GPU
    if and only if the framework sees one.

    Why: Users run this script to learn whether the GPU works, and it ends with 0 either way: what
    it prints has to be true (check-gpu-in-*.py and test-tensorflow-with-cpu.py of
    usatlas/ML-Containers).

    Fix: Correct the script; it ends with 0 also without a GPU, so that only what it prints counts.
    """
    script = promised(promised(profile.expect.framework).script)
    found = _wrong(answer, framework)
    if found is None:
        return judged(1)
    source, show = profile.source("framework", "script"), ShowRun(("python3", script))
    return judged(1, [Finding(script, found, "the truth", source, show)])


@rule("cuda-driver-in-image", keys=["framework"])
def test_cuda_driver_in_image(libraries: CudaLibraries) -> Verdict:
    """No library of NVIDIA's driver is in the image where the loader looks: it has to be that of
    the machine, and one in the image hides it (cuInit then answers 803 or 804).

    Why: The driver's library must be of the version of the machine's kernel module; apptainer
    searches its own directory last, so that a libcuda.so.1 in the image wins (cuInit in
    https://docs.nvidia.com/cuda/cuda-driver-api/, errors 803 and 804).

    Fix: Remove the file. The engine brings the driver's libraries (--nv, --gpus all).
    """
    findings = [
        Finding(path, "a library of NVIDIA's driver", "no such file", show=ShowFile("ls -l", path))
        for path in libraries.driver_files
    ]
    notes = [
        f"{path} is a library of NVIDIA's driver where the loader does not look (to link with, or "
        "cuda-compat): harmless unless LD_LIBRARY_PATH names its directory"
        for path in libraries.driver_aside
    ]
    return judged(1, findings, notes)


def _wrong(answer: CommandResult, framework: Framework) -> str | None:
    """Why what the image's own check printed is not true; None: it is."""
    if answer.ended != "exited" or answer.exit_code != 0:
        return answer.how_it_ended
    if not framework.version or framework.version not in answer.stdout:
        return f"does not print {framework.module}'s version {framework.version or ''}".strip()
    truths = set(_TRUTH.findall(answer.stdout))
    claim = _CLAIM.search(answer.stdout)
    if framework.devices == 0 and (claim or truths == {"True"}):
        said = claim[0] if claim else "True"
        return f"prints {said!r}, and {framework.module} sees no GPU"
    if framework.devices and not (_NAME.search(answer.stdout) or truths == {"True"}):
        said = "prints 'False'" if truths else "claims no GPU"
        return f"{said}, and {framework.module} sees {framework.devices}"
    return None
