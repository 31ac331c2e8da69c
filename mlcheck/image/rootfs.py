"""Read the files of an image that lies in a directory of this machine.

Links are followed by hand, one path component at a time, so that an absolute link starts at the
image's root and `..` stops there: the host's own files are out of reach, whatever the image
contains. Nothing but regular files is opened for reading, because opening a FIFO can block and
opening a device can do anything.
"""

from __future__ import annotations

import errno
import itertools
import os
import resource
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlcheck.image.api import HEAD, T, Unreadable
from mlcheck.image.directory_listing import Entries, FactOf, Names, fact, file_type
from mlcheck.image.open_directories import Directories, Directory, fail
from mlcheck.image.paths import (
    LINK_LIMIT,
    TYPE_WORDS,
    components,
    led,
    normal,
    without_collection,
)
from mlcheck.model.files import File, ResolvedFile
from mlcheck.model.units import binary

THREADS = 4
"""Threads that read files in parallel if reading waits for a disk or a network. If it does not
wait, one thread is faster: with such short operations, threads wait for the interpreter's lock
longer than they gain."""

_BATCH = 16
"""Directories whose files one thread reads in a row."""

_CHUNK = 1024 * 1024
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Place:
    """The result of resolving a path: the parent directory, the entry's name and status, or the
    reason why there is no such entry.

    The root itself is the entry "." of the root.
    """

    parent: Directory
    name: str
    path: str
    status: os.stat_result | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer of an image, in a directory of its own.

    Args:
        digest: of its tar archive; the engine has compared it with the content.
        rootfs: files of the layer itself. Entries that hide files of lower layers are present in
            the engine's notation: character devices, extended attributes.
    """

    digest: str
    rootfs: DirectoryRootFS


class DirectoryRootFS:
    """The image in the host directory `root`; see `mlcheck.image.api.RootFS`.

    Safe for use from several threads. Names that are not UTF-8 appear with surrogates, as
    everywhere in Python.

    Args:
        root: an existing directory.
        fact: makes the fact of a file.

    Attributes:
        remember: takes over a scan that was made elsewhere (`Entries.remember`).
        stored: the layers that overlayfs merges there, the lowest first; empty if they are unknown.

    Raises:
        ProbeError: this machine's permissions do not allow it to be opened.
    """

    def __init__(self, root: Path, fact: FactOf = fact) -> None:
        self.root = root
        self.stored: tuple[StoredLayer, ...] = ()
        self._fact = fact
        self._directories = Directories(root)
        self._root = self._directories.root
        self._entries = Entries(self._directories, fact)
        self.remember = self._entries.remember

    def fileno(self) -> int:
        """Return a descriptor of the root, opened with O_PATH."""
        return self._root.fd

    def lstat(self, path: str) -> File | None:
        """Return the entry at `path` without following a final symlink, or None if there is none.

        Raises:
            ProbeError: this machine's permissions do not allow looking.
        """
        parent, _, name = path.rpartition("/")
        if name and name not in (".", "..") and (listed := self._entries.known(parent or "/")):
            return listed.get(name)
        place = self._locate(path, follow=False)
        return self._file(place, normal(path)) if place.status else None

    def resolve(self, path: str) -> ResolvedFile:
        """Follow all symlinks from `path`, inside the image.

        Raises:
            ProbeError: this machine's permissions do not allow looking.
        """
        file = self.lstat(path)
        if file and file.type != "symlink" and self._entries.known(file.path.rpartition("/")[0]):
            return ResolvedFile(path, file, file, file.path)
        place = self._locate(path)
        if place.status is None:
            return ResolvedFile(path, file, None, place.path, _problem(path, file, place))
        return ResolvedFile(path, file, self._file(place, place.path), place.path)

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of the regular file that `path` leads to.

        Args:
            limit: most bytes to return. Enforced on the bytes really read, whatever size the
                file claims.

        Raises:
            Unreadable: there is no such file, it is not a regular file, or it is larger.
            ProbeError: this machine's permissions do not allow it.
        """
        with self.open(path) as file:
            content = bytearray()
            try:
                too_large = os.fstat(file.fileno()).st_size > limit
                while not too_large and (chunk := file.read(_CHUNK)):
                    content += chunk
                    too_large = len(content) > limit
            except OSError as error:
                fail(path, error)
        if too_large:
            raise Unreadable(path, f"is larger than {binary(limit)}")
        return bytes(content)

    def open(self, path: str) -> BinaryIO:
        """Open the regular file that `path` leads to for reading: unbuffered, seekable.

        Raises:
            Unreadable: there is no such file, or it is not a regular file.
            ProbeError: this machine's permissions do not allow it.
        """
        place = self._locate(path)
        if place.status is None:
            raise Unreadable(path, _problem(path, self.lstat(path), place))
        status = place.status
        if stat.S_ISREG(status.st_mode):
            # The check above and the opening are two steps: between them the file may have become
            # something else. O_NONBLOCK and a second check cover that.
            try:
                fd = os.open(place.name, _OPEN_FLAGS, dir_fd=place.parent.fd)
            except OSError as error:
                fail(path, error)
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                return os.fdopen(fd, "rb", buffering=0)
            os.close(fd)
        word = TYPE_WORDS[file_type(status.st_mode)]
        raise Unreadable(
            path, led(path, self.lstat(path), place.path, f"is {word}, not a regular file")
        )

    def check_readable(self) -> None:
        """Verify that this user may read everything: every directory and every regular file.

        Raises:
            ProbeError: something cannot be read.
        """
        for path, names in self._entries.regular_files("/"):
            at = self._directories.for_reading(path)
            try:
                needed = [(".", os.X_OK), *((name, os.R_OK) for name in names)]
                for name, how in needed:
                    if not os.access(name, how, dir_fd=at):
                        fail(
                            f"{path.rstrip('/')}/{name}",
                            PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
                        )
            finally:
                os.close(at)

    def listdir(self, path: str) -> list[str]:
        """Return the names in the directory that `path` leads to, sorted; [] if there is
        no directory.

        Raises:
            ProbeError: this machine's permissions do not allow it.
        """
        directory = self._directory_at(self._locate(path))
        return [] if directory is None else list(self._entries.of(directory.path))

    def walk(self, top: str) -> Iterator[File]:
        """Iterate over every file below `top`, in sorted order, a directory before its entries.

        A symlink at `top` is followed, none below it; as with find(1), paths begin with `top` as it
        was written. Nothing is returned if `top` does not lead to a directory. Each directory is
        listed once, whatever the number of walks: later changes are not seen.

        Raises:
            ProbeError: a directory cannot be read, or lies deeper than any path can name.
        """
        directory = self._directory_at(self._locate(top))
        if directory is None:
            return
        with without_collection():
            self._entries.list_below(directory.path)
        real, shown = directory.path.rstrip("/"), normal(top).rstrip("/")
        for file in self._files_below(directory):
            yield file if real == shown else file._replace(path=shown + file.path[len(real) :])

    def each(
        self,
        top: str,
        wanted: Callable[[str, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """Look into the regular files below `top`; see `mlcheck.image.api.RootFS.each`."""
        directory = self._directory_at(self._locate(top))
        if directory is None:
            return
        real, shown = directory.path.rstrip("/"), normal(top).rstrip("/")

        def looked(batch: Sequence[Names]) -> Iterator[tuple[File, T | Unreadable]]:
            for path, names in batch:
                if names:
                    at = f"{shown}{path[len(real) :]}".rstrip("/")
                    yield from self._look(path, at, names, wanted, look)

        names = self._entries.regular_files(directory.path)
        batches = iter(lambda: list(itertools.islice(names, _BATCH)), [])
        for batch in batches:
            waits = _waits()
            yield from looked(batch)
            if _waits() - waits > _BATCH:
                break
        with ThreadPoolExecutor(THREADS) as pool:
            for found in pool.map(lambda batch: list(looked(batch)), batches):
                yield from found

    def _look(
        self,
        path: str,
        shown: str,
        names: Sequence[str],
        wanted: Callable[[str, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """Call `look` for these regular files in the directory at `path`.

        Args:
            shown: prefix of the paths in the results.
        """
        at = self._directories.for_reading(path)
        try:
            for name in names:
                file = f"{shown}/{name}"
                try:
                    fd = os.open(name, _OPEN_FLAGS, dir_fd=at)
                except FileNotFoundError:
                    continue  # removed since the directory was read
                except OSError as error:
                    fail(file, error)
                try:
                    if wanted(file, os.pread(fd, HEAD, 0)):
                        yield self._looked(fd, file, look)
                except OSError as error:
                    fail(file, error)
                finally:
                    os.close(fd)
        finally:
            os.close(at)

    def _looked(
        self, fd: int, path: str, look: Callable[[File, BinaryIO], T]
    ) -> tuple[File, T | Unreadable]:
        """Call `look` for an open file."""
        file = self._fact(path, os.fstat(fd)[:7], None)
        try:
            # Something else may have replaced a regular file by now.
            if file.type != "file":
                raise Unreadable(path, f"is {TYPE_WORDS[file.type]}")
            with os.fdopen(fd, "rb", buffering=0, closefd=False) as content:
                return file, look(file, content)
        except Unreadable as unreadable:
            return file, unreadable

    def _files_below(self, directory: Directory) -> Iterator[File]:
        """Iterate over every file below a directory, by its path without symlinks."""
        pending = [iter(self._entries.of(directory.path).values())]
        while pending:
            file = next(pending[-1], None)
            if file is None:
                pending.pop()
                continue
            yield file
            if file.type == "directory":
                pending.append(iter(self._entries.of(file.path).values()))

    def _file(self, place: _Place, path: str) -> File:
        assert place.status is not None
        target = None
        if stat.S_ISLNK(place.status.st_mode):
            try:
                target = os.readlink(place.name, dir_fd=place.parent.fd)
            except OSError as error:
                fail(path, error)
        return self._fact(path, place.status[:7], target)

    def _locate(self, path: str, *, follow: bool = True) -> _Place:
        """Walk to `path`; with `follow`, through a final symlink too."""
        at = self._root
        if "\0" in path:
            return _Place(at, "", path, None, "does not exist in the image")
        # The usual case: a file in a directory that was just looked at.
        parent, _, name = path.rpartition("/")
        if (kept := self._directories.recall(parent)) is not None:
            at, path = kept, name
        todo = components(path)
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                at = self._directories.at(at.path.rpartition("/")[0] or "/")
                continue
            here = at.child(name)
            try:
                status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode) and (todo or follow):
                    links += 1
                    if links > LINK_LIMIT:
                        return _Place(at, name, here, None, "is in a link loop")
                    target = os.readlink(name, dir_fd=at.fd)
                    if target.startswith("/"):
                        at = self._root
                    todo += components(target)
                    continue
            except FileNotFoundError:
                rest = [] if ".." in todo else todo[::-1]
                return _Place(
                    at, name, "/".join((here, *rest)), None, "does not exist in the image"
                )
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    return _Place(at, name, here, None, "does not exist: its name is too long")
                fail(here, error)
            if not todo:
                return _Place(at, name, here, status)
            if not stat.S_ISDIR(status.st_mode):
                word = TYPE_WORDS[file_type(status.st_mode)]
                return _Place(at, name, here, None, f"is {word}, not a directory")
            at = self._directories.enter(at, name)
        return _Place(at, ".", at.path, os.stat(".", dir_fd=at.fd))

    def _directory_at(self, place: _Place) -> Directory | None:
        if place.status is None or not stat.S_ISDIR(place.status.st_mode):
            return None
        return (
            place.parent if place.name == "." else self._directories.enter(place.parent, place.name)
        )


def _waits() -> int:
    """Return how often this thread has waited, for a disk or anything else."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _problem(path: str, file: File | None, place: _Place) -> str:
    return led(path, file, place.path, place.problem or "")
