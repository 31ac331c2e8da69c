"""What all that read an image's files have in common: limits, words, and paths."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator

from mlcheck.facts import File, FileType

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
    """For making facts of 100,000 files. Python's search for cycles, which there are none among
    them, takes up to half of the time: it looks at all that was made so far, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def once(files: Iterable[File], seen: set[tuple[int, int]]) -> Iterator[File]:
    """The regular files among `files`, hard links of one file once: the first.

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
    """Key of the order in which `RootFS.each` finds files."""
    parent, _, name = file.path.rpartition("/")
    return parent.split("/"), name


def components(path: str) -> list[str]:
    """The parts of a path, last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def normal(path: str) -> str:
    return "/" + "/".join(reversed(components(path)))


def led(path: str, file: File | None, reached: str, problem: str) -> str:
    """`problem` of the place that was reached, told of `path` that led there.

    Args:
        file: what is at `path` itself.
    """
    if reached == normal(path) or problem == "is in a link loop":
        return problem
    if file is not None and file.type == "symlink":
        return f"is a symlink to {reached}, which {problem}"
    if normal(path).startswith(f"{reached}/"):
        return f"lies below {reached}, which {problem}"
    return f"leads to {reached}, which {problem}"


def size_text(count: int) -> str:
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"
