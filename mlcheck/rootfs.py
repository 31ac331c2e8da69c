"""Read the files of an image that lies in a directory of this machine.

Links are followed by hand, one path component at a time, so that an absolute link starts at the
image's root and `..` stops there: the host's own files are out of reach, whatever the image
says. Nothing but regular files is opened for reading, because opening a FIFO can block and
opening a device can do anything.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from mlcheck.engines.base import Unreadable
from mlcheck.errors import ProbeError
from mlcheck.facts import File, FileType, ResolvedFile

LINK_LIMIT = 40
"""Symlinks followed on one path, as in the Linux kernel (path_resolution(7))."""

PATH_LIMIT = 4096
"""Bytes of a path, as in the Linux kernel (PATH_MAX): nothing can open what lies deeper."""

_CHUNK = 1024 * 1024
_KEPT_DIRECTORIES = 64

_TYPES: dict[int, FileType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
}
TYPE_WORDS: dict[FileType, str] = {
    "file": "a regular file",
    "directory": "a directory",
    "symlink": "a symlink",
    "fifo": "a FIFO",
    "socket": "a socket",
    "block": "a block device",
    "char": "a character device",
}


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


class DirectoryRootFS:
    """The image in the host directory `root`; see `mlcheck.engines.base.RootFS`.

    Safe for use from several threads. Names that are not UTF-8 appear with surrogates, as
    everywhere in Python.

    Args:
        root: an existing directory.

    Raises:
        ProbeError: this machine's permissions forbid it to be opened.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            _fail(str(root), error)
        self._root = _Directory(fd, "/")
        # Probes read files directory by directory: keeping the last directories open saves
        # most of the walk from the root.
        self._kept: OrderedDict[str, _Directory] = OrderedDict()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Descriptor of the root, opened with O_PATH."""
        return self._root.fd

    def lstat(self, path: str) -> File | None:
        """What is at `path`, a final symlink not followed; None when nothing is.

        Raises:
            ProbeError: this machine's permissions forbid to look.
        """
        place = self._locate(path, follow=False)
        return _file(place, normal(path)) if place.status else None

    def resolve(self, path: str) -> ResolvedFile:
        """Follow all symlinks from `path`, inside the image.

        Raises:
            ProbeError: this machine's permissions forbid to look.
        """
        itself = self._locate(path, follow=False)
        file = _file(itself, normal(path)) if itself.status else None
        place = self._locate(path) if file and file.type == "symlink" else itself
        if place.status is None:
            return ResolvedFile(path, file, None, place.path, _problem(path, file, place))
        return ResolvedFile(path, file, _file(place, place.path), place.path)

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
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
            try:
                fd = os.open(place.name, flags, dir_fd=place.parent.fd)
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
        return [] if directory is None else _names(directory)

    def walk(self, top: str) -> Iterator[File]:
        """Every file below `top`, in sorted order, a directory before what it holds.

        A symlink at `top` is followed, none below it; as with find(1), paths begin with `top`
        as it was written. Nothing comes when `top` leads to no directory.

        Raises:
            ProbeError: a directory cannot be read, or lies deeper than any path can name.
        """
        directory = self._directory_at(self._locate(top))
        if directory is None:
            return
        pending = [(directory.path, self._files(directory, normal(top)))]
        while pending:
            real, files = pending[-1]
            file = next(files, None)
            if file is None:
                pending.pop()
                continue
            yield file
            if file.type == "directory":
                name = file.path.rpartition("/")[2]
                below = self._directory(f"{real.rstrip('/')}/{name}")
                pending.append((below.path, self._files(below, file.path)))

    def _files(self, directory: _Directory, shown: str) -> Iterator[File]:
        """The entries of one directory, whose path for people is `shown`, sorted."""
        found = []
        prefix = shown.rstrip("/")
        for name in _names(directory):
            path = f"{prefix}/{name}"
            if len(path) > PATH_LIMIT:
                raise ProbeError(
                    f"{path[:60]}... in {self.root} is a path of more than {PATH_LIMIT} bytes, "
                    "which no program can open.",
                    "Remove the nested directories from the image.",
                )
            try:
                status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
                link = stat.S_ISLNK(status.st_mode)
                target = os.readlink(name, dir_fd=directory.fd) if link else None
            except FileNotFoundError:
                continue  # removed since the directory was read
            except OSError as error:
                _fail(path, error)
            found.append(_fact(path, status, target))
        # All at once: a generator would keep the directory open while others are walked.
        return iter(found)

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


def components(path: str) -> list[str]:
    """The parts of a path, last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def normal(path: str) -> str:
    return "/" + "/".join(reversed(components(path)))


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


def _fact(path: str, status: os.stat_result, target: str | None) -> File:
    return File(
        path=path,
        type=_type(status),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        target=target,
        inode=(status.st_dev, status.st_ino),
    )


def _file(place: _Place, path: str) -> File:
    assert place.status is not None
    target = None
    if stat.S_ISLNK(place.status.st_mode):
        try:
            target = os.readlink(place.name, dir_fd=place.parent.fd)
        except OSError as error:
            _fail(path, error)
    return _fact(path, place.status, target)


def _problem(path: str, file: File | None, place: _Place) -> str:
    return led(path, file, place.path, place.problem or "")


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


def _fail(path: str, error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    remedy = ""
    if isinstance(error, PermissionError):
        remedy = "Run mlcheck as a user who may read the whole image."
    raise ProbeError(f"{path}: cannot be read on this machine: {reason}.", remedy) from error
