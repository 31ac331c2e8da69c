"""GPUs of this machine, what of them is seen in an image, and what its framework makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.facts.commands import CommandResult
from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU, or one MIG instance of a GPU.

    Args:
        uuid: 32 hex digits in small letters, as the driver has them without dashes; "" when it
            does not say.
        parent: for a MIG instance the UUID of its GPU.
    """

    name: str
    uuid: str
    parent: str = ""


@dataclass(frozen=True, slots=True)
class HostGpus:
    """NVIDIA's GPUs and driver outside of the image.

    Args:
        driver: version of the loaded kernel driver; None: none is loaded.
        pci: addresses of NVIDIA's display and 3D controllers.
        listed: what `nvidia-smi -L` shows; None: it could not be asked (`note` says why).
    """

    driver: str | None
    pci: tuple[str, ...]
    listed: tuple[GpuDevice, ...] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class CudaDriver:
    """What the CUDA driver answers inside; a step that was not reached is None.

    Args:
        nodes: device files and why they cannot be opened; "" for one that can.
        library: the file that the loader took for libcuda.so.1.
        library_error: why there is none.
        from_image: whether that file is the image's own, and was not put there by the engine.
        init: what cuInit answered, a CUresult.
        version: of CUDA that the driver supports, 1000 * major + 10 * minor.
        count: of devices.
        count_code: what cuDeviceGetCount answered.
        ended: how the program ended if it did not come to its end (a crash, a limit); "" if it did.
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
class Computation:
    """A product of two matrices that a framework made.

    Args:
        device: where the framework says that the result lies.
        value: its rows.
    """

    device: str
    value: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Framework:
    """What TensorFlow or torch says of itself.

    Args:
        module: "tensorflow" or "torch".
        cuda_build: whether it was built for CUDA.
        cuda: for which version ("11.8"); None: for none, or it does not say.
        devices: how many GPUs it sees.
        cpu, gpu: the computation on each, None when it was not made.
        exact: the product in whole numbers, computed outside of the image.
        error: the exception that ended it, or how its process ended; "" when all was done.
        warnings: what it warned of, and the last lines on stderr.
    """

    module: str
    version: str | None = None
    cuda_build: bool | None = None
    cuda: str | None = None
    devices: int | None = None
    cpu: Computation | None = None
    gpu: Computation | None = None
    exact: tuple[tuple[int, ...], ...] = ()
    error: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gpus:
    """All that the rungs of the ladder look at, from the machine up to a computation.

    Args:
        refused: why no GPU was asked for; "" when one was.
        required: whether this run promises one (--require-gpu).
        driver: None when no GPU was asked for.
        framework: None when the driver shows no device.
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


@dataclass(frozen=True, slots=True)
class CudaLibrary:
    """One CUDA library that the framework needs, and where the loader finds it.

    Args:
        by: the ELF file that needs it; "" when the framework opens it by name.
        path: None: nowhere.
    """

    soname: str
    by: str
    path: str | None
    searched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CudaLibraries:
    """The CUDA libraries of a framework, and the driver's that lie in the image.

    Args:
        package: the framework's directory; None: there is none.
        driver_files: paths of libcuda.so* and libnvidia-*.so* where the loader looks.
        driver_aside: those where it does not (stubs to link with, cuda-compat).
    """

    package: str | None
    needs: tuple[CudaLibrary, ...]
    driver_files: tuple[str, ...]
    driver_aside: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Hint:
    """What a hint script prints, with a stand-in for lspci in front that shows an NVIDIA device.

    Args:
        path: of the script.
        alone: its answer as it is, without that stand-in.
        without: with the stand-in, while no libcuda.so.1 can be loaded.
        with_library: with the stand-in, while the loader finds a stand-in for libcuda.so.1.
    """

    path: str
    alone: CommandResult
    without: CommandResult
    with_library: CommandResult


@dataclass(frozen=True, slots=True)
class Hints:
    """The answers of the hint scripts.

    Args:
        problem: why they could not be tried; "" when they were.
    """

    hints: tuple[Hint, ...]
    problem: str = ""
