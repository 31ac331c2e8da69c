"""GPUs: the ladder from the machine up to a computation.

Each rung has its own rule. The first that does not hold tells what is wrong; those above it are
not judged. What is the machine's trouble is no failure of the image: docs/gpu.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from mlcheck.checks.framework import differs, show
from mlcheck.facts import CudaDriver, Gpus
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowRun, Verdict

MACHINE = Rule(
    "gpu-machine",
    "This machine has an NVIDIA GPU and its driver, and the engine was asked for it.",
    "Install NVIDIA's driver, and run with --nv.",
    "Without a driver on the machine no image can use its GPU; that has to be told apart from an "
    "image that is broken (docs/gpu.md).",
    keys=("framework.cuda",),
)
PASSED = Rule(
    "gpu-passed",
    "The device files of the GPUs can be opened inside.",
    "Start the container with --nv (apptainer), --gpus all (docker) or --device "
    "nvidia.com/gpu=all (podman).",
    "Every engine asks for GPUs in its own way, and some go on silently without: podman over "
    "docker's API ignores the request, apptainer only warns "
    "(https://github.com/NVIDIA/nvidia-container-toolkit).",
    keys=("framework.cuda",),
)
LOADS = Rule(
    "gpu-driver-loads",
    "libcuda.so.1, the library of the machine's driver, can be loaded inside.",
    "Remove the file from the image; the engine brings the driver's own.",
    "The engine brings the driver's library into the container; a damaged one in the image, or "
    "one for another C library, hides it (https://apptainer.org/docs/user/main/gpu.html).",
    keys=("framework.cuda",),
)
STARTS = Rule(
    "gpu-driver-starts",
    "The CUDA driver starts inside: cuInit answers 0.",
    "Remove libcuda.so.1 and cuda-compat from the image; the engine brings the driver's own.",
    "cuInit tells in one number what is wrong: 100 no device, 803 a library that does not fit "
    "the kernel module, 804 forward compatibility where it is not supported, 34 a stub "
    "(https://docs.nvidia.com/cuda/cuda-driver-api/).",
    keys=("framework.cuda",),
)
VERSION = Rule(
    "gpu-driver-version",
    "The machine's driver supports the CUDA version that the framework was built for.",
    "Install a newer NVIDIA driver on this machine.",
    "A runtime that is newer than the driver fails with error 35 when it is first used "
    "(https://docs.nvidia.com/deploy/cuda-compatibility/).",
    keys=("framework.cuda",),
)
DEVICES = Rule(
    "gpu-devices",
    "The GPUs inside are those of the machine, by their UUIDs.",
    "Take the variables that hide GPUs (CUDA_VISIBLE_DEVICES) out of the image's configuration.",
    "A number of GPUs proves little: NVIDIA's own check compares the UUIDs outside and inside "
    "(tests of https://github.com/NVIDIA/nvidia-container-toolkit).",
    keys=("framework.cuda",),
)
SEEN = Rule(
    "gpu-framework",
    "The framework sees as many GPUs as the driver shows: it does not fall back to the CPU.",
    "Read what the framework said; a CUDA library that it opens by name is missing or of another "
    "version.",
    "Frameworks fall back to the CPU without an error, and nvidia-smi shows the GPU also in an "
    "image that cannot use it (https://github.com/jupyter/docker-stacks/pull/1196).",
    keys=("framework.cuda",),
)
COMPUTES = Rule(
    "gpu-computation",
    "The framework multiplies two matrices on the first GPU, with the result that the CPU gives.",
    "Run it in the image, and read its message; the framework's build may lack this GPU's "
    "architecture.",
    "A device that is listed need not compute: a build may lack the GPU's architecture, which "
    "shows with the first kernel (https://docs.nvidia.com/deploy/cuda-compatibility/).",
    keys=("framework.cuda",),
)
CONTROL = Rule(
    "gpu-control",
    "With CUDA_VISIBLE_DEVICES set to nothing neither the driver nor the framework shows a GPU.",
    "Find out what in the image sets CUDA_VISIBLE_DEVICES anew, or answers for the driver.",
    "A check that finds GPUs everywhere proves nothing; without devices it must find none, as in "
    "the control of NVIDIA's own tests (https://github.com/NVIDIA/nvidia-container-toolkit).",
    keys=("framework.cuda",),
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


CODES = {
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


def rung(rule: Rule, fact: Gpus, profile: Profile) -> Verdict:
    """The verdict of one rung, if all below it hold."""
    if profile.expect.framework is None or not profile.expect.framework.cuda:
        return rule.skipped("the profile promises no framework for CUDA")
    if fact.refused and not (fact.required and rule is MACHINE):
        return rule.not_tried(fact.refused)
    for step, climb in _LADDER:
        verdict = climb(fact, profile)
        if step is rule:
            return verdict
        if verdict.outcome in ("failed", "error"):
            return rule.not_tried(f"not judged: see {step.check}")
    raise AssertionError(rule)


def _machine(fact: Gpus, profile: Profile) -> Verdict:
    if fact.refused:
        return MACHINE.not_judged(
            f"--require-gpu: {fact.refused}.", "Run where there is a GPU, or without it."
        )
    if fact.host.driver is None:
        what = (
            f"This machine has an NVIDIA GPU (PCI {', '.join(fact.host.pci)}), and no driver for "
            "it is loaded."
            if fact.host.pci
            else "This machine has no NVIDIA GPU that its PCI bus or a driver knows of."
        )
        return MACHINE.not_judged(what, "Install NVIDIA's driver here, or run without --nv=always.")
    return MACHINE.judged(1, notes=[f"NVIDIA driver {fact.host.driver}"])


def _passed(fact: Gpus, profile: Profile) -> Verdict:
    nodes = _driver(fact).nodes
    if nodes is None:
        finding = Finding("python3", _driver(fact).ended, "a Python that can look for device files")
        return PASSED.judged(1, [finding])
    closed = {path: why for path, why in nodes.items() if why}
    numbered = [path for path in nodes if path[-1].isdigit()]
    if not numbered:
        return PASSED.not_judged(
            "The GPU was not passed to the container: this machine's driver is loaded, and no "
            "/dev/nvidia0 is inside.",
            PASSED.remedy,
        )
    if closed and (len(closed) == len(numbered) or set(closed) - set(numbered)):
        listed = ", ".join(f"{path}: {why}" for path, why in sorted(closed.items()))
        return PASSED.not_judged(
            f"The device files of the GPU cannot be opened inside: {listed}.",
            "Let the user of this run open /dev/nvidia* (groups video, render), and pass all of "
            "them to the container.",
        )
    return PASSED.judged(len(nodes), notes=[f"{path}: {why}" for path, why in closed.items()])


def _loads(fact: Gpus, profile: Profile) -> Verdict:
    driver = _driver(fact)
    error = driver.library_error
    if error is None and driver.library is not None:
        return LOADS.judged(1, notes=[f"libcuda.so.1 is {driver.library}"])
    if error is None:
        return LOADS.judged(1, [Finding("libcuda.so.1", driver.ended, "a library that loads")])
    capabilities = (fact.variables or {}).get("NVIDIA_DRIVER_CAPABILITIES")
    if clash := _GLIBC.search(error):
        remedy = (
            f"The driver's libraries of this machine need a C library of {clash[1]} or newer: "
            "build the image on a newer system, or run it on a machine of its own age."
        )
        finding = Finding("libcuda.so.1", error, "a C library as new as the driver's libraries")
        return replace(LOADS, remedy=remedy).judged(1, [finding])
    if capabilities is not None and not {"compute", "all"} & set(capabilities.split(",")):
        finding = Finding("NVIDIA_DRIVER_CAPABILITIES", capabilities, "with compute, or all")
        remedy = "Add compute to the variable in the image's configuration."
        return replace(LOADS, remedy=remedy).judged(1, [finding])
    if "cannot open shared object file" in error:
        return LOADS.not_judged(
            f"The devices are inside, the driver's libraries are not: {error}.",
            "Pass the GPU with --nv (apptainer), --gpus all (docker) or CDI (podman), and not its "
            "device files alone.",
        )
    return LOADS.judged(1, [Finding("libcuda.so.1", error, "a library that loads")])


def _starts(fact: Gpus, profile: Profile) -> Verdict:
    driver = _driver(fact)
    where = f"{driver.library}, {'of the image' if driver.from_image else 'of this machine'}"
    if driver.init == 0:
        return STARTS.judged(1)
    hidden = (fact.variables or {}).get("CUDA_VISIBLE_DEVICES")
    if driver.init is None:
        found, of_library = f"cuInit did not answer ({where}): {driver.ended}", True
        remedy = "Restart this machine, and reinstall its NVIDIA driver if that does not help."
    else:
        code = CODES.get(
            driver.init, _Code("a CUresult", "see the CUDA driver API", "See `nvidia-smi`, dmesg.")
        )
        found = f"cuInit answers {driver.init} ({code.name}): {code.means} ({where})"
        of_library, remedy = code.of_library, code.remedy
    if driver.init == 100 and hidden is not None:
        finding = Finding("CUDA_VISIBLE_DEVICES", f"{hidden!r}, and {found}", "not set")
        return replace(STARTS, remedy=DEVICES.remedy).judged(1, [finding])
    if of_library and driver.from_image:
        return STARTS.judged(1, [Finding(driver.library or "libcuda.so.1", found, "0")])
    return STARTS.not_judged(f"{found}.", remedy)


def _version(fact: Gpus, profile: Profile) -> Verdict:
    promised = profile.expect.framework
    found = _driver(fact).version
    if promised is None or not promised.cuda or found is None:
        return VERSION.not_tried("the driver does not say which CUDA it supports")
    text = f"{found // 1000}.{found % 1000 // 10}"
    major = int(promised.cuda.partition(".")[0])
    if found // 1000 < major:
        return VERSION.not_judged(
            f"The driver of this machine, {fact.host.driver}, supports CUDA {text}, and the "
            f"framework was built for {promised.cuda}: the runtime answers 35 "
            "(cudaErrorInsufficientDriver).",
            f"Install a driver for CUDA {major} or newer on this machine.",
        )
    return VERSION.judged(1, notes=[f"the driver supports CUDA {text}"])


def _devices(fact: Gpus, profile: Profile) -> Verdict:
    driver = _driver(fact)
    if not driver.count:
        return DEVICES.not_judged(
            f"cuInit answers 0, and cuDeviceGetCount {driver.count_code} with "
            f"{driver.count or 0} devices{': ' + driver.ended if driver.ended else ''}.",
            "See `nvidia-smi` and dmesg on this machine.",
        )
    if fact.host.listed is None:
        return DEVICES.not_tried(f"nothing to compare with: {fact.host.note}")
    outside = {device.uuid: device.name for device in fact.host.listed}
    inside = {device.uuid: device.name for device in driver.devices}
    split = {device.parent for device in fact.host.listed if device.parent}
    # Of the instances of a split GPU, CUDA shows a process one.
    wanted = {d.uuid for d in fact.host.listed if not d.parent and d.uuid not in split}
    findings = [
        Finding(uuid or "no UUID", f"{inside[uuid]}, inside", "a GPU of the machine", None, None)
        for uuid in sorted(set(inside) - set(outside))
    ]
    findings += [
        Finding(uuid, "not inside", outside[uuid], None, _NVIDIA_SMI)
        for uuid in sorted(wanted - set(inside))
    ]
    if findings and "CUDA_VISIBLE_DEVICES" not in (fact.variables or {}):
        listed = "; ".join(f"{f.subject} ({f.expected}) {f.found}" for f in findings)
        return DEVICES.not_judged(
            f"The GPUs inside are not those of this machine: {listed}.",
            "Pass all GPUs to the container; a scheduler may have given this run only some.",
        )
    return DEVICES.judged(len(inside), findings)


def _seen(fact: Gpus, profile: Profile) -> Verdict:
    framework, count = fact.framework, _driver(fact).count
    assert framework is not None
    if framework.devices == count:
        return SEEN.judged(1)
    said = "; ".join((*framework.warnings, framework.error)).strip("; ")
    found = f"sees {framework.devices or 0} of {count} GPUs; it said: {said or 'nothing'}"
    see = show(framework.module)
    return SEEN.judged(1, [Finding(framework.module, found, f"{count}", None, see)])


def _computes(fact: Gpus, profile: Profile) -> Verdict:
    framework = fact.framework
    assert framework is not None
    see = show(framework.module)
    if framework.gpu is None or framework.cpu is None:
        found = f"no product on the GPU: {framework.error or 'no reason given'}"
    elif not _ON_GPU.search(framework.gpu.device):
        found = f"the product was made on {framework.gpu.device}"
    elif (wrong := differs(framework.gpu, framework.cpu.value)) is not None:
        found = f"on {framework.gpu.device} {wrong}, which the CPU gives"
    else:
        return COMPUTES.judged(1)
    return COMPUTES.judged(1, [Finding(framework.module, found, "the product", None, see)])


def _control(fact: Gpus, profile: Profile) -> Verdict:
    driver, framework = fact.control_driver, fact.control_framework
    assert driver is not None
    assert framework is not None
    findings = []
    if driver.count:
        findings.append(Finding("libcuda.so.1", f"shows {driver.count} devices", "none"))
    if framework.devices != 0:
        found = f"sees {framework.devices} GPUs" if framework.devices else framework.error
        findings.append(Finding(framework.module, found or "does not say", "none"))
    return CONTROL.judged(2, findings)


def _driver(fact: Gpus) -> CudaDriver:
    return fact.driver or CudaDriver(ended="the driver was not asked")


_LADDER: tuple[tuple[Rule, Callable[[Gpus, Profile], Verdict]], ...] = (
    (MACHINE, _machine),
    (PASSED, _passed),
    (LOADS, _loads),
    (STARTS, _starts),
    (VERSION, _version),
    (DEVICES, _devices),
    (SEEN, _seen),
    (COMPUTES, _computes),
    (CONTROL, _control),
)
RUNGS = tuple(rule for rule, _ in _LADDER)
"""From the machine upwards."""
