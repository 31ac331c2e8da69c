"""Limits, words and paths that all readers of an image's files share."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator

from mlcheck.model.files import File, FileType

LINK_LIMIT = 40
"""Symlinks followed on one path, as in the Linux kernel (path_resolution(7))."""

TYPE_WORDS: dict[FileType, str] = {
    "file": "a regular file",
    "directory": "a directory",
    "symlink": "a symlink",
    "fifo": "a FIFO",
    "socket": "a socket",
    "block": "a block device",
    "char": "a character device",
}


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Switch garbage collection off while facts of 100,000 files are made. Python's search for
    cycles, of which there are none among them, takes up to half of the time: it visits all existing
    objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def once(files: Iterable[File], seen: set[tuple[int, int]]) -> Iterator[File]:
    """Iterate over the regular files among `files`, hard links of one file once: the first.

    Args:
        seen: inodes that have come before; those of `files` are added.
    """
    for file in files:
        if file.type != "file" or file.inode in seen:
            continue
        if file.inode != (0, 0):
            seen.add(file.inode)
        yield file


def in_order(file: File) -> tuple[list[str], str]:
    """Sort key for the order in which `RootFS.each` finds files."""
    parent, _, name = file.path.rpartition("/")
    return parent.split("/"), name


def components(path: str) -> list[str]:
    """Return the parts of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def normal(path: str) -> str:
    return "/" + "/".join(reversed(components(path)))


def led(path: str, file: File | None, reached: str, problem: str) -> str:
    """Rephrase a problem found at the path that was reached in terms of the requested path.

    Args:
        path: the requested path.
        file: the entry at `path` itself.
        reached: the path where the problem was found.
    """
    if reached == normal(path) or problem == "is in a link loop":
        return problem
    if file is not None and file.type == "symlink":
        return f"is a symlink to {reached}, which {problem}"
    if normal(path).startswith(f"{reached}/"):
        return f"lies below {reached}, which {problem}"
    return f"leads to {reached}, which {problem}"
