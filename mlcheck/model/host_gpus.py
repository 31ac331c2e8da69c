"""GPUs of this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU, or one MIG instance of a GPU.

    Args:
        uuid: the driver's UUID as 32 lower-case hex digits without dashes; "" if it has none.
        parent: UUID of the GPU that a MIG instance belongs to.
    """

    name: str
    uuid: str
    parent: str = ""


@dataclass(frozen=True, slots=True)
class HostGpus:
    """NVIDIA's GPUs and driver on the host.

    Args:
        driver: version of the loaded kernel driver; None if none is loaded.
        pci: addresses of NVIDIA's display and 3D controllers.
        listed: GPUs listed by `nvidia-smi -L`; None if it could not run (`note` says why).
    """

    driver: str | None
    pci: tuple[str, ...]
    listed: tuple[GpuDevice, ...] | None = None
    note: str = ""
