"""Files of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the image that a probe could not interpret.

    Args:
        path: path in the image, followed by `:LINE` if a line is known.
        what: description of the trouble, worded to follow the path ("is a FIFO").
    """

    path: str
    what: str


FileType = Literal["file", "directory", "symlink", "fifo", "socket", "block", "char"]


class File(NamedTuple):
    """One file of the image; a final symlink is not followed.

    Unlike other facts this is a tuple: an image has 100,000 files, and creating a frozen dataclass
    takes as long as the kernel's stat(2).

    Args:
        mode: permission bits including set-uid, set-gid and sticky (`stat.S_IMODE`).
        size: bytes.
        target: target of a symlink, as written; None for other types.
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
class ResolvedFile:
    """The result of resolving a promised path.

    Args:
        path: the path as requested.
        file: the entry at the path itself (a symlink is not followed); None if there is none.
        final: the file inside the image after following all symlinks; None if they lead nowhere
            (dangling, a loop, through a regular file as if it were a directory).
        final_path: path of `final`, or the last path that was reached.
        problem: the reason why `final` is None, in words.
    """

    path: str
    file: File | None
    final: File | None
    final_path: str
    problem: str | None = None
