"""Entries of the directories of an image on this machine; each directory is listed once."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter

from mlcheck.image.open_directories import Directories, fail
from mlcheck.image.scan import PATH_LIMIT, Packed, unpacked
from mlcheck.model.errors import ProbeError
from mlcheck.model.files import File, FileType

_name = attrgetter("name")
_NO_INODE = (0, 0xFFFFFFFF)
"""Number of an unknown inode in a directory listing (FUSE_UNKNOWN_INO of libfuse)."""

_TYPE_BITS, _MODE_BITS = 0o170000, 0o7777
_TYPES: dict[int, FileType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
}

Status = tuple[int, ...]
"""The first seven numbers of stat(2) in Python's order: type and mode, inode, device, links,
owner, group, size."""

Inode = tuple[int, int]
"""Numbers of the device and of the file on it."""

Names = tuple[str, list[str]]
"""The path of a directory, and names in it."""

FactOf = Callable[[str, Status, str | None], File]
"""(path, status, target of a symlink) -> the fact of the file."""


class Entries:
    """The entries of directories. Safe for use from several threads.

    Args:
        directories: directories of the image.
        fact: makes the fact of a file.
    """

    def __init__(self, directories: Directories, fact: FactOf) -> None:
        self._directories = directories
        self._fact = fact
        # By path without symlinks: the entries of a directory by name, sorted.
        self._listed: dict[str, dict[str, File]] = {}
        self._seen: dict[str, bytes] = {}
        self._to_learn: Callable[[], Iterable[Packed]] | None = None
        self._lock = threading.Lock()

    def remember(self, seen: Callable[[], Iterable[Packed]]) -> None:
        """Take over a scan that was just made elsewhere, so that it is not repeated.

        Args:
            seen: called when its result is first needed.
        """
        self._to_learn = seen

    def known(self, path: str) -> dict[str, File] | None:
        """Return the entries of a directory if `of` has read them, else None."""
        return self._listed.get(path)

    def of(self, path: str) -> dict[str, File]:
        """Return the entries of the directory at `path`, which has no symlink in it, by name,
        sorted, as they were when they were first read.

        Raises:
            ProbeError: it cannot be read, or lies deeper than any path can name.
        """
        if (listed := self._listed.get(path)) is not None:
            return listed
        found: dict[str, File] = {}
        fact = self._fact
        prefix = path.rstrip("/")
        arrived = self._from_others().pop(path, None)
        for name, status in (
            self._statuses(path)
            if arrived is None
            else ((name, status) for name, status, _ in unpacked(arrived))
        ):
            at = _checked(f"{prefix}/{name}")
            target = None
            if stat.S_ISLNK(status[0]):
                try:
                    target = os.readlink(name, dir_fd=self._directories.at(path).fd)
                except FileNotFoundError:
                    continue  # removed since the directory was read
                except OSError as error:
                    fail(at, error)
            found[name] = fact(at, status, target)
        return self._listed.setdefault(path, found)

    def list_below(self, top: str) -> None:
        """Read the directory `top`, which has no symlink in it, and all directories below it.

        Raises:
            ProbeError: as `of`.
        """
        pending = [top]
        while pending:
            entries = self.of(pending.pop())
            pending += [file.path for file in entries.values() if file.type == "directory"]

    def regular_files(self, top: str) -> Iterator[Names]:
        """Iterate over the names of the regular files in the directory `top`, which has no symlink
        in it, and in all directories below it: each directory before those in it, sorted; hard
        links of one file once.

        If nothing else has read a directory, only names and types are read, which takes a third of
        the time of `of`.

        Raises:
            ProbeError: as `of`.
        """
        seen: dict[Inode, str] = {}
        pending = [top]
        while pending:
            path = pending.pop()
            prefix = path.rstrip("/")
            files, below = self._types(path)
            names = []
            for name, inode in files:
                at = f"{prefix}/{name}"
                if (first := seen.setdefault(inode, at)) == at or not self._same(first, at):
                    names.append(name)
            yield path, names
            pending += [_checked(f"{prefix}/{name}") for name in reversed(below)]

    def _types(self, path: str) -> tuple[list[tuple[str, Inode]], list[str]]:
        """Return the regular files of a directory, each with its inode, and its directories."""
        if path in self._listed or path in self._from_others():
            entries = self.of(path)
            return (
                [(name, file.inode) for name, file in entries.items() if file.type == "file"],
                [name for name, file in entries.items() if file.type == "directory"],
            )
        fd = self._directories.for_reading(path)
        try:
            device = os.fstat(fd).st_dev
            with os.scandir(fd) as found:
                files, below = [], []
                for entry in sorted(found, key=_name):
                    if entry.is_file(follow_symlinks=False):
                        inode = entry.inode()
                        if inode in _NO_INODE:
                            inode = entry.stat(follow_symlinks=False).st_ino
                        files.append((entry.name, (device, inode)))
                    elif entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                return files, below
        except OSError as error:
            fail(path, error)
        finally:
            os.close(fd)

    def _same(self, one: str, other: str) -> bool:
        """Return whether two paths are hard links of one file. The inode numbers in a directory
        listing can mislead if several file systems are shown as one
        (https://docs.kernel.org/filesystems/overlayfs.html, "Inode properties")."""
        found = []
        for path in (one, other):
            parent, _, name = path.rpartition("/")
            try:
                at = self._directories.at(parent or "/").fd
                found.append(os.stat(name, dir_fd=at, follow_symlinks=False))
            except FileNotFoundError:
                return False  # removed since the directory was read
            except OSError as error:
                fail(path, error)
        return os.path.samestat(*found)

    def _from_others(self) -> dict[str, bytes]:
        """Return, by path, the rows of directories that were scanned elsewhere and not
        read here."""
        with self._lock:
            if self._to_learn is not None:
                self._seen = dict(self._to_learn())
                self._to_learn = None
            return self._seen

    def _statuses(self, path: str) -> Iterator[tuple[str, Status]]:
        fd = self._directories.for_reading(path)
        try:
            for name in sorted(os.listdir(fd)):  # noqa: PTH208 -- Path cannot list a descriptor
                try:
                    yield name, os.stat(name, dir_fd=fd, follow_symlinks=False)[:7]
                except FileNotFoundError:
                    continue  # removed since the directory was read
        except OSError as error:
            fail(path, error)
        finally:
            os.close(fd)


def _checked(path: str) -> str:
    if len(path) > PATH_LIMIT:
        raise ProbeError(
            f"{path[:60]}... is a path of more than {PATH_LIMIT} bytes, which no program can open.",
            "Remove the nested directories from the image.",
        )
    return path


def fact(path: str, status: Status, target: str | None) -> File:
    """Make the fact of the file at a path.

    Args:
        target: target of a symlink.
    """
    mode, inode, device, _, uid, gid, size = status
    kind = _TYPES[mode & _TYPE_BITS]
    return File(path, kind, mode & _MODE_BITS, uid, gid, size, target, (device, inode))


def file_type(mode: int) -> FileType:
    """Return the type of a file from its mode as stat(2) gives it (st_mode)."""
    return _TYPES[mode & _TYPE_BITS]
