"""Kernels with a setup file, and what cells print in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CellRun:
    """One cell.

    Args:
        printed: on the standard output.
        error: why it did not run to its end, in words; None: it did.
    """

    printed: str
    error: str | None


@dataclass(frozen=True, slots=True)
class KernelSession:
    """A kernel that was started with its setup file in the home, and its cells.

    Args:
        error: why it did not start, in words; None: it did.
        setup: the variables that the setup file saw, if it was sourced into the kernel's process;
            None: it was not.
        cells: by name.
    """

    kernel: str
    error: str | None
    setup: Mapping[str, str] | None = None
    cells: Mapping[str, CellRun] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelSessions:
    """Kernels that were started so."""

    sessions: tuple[KernelSession, ...]
