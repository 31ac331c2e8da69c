"""Open directories of an image that lies in a directory of this machine.

A directory is entered from its parent, or opened by its path at once and then verified to be in the
right place: a symlink that somebody puts in the way meanwhile is not followed.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NoReturn

from mlcheck.image.scan import place, reached
from mlcheck.model.errors import ProbeError

_KEPT = 64
_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directory:
    """An open directory of the image. It is closed when no thread uses it any more.

    Args:
        fd: its descriptor, opened with O_PATH.
        path: in the image, without symlinks.
    """

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    def __del__(self) -> None:
        os.close(self.fd)

    def child(self, name: str) -> str:
        """Return the path of an entry."""
        return f"{self.path.rstrip('/')}/{name}"


class Directories:
    """The directories of the image in `root`. Safe for use from several threads.

    Raises:
        ProbeError: this machine's permissions do not allow `root` to be opened.
    """

    def __init__(self, root: Path) -> None:
        try:
            fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            fail(str(root), error)
        self.root = Directory(fd, "/")
        # Probes read files directory by directory: keeping the last directories open saves
        # most of the walk from the root.
        self._kept: OrderedDict[str, Directory] = OrderedDict()
        self._place = place(fd)
        self._lock = threading.Lock()

    def at(self, path: str) -> Directory:
        """Return the directory at `path`, which has no symlink in it.

        Raises:
            ProbeError: this machine does not allow it.
        """
        missing = []
        while (directory := self.recall(path)) is None:
            if path in ("", "/"):
                directory = self.root
                break
            path, _, name = path.rpartition("/")
            missing.append(name)
        for name in reversed(missing):
            directory = self.enter(directory, name)
        return directory

    def enter(self, parent: Directory, name: str) -> Directory:
        """Return the directory `name` of `parent`.

        Raises:
            ProbeError: this machine does not allow it.
        """
        path = parent.child(name)
        directory = self.recall(path)
        if directory is None:
            try:
                directory = Directory(os.open(name, _ENTER, dir_fd=parent.fd), path)
            except OSError as error:
                fail(path, error)
            with self._lock:
                self._kept[path] = directory
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return directory

    def recall(self, path: str) -> Directory | None:
        """Return the directory at `path` if it was one of the last ones, else None."""
        with self._lock:
            directory = self._kept.get(path)
            if directory is not None:
                self._kept.move_to_end(path)
            return directory

    def for_reading(self, path: str) -> int:
        """Return a descriptor of the directory at `path`, which has no symlink in it; the caller
        closes it.

        Raises:
            ProbeError: this machine does not allow it.
        """
        with contextlib.suppress(OSError):  # such as a path too long for one step
            if (fd := reached(self.root.fd, self._place, path)) is not None:
                return fd
        try:
            return os.open(
                ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.at(path).fd
            )
        except OSError as error:
            fail(path, error)


def fail(path: str, error: OSError) -> NoReturn:
    """Report that something in the image cannot be read on this machine.

    Raises:
        ProbeError: always.
    """
    reason = error.strerror or str(error)
    remedy = ""
    if isinstance(error, PermissionError):
        remedy = "Run mlcheck as a user who may read the whole image."
    raise ProbeError(f"{path}: cannot be read on this machine: {reason}.", remedy) from error
