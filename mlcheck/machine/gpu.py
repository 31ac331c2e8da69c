"""NVIDIA's GPUs and driver on this machine.

Sources: the README of NVIDIA's Linux driver (`/proc/driver/nvidia/version`), Linux's sysfs for PCI,
and the output of `nvidia-smi -L`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from mlcheck.machine import environ
from mlcheck.model.host_gpus import GpuDevice, HostGpus

DRIVER = "/proc/driver/nvidia/version"
"""Readable if NVIDIA's kernel driver is loaded."""

_PCI = "/sys/bus/pci/devices"
_NVIDIA = "0x10de"
_DISPLAY = "0x03"
"""PCI class of display controllers, which includes 3D controllers."""

_SMI_LIMIT_S = 60.0
_LISTED = re.compile(r"GPU \d+: (.+) \(UUID: GPU-([0-9a-f-]{36})\)")
_MIG = re.compile(r"\s+MIG (.+?)\s+Device\s+\d+: \(UUID: MIG-([0-9a-f-]{36})\)")
_VERSION = re.compile(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s")


def host_has_driver() -> bool:
    """Return whether this machine can give a container a GPU at all."""
    return os.access(DRIVER, os.R_OK)


def host(root: Path = Path("/")) -> HostGpus:
    """Collect the GPUs and the driver of this machine.

    Args:
        root: a tree with the same files, to read in place of this machine's.
    """
    driver = _driver(root / DRIVER.lstrip("/"))
    pci = tuple(
        device.name
        for device in sorted((root / _PCI.lstrip("/")).glob("*"))
        if _text(device / "vendor") == _NVIDIA and _text(device / "class").startswith(_DISPLAY)
    )
    if driver is None:
        return HostGpus(None, pci)
    listed, note = _listed()
    return HostGpus(driver, pci, listed, note)


def parse_list(text: str) -> tuple[GpuDevice, ...]:
    """Parse the GPUs and MIG instances that `nvidia-smi -L` printed."""
    found: list[GpuDevice] = []
    parent = ""
    for line in text.splitlines():
        if gpu := _LISTED.fullmatch(line):
            parent = gpu[2].replace("-", "")
            found.append(GpuDevice(gpu[1], parent))
        elif mig := _MIG.fullmatch(line):
            found.append(GpuDevice(f"MIG {mig[1]}", mig[2].replace("-", ""), parent))
    return tuple(found)


def _driver(file: Path) -> str | None:
    try:
        text = file.read_text()
    except OSError:
        return None
    version = _VERSION.search(text)
    return version[1] if version else "unknown"


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _listed() -> tuple[tuple[GpuDevice, ...] | None, str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, "nvidia-smi is not on this machine's PATH"
    try:
        done = subprocess.run(
            [program, "-L"],
            capture_output=True,
            text=True,
            env=environ.own(),
            timeout=_SMI_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"nvidia-smi -L: {error}"
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        return None, f"nvidia-smi -L ended with {done.returncode}: {said[-1] if said else ''}"
    return parse_list(done.stdout), ""
