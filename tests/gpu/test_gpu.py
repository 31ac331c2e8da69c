"""GPUs: the ladder from the machine up to a computation (docs/gpu.md).

Each rung has its own rule. The first that does not hold shows the cause; those above it are
not judged. Trouble of the machine is no failure of the image: docs/gpu.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from mlcheck.inspect.framework.computation import differs, shown_by
from mlcheck.inspect.gpu.facts import CudaDriver, Gpus
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowRun, Verdict, judged, not_judged, not_tried
from mlcheck.profile.catalog import Profile, promised

_UNHIDE = (
    "Remove the variables that hide GPUs (CUDA_VISIBLE_DEVICES) from the image's configuration."
)
_NVIDIA_SMI = ShowRun(("nvidia-smi", "-L"))
_GLIBC = re.compile(r"version [`']GLIBC_([\d.]+)' not found")
_ON_GPU = re.compile(r"(?:GPU|cuda):0")


class _Code(NamedTuple):
    """A CUresult of cuInit.

    Args:
        of_library: whether a libcuda of the image's own may be the cause, which is then its fault.
    """

    name: str
    means: str
    remedy: str
    of_library: bool = False


_CODES = {
    34: _Code(
        "CUDA_ERROR_STUB_LIBRARY",
        "libcuda.so.1 is a stub, made to link with",
        "Put the driver's libcuda.so.1 before the stub on the loader's path.",
        of_library=True,
    ),
    46: _Code(
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "the GPUs are taken: a process has one for itself (compute mode EXCLUSIVE_PROCESS)",
        "Run when the GPU is free; `nvidia-smi` shows who has it.",
    ),
    100: _Code(
        "CUDA_ERROR_NO_DEVICE",
        "no device is visible: CUDA_VISIBLE_DEVICES is empty, or a device file is missing",
        "See which of /dev/nvidia* are inside, and that nothing sets CUDA_VISIBLE_DEVICES.",
    ),
    802: _Code(
        "CUDA_ERROR_SYSTEM_NOT_READY",
        "the machine is not ready: on systems with NVSwitch its fabric manager does not run",
        "Start the service nvidia-fabricmanager on this machine, in the driver's version.",
    ),
    803: _Code(
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "libcuda.so.1 does not fit the loaded kernel driver",
        "Restart this machine: its driver was updated and the old kernel module is still loaded.",
        of_library=True,
    ),
    804: _Code(
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        "forward compatibility (cuda-compat), which this GPU does not support",
        "Take cuda-compat off the loader's path; only data-centre GPUs support it.",
        of_library=True,
    ),
    999: _Code(
        "CUDA_ERROR_UNKNOWN",
        "often the module nvidia-uvm is not initialised on the machine",
        "Run `sudo nvidia-modprobe -u -c=0` (or `nvidia-smi` as root) on this machine.",
    ),
}
"""Values and names of CUresult in the CUDA driver API."""


@rule("gpu-machine", keys=["framework.cuda"])
def test_gpu_machine(gpus: Gpus, profile: Profile) -> Verdict:
    """This machine has an NVIDIA GPU and its driver, and the engine was asked for it.

    Why: Without a driver on the machine no image can use its GPU; that has to be told apart from an
    image that is broken (docs/gpu.md).

    Fix: Install NVIDIA's driver, and run with --nv.
    """
    return _rung("gpu-machine", gpus, profile)


@rule("gpu-passed", keys=["framework.cuda"])
def test_gpu_passed(gpus: Gpus, profile: Profile) -> Verdict:
    """The device files of the GPUs can be opened inside.

    Why: Every engine asks for GPUs in its own way, and some go on silently without: podman over
    docker's API ignores the request, apptainer only warns
    (https://github.com/NVIDIA/nvidia-container-toolkit).

    Fix: Start the container with --nv (apptainer), --gpus all (docker) or --device
    nvidia.com/gpu=all (podman).
    """
    return _rung("gpu-passed", gpus, profile)


@rule("gpu-driver-loads", keys=["framework.cuda"])
def test_gpu_driver_loads(gpus: Gpus, profile: Profile) -> Verdict:
    """libcuda.so.1, the library of the machine's driver, can be loaded inside.

    Why: The engine brings the driver's library into the container; a damaged one in the image, or
    one for another C library, hides it (https://apptainer.org/docs/user/main/gpu.html).

    Fix: Remove the file from the image; the engine brings the driver's own.
    """
    return _rung("gpu-driver-loads", gpus, profile)


@rule("gpu-driver-starts", keys=["framework.cuda"])
def test_gpu_driver_starts(gpus: Gpus, profile: Profile) -> Verdict:
    """The CUDA driver starts inside: cuInit answers 0.

    Why: cuInit tells in one number what is wrong: 100 no device, 803 a library that does not fit
    the kernel module, 804 forward compatibility where it is not supported, 34 a stub
    (https://docs.nvidia.com/cuda/cuda-driver-api/).

    Fix: Remove libcuda.so.1 and cuda-compat from the image; the engine brings the driver's own.
    """
    return _rung("gpu-driver-starts", gpus, profile)


@rule("gpu-driver-version", keys=["framework.cuda"])
def test_gpu_driver_version(gpus: Gpus, profile: Profile) -> Verdict:
    """The machine's driver supports the CUDA version that the framework was built for.

    Why: A runtime that is newer than the driver fails with error 35 when it is first used
    (https://docs.nvidia.com/deploy/cuda-compatibility/).

    Fix: Install a newer NVIDIA driver on this machine.
    """
    return _rung("gpu-driver-version", gpus, profile)


@rule("gpu-devices", keys=["framework.cuda"])
def test_gpu_devices(gpus: Gpus, profile: Profile) -> Verdict:
    """The GPUs inside are those of the machine, by their UUIDs.

    Why: A number of GPUs proves little: NVIDIA's own check compares the UUIDs outside and inside
    (tests of https://github.com/NVIDIA/nvidia-container-toolkit).

    Fix: Remove the variables that hide GPUs (CUDA_VISIBLE_DEVICES) from the image's configuration.
    """
    return _rung("gpu-devices", gpus, profile)


@rule("gpu-framework", keys=["framework.cuda"], slow=True)
def test_gpu_framework(gpus: Gpus, profile: Profile) -> Verdict:
    """The framework sees as many GPUs as the driver shows: it does not fall back to the CPU.

    Why: Frameworks fall back to the CPU without an error, and nvidia-smi shows the GPU also in an
    image that cannot use it (https://github.com/jupyter/docker-stacks/pull/1196).

    Fix: Read what the framework said; a CUDA library that it opens by name is missing or of another
    version.
    """
    return _rung("gpu-framework", gpus, profile)


@rule("gpu-computation", keys=["framework.cuda"], slow=True)
def test_gpu_computation(gpus: Gpus, profile: Profile) -> Verdict:
    """The framework multiplies two matrices on the first GPU, with the result that the CPU gives.

    Why: A device that is listed need not compute: a build may lack the GPU's architecture, which
    shows with the first kernel (https://docs.nvidia.com/deploy/cuda-compatibility/).

    Fix: Run it in the image, and read its message; the framework's build may lack this GPU's
    architecture.
    """
    return _rung("gpu-computation", gpus, profile)


@rule("gpu-control", keys=["framework.cuda"], slow=True)
def test_gpu_control(gpus: Gpus, profile: Profile) -> Verdict:
    """With CUDA_VISIBLE_DEVICES set to nothing neither the driver nor the framework shows a GPU.

    Why: A check that finds GPUs everywhere proves nothing; without devices it must find none, as in
    the control of NVIDIA's own tests (https://github.com/NVIDIA/nvidia-container-toolkit).

    Fix: Find out what in the image sets CUDA_VISIBLE_DEVICES anew, or answers for the driver.
    """
    return _rung("gpu-control", gpus, profile)


def _rung(name: str, gpus: Gpus, profile: Profile) -> Verdict:
    """The verdict of one rung, if all below it hold."""
    if gpus.refused and not (gpus.required and name == "gpu-machine"):
        return not_tried(gpus.refused)
    for below, climb in _LADDER.items():
        verdict = climb(gpus, profile)
        if below == name:
            return verdict
        if verdict.outcome in ("failed", "error"):
            return not_tried(f"not judged: see {below}")
    raise AssertionError(name)


def _machine(gpus: Gpus, profile: Profile) -> Verdict:
    if gpus.refused:
        return not_judged(
            f"--require-gpu: {gpus.refused}.", "Run where there is a GPU, or without it."
        )
    if gpus.host.driver is None:
        what = (
            f"This machine has an NVIDIA GPU (PCI {', '.join(gpus.host.pci)}), and no driver for "
            "it is loaded."
            if gpus.host.pci
            else "This machine has no NVIDIA GPU that its PCI bus or a driver knows of."
        )
        return not_judged(what, "Install NVIDIA's driver here, or run without --nv=always.")
    return judged(1, notes=[f"NVIDIA driver {gpus.host.driver}"])


def _passed(gpus: Gpus, profile: Profile) -> Verdict:
    nodes = _driver(gpus).nodes
    if nodes is None:
        finding = Finding("python3", _driver(gpus).ended, "a Python that can look for device files")
        return judged(1, [finding])
    closed = {path: why for path, why in nodes.items() if why}
    numbered = [path for path in nodes if path[-1].isdigit()]
    if not numbered:
        return not_judged(
            "The GPU was not passed to the container: this machine's driver is loaded, and no "
            "/dev/nvidia0 is inside."
        )
    if closed and (len(closed) == len(numbered) or set(closed) - set(numbered)):
        listed = ", ".join(f"{path}: {why}" for path, why in sorted(closed.items()))
        return not_judged(
            f"The device files of the GPU cannot be opened inside: {listed}.",
            "Let the user of this run open /dev/nvidia* (groups video, render), and pass all of "
            "them to the container.",
        )
    return judged(len(nodes), notes=[f"{path}: {why}" for path, why in closed.items()])


def _loads(gpus: Gpus, profile: Profile) -> Verdict:
    driver = _driver(gpus)
    error = driver.library_error
    if error is None and driver.library is not None:
        return judged(1, notes=[f"libcuda.so.1 is {driver.library}"])
    if error is None:
        return judged(1, [Finding("libcuda.so.1", driver.ended, "a library that loads")])
    capabilities = (gpus.variables or {}).get("NVIDIA_DRIVER_CAPABILITIES")
    if clash := _GLIBC.search(error):
        remedy = (
            f"The driver's libraries of this machine need a C library of {clash[1]} or newer: "
            "build the image on a newer system, or run it on a machine of its own age."
        )
        finding = Finding("libcuda.so.1", error, "a C library as new as the driver's libraries")
        return replace(judged(1, [finding]), remedy=remedy)
    if capabilities is not None and not {"compute", "all"} & set(capabilities.split(",")):
        finding = Finding("NVIDIA_DRIVER_CAPABILITIES", capabilities, "with compute, or all")
        remedy = "Add compute to the variable in the image's configuration."
        return replace(judged(1, [finding]), remedy=remedy)
    if "cannot open shared object file" in error:
        return not_judged(
            f"The devices are inside, the driver's libraries are not: {error}.",
            "Pass the GPU with --nv (apptainer), --gpus all (docker) or CDI (podman), and not its "
            "device files alone.",
        )
    return judged(1, [Finding("libcuda.so.1", error, "a library that loads")])


def _starts(gpus: Gpus, profile: Profile) -> Verdict:
    driver = _driver(gpus)
    where = f"{driver.library}, {'of the image' if driver.from_image else 'of this machine'}"
    if driver.init == 0:
        return judged(1)
    hidden = (gpus.variables or {}).get("CUDA_VISIBLE_DEVICES")
    if driver.init is None:
        found, of_library = f"cuInit did not answer ({where}): {driver.ended}", True
        remedy = "Restart this machine, and reinstall its NVIDIA driver if that does not help."
    else:
        code = _CODES.get(
            driver.init, _Code("a CUresult", "see the CUDA driver API", "See `nvidia-smi`, dmesg.")
        )
        found = f"cuInit answers {driver.init} ({code.name}): {code.means} ({where})"
        of_library, remedy = code.of_library, code.remedy
    if driver.init == 100 and hidden is not None:
        finding = Finding("CUDA_VISIBLE_DEVICES", f"{hidden!r}, and {found}", "not set")
        return replace(judged(1, [finding]), remedy=_UNHIDE)
    if of_library and driver.from_image:
        return judged(1, [Finding(driver.library or "libcuda.so.1", found, "0")])
    return not_judged(f"{found}.", remedy)


def _version(gpus: Gpus, profile: Profile) -> Verdict:
    cuda = str(promised(profile.expect.framework).cuda)
    found = _driver(gpus).version
    if found is None:
        return not_tried("the driver does not say which CUDA it supports")
    text = f"{found // 1000}.{found % 1000 // 10}"
    major = int(cuda.partition(".")[0])
    if found // 1000 < major:
        return not_judged(
            f"The driver of this machine, {gpus.host.driver}, supports CUDA {text}, and the "
            f"framework was built for {cuda}: the runtime answers 35 "
            "(cudaErrorInsufficientDriver).",
            f"Install a driver for CUDA {major} or newer on this machine.",
        )
    return judged(1, notes=[f"the driver supports CUDA {text}"])


def _devices(gpus: Gpus, profile: Profile) -> Verdict:
    driver = _driver(gpus)
    if not driver.count:
        return not_judged(
            f"cuInit answers 0, and cuDeviceGetCount {driver.count_code} with "
            f"{driver.count or 0} devices{': ' + driver.ended if driver.ended else ''}.",
            "See `nvidia-smi` and dmesg on this machine.",
        )
    if gpus.host.listed is None:
        return not_tried(f"nothing to compare with: {gpus.host.note}")
    outside = {device.uuid: device.name for device in gpus.host.listed}
    inside = {device.uuid: device.name for device in driver.devices}
    split = {device.parent for device in gpus.host.listed if device.parent}
    # Of the instances of a split GPU, CUDA shows a process one.
    wanted = {d.uuid for d in gpus.host.listed if not d.parent and d.uuid not in split}
    findings = [
        Finding(uuid or "no UUID", f"{inside[uuid]}, inside", "a GPU of the machine", None, None)
        for uuid in sorted(set(inside) - set(outside))
    ]
    findings += [
        Finding(uuid, "not inside", outside[uuid], None, _NVIDIA_SMI)
        for uuid in sorted(wanted - set(inside))
    ]
    if findings and "CUDA_VISIBLE_DEVICES" not in (gpus.variables or {}):
        listed = "; ".join(f"{f.subject} ({f.expected}) {f.found}" for f in findings)
        return not_judged(
            f"The GPUs inside are not those of this machine: {listed}.",
            "Pass all GPUs to the container; a scheduler may have given this run only some.",
        )
    return judged(len(inside), findings)


def _seen(gpus: Gpus, profile: Profile) -> Verdict:
    framework, count = gpus.framework, _driver(gpus).count
    assert framework is not None
    if framework.devices == count:
        return judged(1)
    said = "; ".join((*framework.warnings, framework.error)).strip("; ")
    found = f"sees {framework.devices or 0} of {count} GPUs; it said: {said or 'nothing'}"
    see = shown_by(framework.module)
    return judged(1, [Finding(framework.module, found, f"{count}", None, see)])


def _computes(gpus: Gpus, profile: Profile) -> Verdict:
    framework = gpus.framework
    assert framework is not None
    see = shown_by(framework.module)
    if framework.gpu is None or framework.cpu is None:
        found = f"no product on the GPU: {framework.error or 'no reason given'}"
    elif not _ON_GPU.search(framework.gpu.device):
        found = f"the product was made on {framework.gpu.device}"
    elif (wrong := differs(framework.gpu, framework.cpu.value)) is not None:
        found = f"on {framework.gpu.device} {wrong}, which the CPU gives"
    else:
        return judged(1)
    return judged(1, [Finding(framework.module, found, "the product", None, see)])


def _control(gpus: Gpus, profile: Profile) -> Verdict:
    driver, framework = gpus.control_driver, gpus.control_framework
    assert driver is not None
    assert framework is not None
    findings = []
    if driver.count:
        findings.append(Finding("libcuda.so.1", f"shows {driver.count} devices", "none"))
    if framework.devices != 0:
        found = f"sees {framework.devices} GPUs" if framework.devices else framework.error
        findings.append(Finding(framework.module, found or "does not say", "none"))
    return judged(2, findings)


def _driver(gpus: Gpus) -> CudaDriver:
    return gpus.driver or CudaDriver(ended="the driver was not asked")


_LADDER: Mapping[str, Callable[[Gpus, Profile], Verdict]] = {
    "gpu-machine": _machine,
    "gpu-passed": _passed,
    "gpu-driver-loads": _loads,
    "gpu-driver-starts": _starts,
    "gpu-driver-version": _version,
    "gpu-devices": _devices,
    "gpu-framework": _seen,
    "gpu-computation": _computes,
    "gpu-control": _control,
}
"""The rungs from the machine upwards."""
