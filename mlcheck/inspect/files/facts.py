"""Promised files of an image, its scripts, and its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from mlcheck.model.files import Problem, ResolvedFile


@dataclass(frozen=True, slots=True)
class ImageSize:
    """The size of an image.

    Args:
        unpacked: bytes of all its files.
    """

    unpacked: int


SifSize = NewType("SifSize", int)
"""Bytes of the image's SIF file."""


@dataclass(frozen=True, slots=True)
class Files:
    """The answers for the promised paths, by path."""

    files: Mapping[str, ResolvedFile]


PromisedFiles = NewType("PromisedFiles", Files)
"""The paths that the profile names."""


@dataclass(frozen=True, slots=True)
class FileContents:
    """The contents of the promised files.

    Args:
        problems: path to the reason why a file is not of the kind that its name says.
        places: path of a promised link to where it must lead, or None if nothing is there, and to
            where it leads; both after all symlinks.
        unread: path of a script to the reason why no shell here could read it.
    """

    problems: Mapping[str, str]
    places: Mapping[str, tuple[str | None, str]]
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Script:
    """A file in `bin/` that begins with `#!`.

    Args:
        interpreter: the words of its first line after `#!`, or of the line by which a shell hands
            it on to another interpreter.
        resolved: file that the first word (or, after /usr/bin/env, the second on PATH) resolves to
            inside the image, or None if there is none.
        mode: permission bits.
        line: number of the line that names the interpreter.
    """

    path: str
    interpreter: tuple[str, ...]
    resolved: str | None
    mode: int
    line: int = 1


@dataclass(frozen=True, slots=True)
class Scripts:
    """All scripts directly in the prefix's `bin/`.

    Args:
        elsewhere: executable scripts in the rest of the prefix whose interpreter should be in the
            prefix and is not there.
    """

    scripts: tuple[Script, ...]
    problems: tuple[Problem, ...] = ()
    elsewhere: tuple[Script, ...] = ()
