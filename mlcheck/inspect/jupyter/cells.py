"""Kernels with a setup file of the user's, and code that they must run.

A setup file is sourced by the script that starts a kernel. It shows in the environment of the
process that the kernel runs in, whatever its language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlcheck.engines.base import OpenImage
from mlcheck.inspect.jupyter.facts import CellRun, KernelSession, KernelSessions
from mlcheck.inspect.jupyter.probe import ask, entries, error_of, text_of

KERNEL_LIMIT_S = 240.0
"""Seconds for one kernel with all its cells, of which some import a framework."""


@dataclass(frozen=True, slots=True)
class Session:
    """Setup file and cells for one kernel.

    Args:
        file: the setup file's path below the home, or None if it sources none.
        variables: names of shell variables that the file can test.
        cells: name to code.
    """

    kernel: str
    file: str | None = None
    variables: tuple[str, ...] = ()
    cells: Mapping[str, str] = field(default_factory=dict)


def probe(image: OpenImage, python: str, asked: Sequence[Session]) -> KernelSessions:
    """Start each kernel once, side by side.

    Args:
        python: the image's own interpreter, which has jupyter_client.

    Raises:
        EngineError: the engine could not run it.
    """
    if not asked:
        return KernelSessions(())
    kernels = [
        {"name": one.kernel, "file": one.file, "variables": one.variables, "cells": one.cells}
        for one in asked
    ]
    request = {"do": "cells", "kernels": kernels, "limit_s": KERNEL_LIMIT_S}
    answer, trouble = ask(image, python, request, KERNEL_LIMIT_S + 30)
    runs = {text_of(run, "kernel"): run for run in entries(answer, "runs")}
    sessions = (_session(one, runs.get(one.kernel, {}), trouble) for one in asked)
    return KernelSessions(tuple(sessions))


def _session(asked: Session, run: Mapping[str, object], trouble: str | None) -> KernelSession:
    setup, cells = run.get("setup"), run.get("cells")
    seen = None
    if isinstance(setup, dict):
        seen = {name: text_of(setup, name) for name in asked.variables}
    return KernelSession(
        asked.kernel,
        trouble or error_of(run),
        seen,
        {
            name: CellRun(text_of(cell, "printed"), error_of(cell), text_of(cell, "aside"))
            for name in asked.cells
            for cell in [cells.get(name) if isinstance(cells, dict) else None]
            if isinstance(cell, dict)
        },
    )
