"""The CUDA driver and the GPUs as an image sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.inspect.framework.facts import Framework
from mlcheck.model.host_gpus import GpuDevice, HostGpus


@dataclass(frozen=True, slots=True)
class CudaDriver:
    """The answers of the CUDA driver inside; a step that was not reached is None.

    Args:
        nodes: device files, with the reason why they cannot be opened, or "" if they can.
        library: the file that the loader loaded for libcuda.so.1.
        library_error: reason why there is none.
        from_image: True if that file is the image's own, and was not put there by the engine.
        init: the answer of cuInit, a CUresult.
        version: of CUDA that the driver supports, 1000 * major + 10 * minor.
        count: number of devices.
        count_code: the answer of cuDeviceGetCount.
        ended: how the program ended if it did not finish (a crash, a limit); "" if it did.
    """

    nodes: Mapping[str, str] | None = None
    library: str | None = None
    library_error: str | None = None
    from_image: bool = False
    init: int | None = None
    version: int | None = None
    count: int | None = None
    count_code: int | None = None
    devices: tuple[GpuDevice, ...] = ()
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs, from the machine up to a computation.

    Args:
        refused: reason why no GPU was requested, or "" if one was.
        required: True if this run promises one (--require-gpu).
        driver: None if no GPU was requested.
        framework: None if the driver shows no device.
        control_driver, control_framework: the same with CUDA_VISIBLE_DEVICES set to nothing.
        variables: those of the image's configuration that choose devices or driver libraries.
    """

    host: HostGpus
    refused: str
    required: bool = False
    driver: CudaDriver | None = None
    framework: Framework | None = None
    control_driver: CudaDriver | None = None
    control_framework: Framework | None = None
    variables: Mapping[str, str] | None = None
