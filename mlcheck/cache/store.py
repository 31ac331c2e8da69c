"""Storage of kept facts on disk.

Each content (an image, a layer), as the probes of one version read it, has one folder, with one
file for each question. A file is written completely under another name and renamed; a file that
is damaged in any way counts as missing. The folder that was unused for the longest time is
removed first.

Nothing here is ever an error: if the directory cannot be used, nothing is kept, and `trouble` gives
the reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from mlcheck.cache import files
from mlcheck.cache.content import Content
from mlcheck.cache.version import version
from mlcheck.machine import cache_dir

T = TypeVar("T")

OFF = "MLCHECK_NO_CACHE"
"""Variable that, set to anything, disables this cache in every part of mlcheck."""

LIMIT = 512 * 1024**2
"""Most bytes of everything that is kept. An image of 54,000 files takes about 3 MB."""

_FORMAT = "mlcheck-kept-1"
_ABOUT = "about"
_LEVEL = 1
_CHECK_EVERY = 16 * 1024**2
"""Bytes written before the total size is measured again: other processes write too."""


class Codec(Protocol[T]):
    """A conversion of values to bytes and back to exactly the same values."""

    def encode(self, value: T) -> bytes: ...
    def decode(self, data: bytes) -> T:
        """Raises ValueError if the bytes do not represent such a value."""


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A value, and since when it has been kept; None if it was computed now."""

    value: T
    since: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class Folder:
    """The kept facts of one content.

    Args:
        name: name of the content, for people.
        kind: "image", "layer".
        entries: number of answers.
        size: bytes on disk.
        used: time of the last use.
        key: name of the folder.
    """

    name: str
    kind: str
    entries: int
    size: int
    used: datetime.datetime
    key: str


class Store:
    """The cache in one directory. Several threads and processes may use it at once.

    Args:
        path: the directory; created when it is first needed, private to this user.
        limit: most bytes; what has just been written may exceed it until the next measurement.

    Attributes:
        trouble: the reason why nothing can be kept, in words; "" as long as nothing has failed.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path = path
        self.trouble = ""
        self._limit = limit
        self._unmeasured: int | None = None
        self._used: set[str] = set()

    def kept(self, content: Content, question: str, codec: Codec[T], make: Callable[[], T]) -> T:
        """Return the answer to `question` about `content`: kept, or computed now and kept from
        now on.

        While one process computes an answer, others that need it wait for it.

        Args:
            question: the question, with everything that the answer depends on besides the content
                and mlcheck's own probes.

        Raises:
            whatever `make` raises; nothing is kept then.
        """
        return self.find(content, question, codec, make).value

    def find(
        self, content: Content, question: str, codec: Codec[T], make: Callable[[], T]
    ) -> Kept[T]:
        """Do the same as `kept`, and also return since when the answer has been kept."""
        name = _hashed(question)
        with self._folder(content) as folder:
            if folder is None:
                return Kept(make(), None)
            if (found := _read(folder, name, codec)) is not None:
                return found
            with files.locked(folder, name):
                if (found := _read(folder, name, codec)) is not None:
                    return found  # another process was faster
                value = make()
                if not self.trouble:
                    with contextlib.suppress(ValueError):  # its type is not the declared one
                        self._write(folder, name, question, codec.encode(value))
                return Kept(value, None)

    def folders(self) -> list[Folder]:
        """Return all folders, the last used first."""
        with self._root() as root:
            found = [] if root is None else list(_folders(root))
        return sorted(found, key=lambda folder: folder.used, reverse=True)

    def clear(self) -> int:
        """Remove everything; return the number of bytes removed."""
        found = self.folders()
        self._remove(found)
        return sum(folder.size for folder in found)

    def _remove(self, folders: Sequence[Folder]) -> None:
        with self._root() as root:
            for folder in folders:
                if root is not None:
                    files.remove(root, folder.key)

    @contextlib.contextmanager
    def _root(self) -> Iterator[int | None]:
        """Give a descriptor of the directory, or None if there is none that can be used."""
        fd = self._opened(lambda: files.open_own_directory(str(self.path), None))
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    @contextlib.contextmanager
    def _folder(self, content: Content) -> Iterator[int | None]:
        """Give a descriptor of the folder of a content, created if need be, or None if it
        cannot be."""
        if not self.trouble:
            self._attempt(lambda: self.path.mkdir(0o700, parents=True))
        key = _hashed(f"{content.kind}\n{content.key}\n{version()}")
        with self._root() as root:
            fd = None if root is None else self._open_folder(root, key, content)
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def _open_folder(self, root: int, key: str, content: Content) -> int | None:
        if not self.trouble:
            self._attempt(lambda: os.mkdir(key, 0o700, dir_fd=root))
        fd = self._opened(lambda: files.open_own_directory(key, root))
        if fd is not None and key not in self._used:
            self._used.add(key)
            with contextlib.suppress(OSError):  # one that can only be read is fine
                os.utime(fd)
                if not files.exists(fd, _ABOUT):
                    about = {"kind": content.kind, "name": content.name}
                    files.put(fd, _ABOUT, json.dumps(about).encode())
        return fd

    def _attempt(self, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            pass
        except OSError as error:
            self._give_up(error)

    def _opened(self, open_it: Callable[[], int]) -> int | None:
        try:
            return open_it()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None

    def _write(self, folder: int, name: str, question: str, data: bytes) -> None:
        if len(data) > min(files.SIZE_LIMIT, self._limit // 4):
            return
        packed = zlib.compress(data, _LEVEL)
        header = {
            "format": _FORMAT,
            "question": question[:2000],
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "size": len(data),
            "packed": len(packed),
        }
        try:
            files.put(folder, name, json.dumps(header).encode() + b"\n" + packed)
            self._shrink(len(packed))
        except FileNotFoundError:
            pass  # the folder was removed meanwhile, by another process that needed the room
        except OSError as error:
            self._give_up(error)

    def _shrink(self, written: int) -> None:
        """Remove what was unused for the longest time, if the cache is too large."""
        if self._unmeasured is not None and self._unmeasured + written < _CHECK_EVERY:
            self._unmeasured += written
            return
        self._unmeasured = 0
        folders = self.folders()
        size = sum(folder.size for folder in folders)
        unused = [folder for folder in reversed(folders) if folder.key not in self._used]
        gone = []
        while unused and size > self._limit:
            gone.append(unused.pop(0))
            size -= gone[-1].size
        self._remove(gone)

    def _give_up(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        self.trouble = f"facts are not kept: {self.path}: {reason}"


def switched_off() -> bool:
    """Return whether the user has switched the cache off (MLCHECK_NO_CACHE, --no-cache)."""
    return bool(os.environ.get(OFF))


def default() -> Store:
    """Return the user's store: `facts` beside the reference images, in `~/.cache/mlcheck`."""
    return _store(cache_dir.cache() / "facts")


_store = functools.cache(Store)


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _read(folder: int, name: str, codec: Codec[T]) -> Kept[T] | None:
    whole = files.content(folder, name)
    if whole is None:
        return None
    try:
        head, _, packed = whole.partition(b"\n")
        header = json.loads(head)
        size = header["size"]
        if (
            header["format"] != _FORMAT
            or header["packed"] != len(packed)
            or size > files.SIZE_LIMIT
        ):
            return None
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(packed, size + 1)
        # zlib's own checksum reveals damage.
        if len(data) != size or not unpacking.eof:
            return None
        since = datetime.datetime.fromisoformat(header["made"])
        return Kept(codec.decode(data), since)
    except (ValueError, KeyError, TypeError, zlib.error, RecursionError):
        return None


def _folders(root: int) -> Iterator[Folder]:
    for key in files.names(root):
        try:
            fd = files.open_own_directory(key, root)
        except OSError:
            continue
        try:
            used = datetime.datetime.fromtimestamp(os.fstat(fd).st_mtime, datetime.UTC)
            found = Folder(*_about(fd), entries=0, size=0, used=used, key=key)
            for name in files.names(fd):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    found = dataclasses.replace(
                        found,
                        entries=found.entries + (len(name) == 40),
                        size=found.size + status.st_size,
                    )
            yield found
        finally:
            os.close(fd)


def _about(folder: int) -> tuple[str, str]:
    """Return name and kind of the content of a folder."""
    try:
        about = json.loads(files.content(folder, _ABOUT) or b"{}")
        return str(about["name"]), str(about["kind"])
    except (ValueError, KeyError, TypeError):
        return "?", "?"
