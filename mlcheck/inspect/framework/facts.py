"""A framework's use of CUDA and its libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from mlcheck.model.command import CommandResult
from mlcheck.model.files import Problem


@dataclass(frozen=True, slots=True)
class Computation:
    """A product of two matrices, computed by a framework.

    Args:
        device: the device of the result, according to the framework.
        value: its rows.
    """

    device: str
    value: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Framework:
    """The self-description of TensorFlow or torch.

    Args:
        module: "tensorflow" or "torch".
        cuda_build: True if it was built for CUDA.
        cuda: its CUDA version ("11.8"), or None if it has none or does not state it.
        devices: number of GPUs that it sees.
        cpu, gpu: the computation on each, or None if it was not made.
        exact: the product in whole numbers, computed outside of the image.
        error: the exception that ended it, or how its process ended; "" if it finished.
        warnings: its warnings, and the last lines on stderr.
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
class CudaLibrary:
    """A CUDA library that the framework needs, and the file that the loader finds for it.

    Args:
        by: the ELF file that needs it, or "" if the framework opens it by name.
        path: the file, or None if there is none.
        rejected: (path, reason) of files that the loader would not take.
        says: the library's own name (DT_SONAME), or None if it has none.
    """

    soname: str
    by: str
    path: str | None
    searched: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    says: str | None = None


@dataclass(frozen=True, slots=True)
class CudaLibraries:
    """The CUDA libraries of a framework, and the driver's libraries in the image.

    Args:
        package: the framework's directory, or None if there is none.
        driver_files: paths of libcuda.so* and libnvidia-*.so* on the loader's search path.
        driver_aside: those elsewhere (stubs to link with, cuda-compat).
    """

    package: str | None
    needs: tuple[CudaLibrary, ...]
    driver_files: tuple[str, ...]
    driver_aside: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Hint:
    """The output of a hint script, with a stand-in for lspci that shows an NVIDIA device.

    Args:
        path: of the script.
        alone: its answer without that stand-in.
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
        problem: reason why they could not be tried, or "" if they were.
        driver: True if libcuda.so.1 can already be loaded, so that they were not tried.
    """

    hints: tuple[Hint, ...]
    problem: str = ""
    driver: bool = False


ScriptAnswer = NewType("ScriptAnswer", CommandResult)
"""The answer of the image's own check of its framework."""
