"""A framework's computation: its correctness, and a command that shows it."""

from __future__ import annotations

from mlcheck.inspect.framework.facts import Computation
from mlcheck.model.verdict import ShowRun

TOLERANCE = 1e-3
"""Tolerance of a value, relative to its size, which counts as at least 1."""


def differs(found: Computation, expected: tuple[tuple[float, ...], ...]) -> str | None:
    """Describe the first unexpected value, or return None if there is none."""
    shape = [len(row) for row in found.value]
    if not expected or shape != [len(row) for row in expected]:
        return f"{len(shape)} rows of {sorted(set(shape))} values"
    for i, (row, wanted) in enumerate(zip(found.value, expected, strict=True)):
        for j, (x, y) in enumerate(zip(row, wanted, strict=True)):
            if abs(x - y) > TOLERANCE * max(1.0, abs(y)):
                return f"element [{i}][{j}] is {x:g}, not {y:g}"
    return None


def shown_by(module: str) -> ShowRun:
    """Return a command that shows the GPUs that a framework sees."""
    asked = {
        "tensorflow": "print(m.sysconfig.get_build_info(), m.config.list_physical_devices())",
        "torch": "print(m.version.cuda, m.cuda.device_count())",
    }
    return ShowRun(("python3", "-c", f"import {module} as m; {asked[module]}"))
