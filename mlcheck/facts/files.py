"""Files of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the image that a probe could not make sense of.

    Args:
        path: where in the image, with `:LINE` behind it when a line is known.
        what: what is wrong with it, in words that follow the path ("is a FIFO").
    """

    path: str
    what: str


FileType = Literal["file", "directory", "symlink", "fifo", "socket", "block", "char"]


class File(NamedTuple):
    """One file of the image, not following a final symlink.

    A tuple, unlike other facts: an image has 100,000 of them, and a frozen dataclass takes as
    long to make as the kernel takes to look at the file.

    Args:
        mode: permission bits with set-uid, set-gid and sticky (`stat.S_IMODE`).
        size: bytes.
        target: where a symlink points, as it is written; None for other types.
        inode: device and inode number, equal for hard links of one file.
    """

    path: str
    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    target: str | None = None
    inode: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class ImageSize:
    """How large an image is.

    Args:
        unpacked: bytes of all its files.
    """

    unpacked: int


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """A promised path and what is there.

    Args:
        path: as it was asked for.
        file: what is there itself (a symlink is not followed); None when nothing is.
        final: what it leads to inside the image after all symlinks; None when it leads nowhere
            (dangling, a loop, out of a directory that is a file).
        final_path: the path of `final`, or the last path that was reached.
        problem: why `final` is None, in words.
    """

    path: str
    file: File | None
    final: File | None
    final_path: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """The answers for the promised paths, by path."""

    files: Mapping[str, ResolvedFile]


@dataclass(frozen=True, slots=True)
class Script:
    """A file in `bin/` that begins with `#!`.

    Args:
        interpreter: the words of its first line after `#!`.
        resolved: what the first word (or, behind /usr/bin/env, the second on PATH) resolves to
            inside the image; None when nothing is there.
        mode: permission bits.
    """

    path: str
    interpreter: tuple[str, ...]
    resolved: str | None
    mode: int


@dataclass(frozen=True, slots=True)
class Scripts:
    """All scripts directly in the prefix's `bin/`."""

    scripts: tuple[Script, ...]
    problems: tuple[Problem, ...] = ()
