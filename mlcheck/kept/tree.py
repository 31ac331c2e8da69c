"""One look at every file of a tree, for its fingerprint: a hash of all that stat(2) tells.

It is a program too, which looks while its parent does something else (`Ahead`). It needs nothing
but Python's own library, and starts in 20 ms. What it has found it tells when it is asked, on
stdout, and it ends when its stdin does, as it does with its parent.
"""

from __future__ import annotations

import gc
import hashlib
import marshal
import os
import stat
import subprocess
import sys
from typing import Any, BinaryIO

_LENGTH = 8

Packed = list[tuple[str, bytes]]
"""By the path of a directory in the tree: the sorted list of all its `mlcheck.rootfs.Row`s, packed
by marshal into a fifth of the memory."""


def look(root: int, path_limit: int) -> tuple[int, str, Packed]:
    """The newest ctime below a directory, a hash of all that lies there, and the files themselves.

    Args:
        root: descriptor of the directory.
        path_limit: characters of a path, beyond which nothing is looked at.

    Raises:
        OSError: something cannot be looked at.
        ValueError: something lies too deep.
    """
    found = hashlib.sha256()
    newest = 0
    directories: Packed = []
    pending = [""]
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    while pending:
        path = pending.pop()
        if len(path) > path_limit:
            raise ValueError("no program can open what lies so deep")
        fd = os.open(f".{path}", flags, dir_fd=root)
        try:
            with os.scandir(fd) as entries:
                looked = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        finally:
            os.close(fd)
        # The target of a symlink is not read: another one has another inode.
        rows = [
            (name, status[:7], (status.st_mtime_ns, status.st_ctime_ns)) for name, status in looked
        ]
        rows.sort()
        newest = max(newest, *(changed for _, _, (_, changed) in rows)) if rows else newest
        pending += [f"{path}/{name}" for name, status, _ in rows if stat.S_ISDIR(status[0])]
        # The second version has no references between objects: equal rows, equal bytes.
        packed = marshal.dumps(rows, 2)
        directories.append((path or "/", packed))
        found.update(marshal.dumps(path, 2) + packed)
    return newest, found.hexdigest(), directories


class Ahead:
    """Looks at a directory in a process of its own, from now on.

    Args:
        path: of the directory.
    """

    def __init__(self, path: str, path_limit: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, path, str(path_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the process that asks
        )

    def found(self, status: os.stat_result) -> tuple[int, str] | None:
        """What `look` tells first; None: the process has failed, or has seen another directory.

        Args:
            status: of the directory that is meant.
        """
        answer = self._next()
        if answer is None:
            return None
        newest, found, inode = marshal.loads(answer)  # noqa: S302 -- our own program
        return (newest, found) if inode == (status.st_dev, status.st_ino) else None

    def directories(self) -> Packed:
        """The files; to be asked for once, after `found`. None where the process has failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return []
        answer = self._next()
        return [] if answer is None else list(marshal.loads(answer))  # noqa: S302 -- the same

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _next(self) -> bytes | None:
        assert self._process.stdout is not None
        length = int.from_bytes(self._process.stdout.read(_LENGTH), "big")
        answer = self._process.stdout.read(length)
        return answer if length and len(answer) == length else None


def _main(path: str, path_limit: str) -> None:
    gc.disable()
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    newest, found, directories = look(root, int(path_limit))
    status = os.fstat(root)
    _tell(sys.stdout.buffer, (newest, found, (status.st_dev, status.st_ino)))
    if sys.stdin.buffer.read(1):
        _tell(sys.stdout.buffer, directories)


def _tell(stream: BinaryIO, what: Any) -> None:
    answer = marshal.dumps(what)
    stream.write(len(answer).to_bytes(_LENGTH, "big") + answer)
    stream.flush()


if __name__ == "__main__":
    _main(*sys.argv[1:])
