"""Sizes with units."""

from __future__ import annotations

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def in_bytes(budget: str) -> int:
    """Convert a size with its unit ("8 GB") to bytes."""
    number = budget.rstrip("BkMG ")
    return int(float(number) * _UNITS[budget[len(number) :].strip()])


def shown(count: int) -> str:
    """Format a number of bytes for people."""
    for unit in ("GB", "MB", "kB"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.1f} {unit}"
    return f"{count} B"


def binary(count: int) -> str:
    """Format a limit for people: exact, in powers of 1024."""
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"
