"""Limits of the memory and of the processes that the commands in an image have together."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from mlcheck.model.errors import UsageError

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"(\d+)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_LEAST_MEMORY, _LEAST_PROCESSES = 64 << 20, 32


def _most_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 * 3


def _most_processes() -> int:
    # A library of numerics starts a thread for each CPU, and as many commands run side by side.
    return 4096 + 256 * (os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one container; 0 is none.

    Args:
        memory: bytes.
        processes: processes and threads.
    """

    memory: int = _most_memory()
    processes: int = _most_processes()

    def exceeded(self, what: str) -> str:
        """Return the message for a command that was killed because of "memory" or "processes"."""
        if what == "memory":
            return (
                f"killed: the commands in this image took more than {self.memory / (1 << 30):.1f} "
                "GiB of memory, which is their limit (--limit-memory)"
            )
        return (
            f"killed: the commands in this image had more than {self.processes} processes and "
            "threads, which is their limit (--limit-processes)"
        )


DEFAULT = Limits()
UNLIMITED = Limits(0, 0)


def parse(memory: str | None, processes: int | None) -> Limits:
    """Return the limits that the options give; None for the default.

    Raises:
        UsageError: an option is no size, or too small for any command.
    """
    size = DEFAULT.memory if memory is None else _bytes(memory)
    count = DEFAULT.processes if processes is None else processes
    if count < _LEAST_PROCESSES:
        raise UsageError(
            f"--limit-processes {count}: too few for a container.",
            f"Give {_LEAST_PROCESSES} or more.",
        )
    return Limits(size, count)


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--limit-memory {text}: no size.", "Give one as 8G or 500M.")
    size = int(found[1]) << _UNITS[found[2].upper()]
    if size < _LEAST_MEMORY:
        raise UsageError(f"--limit-memory {text}: too little for a container.", "Give 64M or more.")
    return size
