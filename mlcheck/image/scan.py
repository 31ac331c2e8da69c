"""A scan of every file of a tree, for its fingerprint: a hash of everything that stat(2) returns.

This is a program too, which scans while its parent does something else (`Ahead`). It needs nothing
but Python's own library, and starts in 20 ms. It writes its results to stdout on request, and ends
when its stdin does, as it does with its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import hashlib
import marshal
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

PATH_LIMIT = 4096
"""Most bytes of a path, as in the Linux kernel (PATH_MAX): nothing can open a deeper file."""

_LENGTH = 8

Row = tuple[str, tuple[int, ...], tuple[int, int]]
"""A name in a directory; the first seven numbers of its stat(2) in Python's order (type and mode,
inode, device, links, owner, group, size); when its content and itself last changed (ns)."""

Packed = tuple[str, bytes]
"""The path of a directory in the tree, without a symlink in it, and the sorted list of all its
`Row`s, packed by marshal into a fifth of the memory."""


def look(root: int) -> tuple[int, str, list[Packed]]:
    """Return the newest ctime below a directory, a hash of everything in it, and the
    files themselves.

    Args:
        root: descriptor of the directory.

    Raises:
        OSError: the status of something cannot be read.
        ValueError: something lies too deep, or has been moved.
    """
    hashed = hashlib.sha256()
    newest = 0
    directories = []
    top = place(root)
    pending = [""]
    while pending:
        path = pending.pop()
        if len(path) > PATH_LIMIT:
            raise ValueError("no program can open what lies so deep")
        if (fd := reached(root, top, path)) is None:
            raise ValueError("is no longer where it was")
        try:
            with os.scandir(fd) as entries:
                looked = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        finally:
            os.close(fd)
        # The target of a symlink is not read: a different symlink has a different inode.
        rows: list[Row] = [
            (name, status[:7], (status.st_mtime_ns, status.st_ctime_ns)) for name, status in looked
        ]
        rows.sort()
        newest = max(newest, *(changed for _, _, (_, changed) in rows)) if rows else newest
        pending += [f"{path}/{name}" for name, status, _ in rows if stat.S_ISDIR(status[0])]
        # Version 2 has no references between objects: equal rows, equal bytes.
        packed = marshal.dumps(rows, 2)
        directories.append((path or "/", packed))
        hashed.update(marshal.dumps(path, 2) + packed)
    return newest, hashed.hexdigest(), directories


def reached(root: int, top: str, path: str) -> int | None:
    """Open a directory for reading. Return None if it is not there, or only through a symlink,
    which could lead out of the image.

    Args:
        root: descriptor of the image's root.
        top: `place(root)`.
        path: path of the directory, absolute in the image.

    Raises:
        OSError: it cannot be opened.
    """
    path = path.rstrip("/")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(f".{path}", flags, dir_fd=root)
    try:
        if place(fd) == (top.rstrip("/") + path or "/"):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def place(fd: int) -> str:
    """Return the current path of an open directory."""
    return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 -- pathlib takes long to import


def unpacked(packed: bytes) -> list[Row]:
    """Unpack the rows of a directory."""
    rows: list[Row] = marshal.loads(packed)  # noqa: S302 -- our own
    return rows


class Ahead:
    """A process that computes the fingerprint of a directory, started at once.

    Args:
        path: path of the directory.
    """

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the process that asks
        )

    def found(self, status: os.stat_result) -> tuple[int, str] | None:
        """Return the first results of `look`, or None if the process has failed or has scanned
        another directory.

        Args:
            status: status of the expected directory.
        """
        answer = self._next()
        if answer is None:
            return None
        newest, found, inode = answer
        return (newest, found) if inode == (status.st_dev, status.st_ino) else None

    def directories(self) -> Sequence[Packed]:
        """Return the files; call it once, after `found`. Empty if the process has failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return []
        return self._next() or []

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _next(self) -> Any:
        """Return the next answer of the process, or None if it has ended."""
        assert self._process.stdout is not None
        length = int.from_bytes(self._process.stdout.read(_LENGTH), "big")
        answer = self._process.stdout.read(length)
        complete = length and len(answer) == length
        return marshal.loads(answer) if complete else None  # noqa: S302 -- our own program


AHEAD: dict[tuple[int, int], Ahead] = {}
"""Processes that scan a directory in advance, by its device and inode."""


def look_ahead(path: os.PathLike[str]) -> None:
    """Start to compute a directory's fingerprint, which will soon be needed, in another process.

    Does nothing for a directory on CVMFS, which names images after their content, and fetches every
    file that is looked at.
    """
    with contextlib.suppress(OSError):
        status = os.stat(path)  # noqa: PTH116 -- as above
        real = os.path.realpath(path)
        known = (status.st_dev, status.st_ino) in AHEAD
        if known or not stat.S_ISDIR(status.st_mode) or real.startswith("/cvmfs/"):
            return
        ahead = AHEAD[status.st_dev, status.st_ino] = Ahead(real)
        atexit.register(ahead.close)


def _main(path: str) -> None:
    gc.disable()
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    newest, hashed, files = look(root)
    status = os.fstat(root)
    _tell(sys.stdout.buffer, (newest, hashed, (status.st_dev, status.st_ino)))
    if sys.stdin.buffer.read(1):
        _tell(sys.stdout.buffer, files)


def _tell(stream: BinaryIO, what: Any) -> None:
    answer = marshal.dumps(what)
    stream.write(len(answer).to_bytes(_LENGTH, "big") + answer)
    stream.flush()


if __name__ == "__main__":
    _main(*sys.argv[1:])
