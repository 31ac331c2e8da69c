"""Small programs and notebooks, run in an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

from mlcheck.inspect.packages.facts import Imports
from mlcheck.model.command import CommandResult


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file that was drawn.

    Args:
        width, height: pixels.
        size: bytes of the file.
    """

    width: int
    height: int
    size: int


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A small program, run in a directory of its own.

    Args:
        pictures: its pictures, by file name; a text is the reason why a file is no picture.
    """

    name: str
    result: CommandResult
    pictures: Mapping[str, Picture | str]


@dataclass(frozen=True, slots=True)
class TaskRuns:
    """All programs that the profile has."""

    runs: tuple[TaskRun, ...]


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """A notebook, executed by nbconvert.

    Args:
        error: failure, in words, or None if it ran.
        printed: its cell's output.
        wanted: the expected output.
    """

    kernel: str
    error: str | None
    printed: str
    wanted: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NotebookRuns:
    """A notebook for each kernel."""

    runs: tuple[NotebookRun, ...]


PythonImports = NewType("PythonImports", Imports)
"""Requested packages of Python, each imported in a fresh interpreter."""

RLibraries = NewType("RLibraries", Imports)
"""Requested packages of R, each loaded in a fresh process."""
