"""Read the files of an image that lies in a directory of this machine.

Links are followed by hand, one path component at a time, so that an absolute link starts at the
image's root and `..` stops there: the host's own files are out of reach, whatever the image
says. Nothing but regular files is opened for reading, because opening a FIFO can block and
opening a device can do anything.
"""

from __future__ import annotations

import errno
import marshal
import os
import resource
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence, ValuesView
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from mlcheck.engines.base import HEAD, T, Unreadable
from mlcheck.errors import ProbeError
from mlcheck.facts import File, FileType, ResolvedFile
from mlcheck.files import (
    LINK_LIMIT,
    PATH_LIMIT,
    TYPE_WORDS,
    components,
    led,
    normal,
    once,
    size_text,
    without_collection,
)

THREADS = 4
"""That read files side by side where reading waits, for a disk or a network. Where it does not,
one is faster: of such short work, threads wait for the interpreter's lock longer than they gain."""

_BATCH = 16
"""Directories whose files one thread reads in a row."""

_CHUNK = 1024 * 1024
_KEPT_DIRECTORIES = 64
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC

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

Row = tuple[str, Status, tuple[int, int]]
"""A name in a directory, its status, and when its content and itself last changed (ns)."""


class _Directory:
    """An open directory of the image. It is closed when the last thread lets go of it."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    def __del__(self) -> None:
        os.close(self.fd)

    def child(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a path leads: an entry `name` of `parent` with its status, or why nowhere.

    The root itself is the entry "." of the root.
    """

    parent: _Directory
    name: str
    path: str
    status: os.stat_result | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer of an image, in a directory of its own.

    Args:
        digest: of its tar archive, which the engine has compared with the content.
        rootfs: what the layer itself has. What hides files of lower layers is there as the
            engine writes it down: character devices, extended attributes.
    """

    digest: str
    rootfs: DirectoryRootFS


class DirectoryRootFS:
    """The image in the host directory `root`; see `mlcheck.engines.base.RootFS`.

    Safe for use from several threads. Names that are not UTF-8 appear with surrogates, as
    everywhere in Python.

    Args:
        root: an existing directory.

    Attributes:
        stored: the layers that overlayfs shows there as one, the lowest first; none where that is
            not known.

    Raises:
        ProbeError: this machine's permissions forbid it to be opened.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stored: tuple[StoredLayer, ...] = ()
        try:
            fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            _fail(str(root), error)
        self._root = _Directory(fd, "/")
        # Probes read files directory by directory: keeping the last directories open saves
        # most of the walk from the root.
        self._kept: OrderedDict[str, _Directory] = OrderedDict()
        # By path without symlinks: the entries of a directory by name, sorted.
        self._listed: dict[str, dict[str, File]] = {}
        self._seen: dict[str, bytes] = {}
        self._to_learn: Callable[[], Iterable[tuple[str, bytes]]] | None = None
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Descriptor of the root, opened with O_PATH."""
        return self._root.fd

    def remember(self, seen: Callable[[], Iterable[tuple[str, bytes]]]) -> None:
        """What somebody else has just seen, so that it is not looked at again.

        Args:
            seen: asked when it is first needed: paths of directories without a symlink in them,
                each with a sorted list of all its `Row`s, packed by marshal.
        """
        self._to_learn = seen

    def lstat(self, path: str) -> File | None:
        """What is at `path`, a final symlink not followed; None when nothing is.

        Raises:
            ProbeError: this machine's permissions forbid to look.
        """
        parent, _, name = path.rpartition("/")
        if name and name not in (".", "..") and (listed := self._listed.get(parent or "/")):
            return listed.get(name)
        place = self._locate(path, follow=False)
        return self._file(place, normal(path)) if place.status else None

    def resolve(self, path: str) -> ResolvedFile:
        """Follow all symlinks from `path`, inside the image.

        Raises:
            ProbeError: this machine's permissions forbid to look.
        """
        file = self.lstat(path)
        if file and file.type != "symlink" and file.path.rpartition("/")[0] in self._listed:
            return ResolvedFile(path, file, file, file.path)
        place = self._locate(path)
        if place.status is None:
            return ResolvedFile(path, file, None, place.path, _problem(path, file, place))
        return ResolvedFile(path, file, self._file(place, place.path), place.path)

    def read(self, path: str, limit: int) -> bytes:
        """Content of the regular file that `path` leads to.

        Args:
            limit: most bytes that are wanted. Enforced on what is really read, whatever size
                the file claims.

        Raises:
            Unreadable: there is no such file, it is no regular file, or it is larger.
            ProbeError: this machine's permissions forbid it.
        """
        with self.open(path) as file:
            content = bytearray()
            try:
                too_large = os.fstat(file.fileno()).st_size > limit
                while not too_large and (chunk := file.read(_CHUNK)):
                    content += chunk
                    too_large = len(content) > limit
            except OSError as error:
                _fail(path, error)
        if too_large:
            raise Unreadable(path, f"is larger than {size_text(limit)}")
        return bytes(content)

    def open(self, path: str) -> BinaryIO:
        """The regular file that `path` leads to, for reading: unbuffered, seekable.

        Raises:
            Unreadable: there is no such file, or it is no regular file.
            ProbeError: this machine's permissions forbid it.
        """
        place = self._locate(path)
        if place.status is None:
            raise Unreadable(path, _problem(path, self.lstat(path), place))
        status = place.status
        if stat.S_ISREG(status.st_mode):
            # The check above and the opening are two steps: between them the file may have
            # become something else. O_NONBLOCK and the second look cover that.
            try:
                fd = os.open(place.name, _OPEN_FLAGS, dir_fd=place.parent.fd)
            except OSError as error:
                _fail(path, error)
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                return os.fdopen(fd, "rb", buffering=0)
            os.close(fd)
        word = TYPE_WORDS[_type(status)]
        raise Unreadable(
            path, led(path, self.lstat(path), place.path, f"is {word}, not a regular file")
        )

    def listdir(self, path: str) -> list[str]:
        """Names in the directory that `path` leads to, sorted; [] when there is none.

        Raises:
            ProbeError: this machine's permissions forbid it.
        """
        directory = self._directory_at(self._locate(path))
        return [] if directory is None else list(self._entries(directory))

    def walk(self, top: str) -> Iterator[File]:
        """Every file below `top`, in sorted order, a directory before what it holds.

        A symlink at `top` is followed, none below it; as with find(1), paths begin with `top`
        as it was written. Nothing comes when `top` leads to no directory. Each directory is
        listed once, whatever the number of walks: what changes later is not seen.

        Raises:
            ProbeError: a directory cannot be read, or lies deeper than any path can name.
        """
        directory = self._directory_at(self._locate(top))
        if directory is None:
            return
        with without_collection():
            for _ in self._directories(directory.path):
                pass
        real, shown = directory.path.rstrip("/"), normal(top).rstrip("/")
        for file in self._below(directory):
            yield file if real == shown else file._replace(path=shown + file.path[len(real) :])

    def each(
        self,
        top: str,
        wanted: Callable[[File, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """Look into the regular files below `top`; see `mlcheck.engines.base.RootFS.each`."""
        directory = self._directory_at(self._locate(top))
        if directory is None:
            return
        shown = normal(top).rstrip("/")
        work: list[tuple[str, list[File]]] = []
        seen: set[tuple[int, int]] = set()
        with without_collection():
            for path, entries in self._directories(directory.path):
                files = list(once(entries, seen))
                if directory.path != normal(top):
                    below = len(directory.path.rstrip("/"))
                    files = [file._replace(path=shown + file.path[below:]) for file in files]
                if files:
                    work.append((path, files))
        left = iter([work[start : start + _BATCH] for start in range(0, len(work), _BATCH)])
        for batch in left:
            waits = _waits()
            yield from self._look(batch, wanted, look)
            if _waits() - waits > _BATCH:
                break
        with ThreadPoolExecutor(THREADS) as pool:
            for found in pool.map(lambda batch: list(self._look(batch, wanted, look)), left):
                yield from found

    def _look(
        self,
        batch: Sequence[tuple[str, Sequence[File]]],
        wanted: Callable[[File, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """What `look` tells of some files, given with the directories that hold them."""
        for path, files in batch:
            directory = self._directory(path)
            for file in files:
                try:
                    fd = os.open(file.path.rpartition("/")[2], _OPEN_FLAGS, dir_fd=directory.fd)
                except FileNotFoundError:
                    continue  # removed since the directory was read
                except OSError as error:
                    _fail(file.path, error)
                try:
                    if not wanted(file, os.pread(fd, HEAD, 0)):
                        continue
                    # Something else may have come in the place of a regular file by now.
                    status = os.fstat(fd)
                    if not stat.S_ISREG(status.st_mode):
                        raise Unreadable(file.path, f"is {TYPE_WORDS[_type(status)]}")
                    with os.fdopen(fd, "rb", buffering=0, closefd=False) as content:
                        yield file, look(file, content)
                except Unreadable as unreadable:
                    yield file, unreadable
                except OSError as error:
                    _fail(file.path, error)
                finally:
                    os.close(fd)

    def _directories(self, top: str) -> Iterator[tuple[str, ValuesView[File]]]:
        """The directory `top`, which has no symlink in it, and all below it, with their entries."""
        pending = [top]
        while pending:
            path = pending.pop()
            entries = self._entries_at(path).values()
            yield path, entries
            pending += [file.path for file in reversed(entries) if file.type == "directory"]

    def _below(self, directory: _Directory) -> Iterator[File]:
        """Every file below a directory, by its path without symlinks."""
        pending = [iter(self._entries(directory).values())]
        while pending:
            file = next(pending[-1], None)
            if file is None:
                pending.pop()
                continue
            yield file
            if file.type == "directory":
                pending.append(iter(self._entries_at(file.path).values()))

    def _entries_at(self, path: str) -> dict[str, File]:
        """The entries of the directory at `path`, which has no symlink in it."""
        listed = self._listed.get(path)
        return self._entries(self._directory(path)) if listed is None else listed

    def _entries(self, directory: _Directory) -> dict[str, File]:
        """The entries of one directory, as they were when it was first asked for."""
        if (listed := self._listed.get(directory.path)) is not None:
            return listed
        found: dict[str, File] = {}
        fact = self._fact
        prefix = directory.path.rstrip("/")
        with self._lock:
            if self._to_learn is not None:
                self._seen = dict(self._to_learn())
                self._to_learn = None
        seen = self._seen.pop(directory.path, None)
        for name, status in (
            _statuses(directory)
            if seen is None
            else ((name, status) for name, status, _ in marshal.loads(seen))  # noqa: S302 -- our own
        ):
            path = f"{prefix}/{name}"
            if len(path) > PATH_LIMIT:
                raise ProbeError(
                    f"{path[:60]}... in {self.root} is a path of more than {PATH_LIMIT} bytes, "
                    "which no program can open.",
                    "Remove the nested directories from the image.",
                )
            target = None
            if stat.S_ISLNK(status[0]):
                try:
                    target = os.readlink(name, dir_fd=directory.fd)
                except FileNotFoundError:
                    continue  # removed since the directory was read
                except OSError as error:
                    _fail(path, error)
            found[name] = fact(path, status, target)
        return self._listed.setdefault(directory.path, found)

    def _file(self, place: _Place, path: str) -> File:
        assert place.status is not None
        target = None
        if stat.S_ISLNK(place.status.st_mode):
            try:
                target = os.readlink(place.name, dir_fd=place.parent.fd)
            except OSError as error:
                _fail(path, error)
        return self._fact(path, place.status[:7], target)

    def _fact(self, path: str, status: Status, target: str | None) -> File:
        mode, inode, device, _, uid, gid, size = status
        kind = _TYPES[mode & _TYPE_BITS]
        return File(path, kind, mode & _MODE_BITS, uid, gid, size, target, (device, inode))

    def _locate(self, path: str, *, follow: bool = True) -> _Place:
        """Walk to `path`; with `follow`, through a final symlink too."""
        at = self._root
        if "\0" in path:
            return _Place(at, "", path, None, "does not exist in the image")
        # The usual case: a file in a directory that was just looked at.
        parent, _, name = path.rpartition("/")
        if (kept := self._recall(parent)) is not None:
            at, path = kept, name
        todo = components(path)
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                at = self._directory(at.path.rpartition("/")[0] or "/")
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
                _fail(here, error)
            if not todo:
                return _Place(at, name, here, status)
            if not stat.S_ISDIR(status.st_mode):
                word = TYPE_WORDS[_type(status)]
                return _Place(at, name, here, None, f"is {word}, not a directory")
            at = self._enter(at, name)
        return _Place(at, ".", at.path, os.stat(".", dir_fd=at.fd))

    def _directory_at(self, place: _Place) -> _Directory | None:
        if place.status is None or not stat.S_ISDIR(place.status.st_mode):
            return None
        return place.parent if place.name == "." else self._enter(place.parent, place.name)

    def _directory(self, path: str) -> _Directory:
        """The directory at `path`, which has no symlink in it."""
        missing = []
        while (directory := self._recall(path)) is None:
            if path in ("", "/"):
                directory = self._root
                break
            path, _, name = path.rpartition("/")
            missing.append(name)
        for name in reversed(missing):
            directory = self._enter(directory, name)
        return directory

    def _enter(self, parent: _Directory, name: str) -> _Directory:
        path = parent.child(name)
        directory = self._recall(path)
        if directory is None:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                directory = _Directory(os.open(name, flags, dir_fd=parent.fd), path)
            except OSError as error:
                _fail(path, error)
            with self._lock:
                self._kept[path] = directory
                if len(self._kept) > _KEPT_DIRECTORIES:
                    self._kept.popitem(last=False)
        return directory

    def _recall(self, path: str) -> _Directory | None:
        with self._lock:
            directory = self._kept.get(path)
            if directory is not None:
                self._kept.move_to_end(path)
            return directory


def _waits() -> int:
    """How often this thread has waited, for a disk or whatever else."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _statuses(directory: _Directory) -> Iterator[tuple[str, Status]]:
    fd = directory.fd
    for name in _names(directory):
        try:
            yield name, os.stat(name, dir_fd=fd, follow_symlinks=False)[:7]
        except FileNotFoundError:
            continue  # removed since the directory was read
        except OSError as error:
            _fail(directory.child(name), error)


def _names(directory: _Directory) -> list[str]:
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.fd)
    except OSError as error:
        _fail(directory.path, error)
    try:
        return sorted(os.listdir(fd))  # noqa: PTH208 -- Path cannot list a descriptor
    except OSError as error:
        _fail(directory.path, error)
    finally:
        os.close(fd)


def _type(status: os.stat_result) -> FileType:
    return _TYPES[stat.S_IFMT(status.st_mode)]


def _problem(path: str, file: File | None, place: _Place) -> str:
    return led(path, file, place.path, place.problem or "")


def _fail(path: str, error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    remedy = ""
    if isinstance(error, PermissionError):
        remedy = "Run mlcheck as a user who may read the whole image."
    raise ProbeError(f"{path}: cannot be read on this machine: {reason}.", remedy) from error
