"""Bytes of an archive by their offset: of a file, a part of one, or what is compressed in those.

Nothing is written to disk. Of compressed data, the state of the decompressor is kept every
CHECKPOINT bytes, so that what lies anywhere is had by decompressing at most that many again. For
gzip a state is 50 kB; zstd tells its state only where a frame begins, so that in archives of one
frame going back means to start again: what was just decompressed is kept for that.

All are safe for use from several threads.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from zlib_ng import zlib_ng

from mlcheck.engines.sized_file import SizedFile
from mlcheck.engines.tar_headers import BrokenArchive
from mlcheck.errors import EngineError

Compression = Literal["gzip", "zstd"]

BLOCK = 256 * 1024
"""Bytes that are decompressed at a time, and kept together."""

KEPT: dict[Compression, int] = {"gzip": 64, "zstd": 256}
"""Blocks kept of one compressed layer: 16 and 64 MiB."""

CHECKPOINT = 16 * 1024 * 1024

CHECKPOINTS = 512
"""Most states of one decompressor; above that, they are further apart."""

INFLATED_LIMIT = 64 * 1024**3
"""Bytes that one layer may have when it is decompressed; real ones have up to 20 GB."""

CURSORS = 3
"""Decompressors of one layer that are kept where they stand."""

WINDOW_LIMIT = 25
"""Binary logarithm of the memory that each of zstd's may take: 32 MiB, where `zstd -19` asks for 8.
"""

_INPUT = 128 * 1024


class Source(Protocol):
    """Bytes that can be read anywhere."""

    def pread(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset` on; fewer only at the end.

        Raises:
            BrokenArchive: what is compressed is damaged.
            EngineError: this machine cannot read the file.
        """


class FileBytes:
    """A regular file of this machine.

    Args:
        flags: more of open(2).

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        # Not blocking, so that a FIFO is told from a file instead of being waited for.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
        self.path = path
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise OSError(None, "it is no regular file")
        self.size = status.st_size

    def pread(self, offset: int, count: int) -> bytes:
        try:
            data = os.pread(self._fd, count, offset)
            # One read ends at 2 GiB, and may end at a signal.
            while len(data) < count:
                more = os.pread(self._fd, count - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise EngineError(f"{self.path} cannot be read: {error.strerror}.") from error
        return data

    def __del__(self) -> None:
        if hasattr(self, "size"):
            os.close(self._fd)


class Part:
    """A part of another source; it may say that it is longer than that."""

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self._source = source
        self._offset = offset
        self.size = size

    def pread(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset)
        return self._source.pread(self._offset + offset, count) if count > 0 else b""


def compression(start: bytes) -> Compression | None:
    """How something is compressed, by its first bytes: media types are often wrong."""
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    # A frame, or one that is skipped (https://datatracker.ietf.org/doc/html/rfc8878#section-3.1).
    if start.startswith(b"\x28\xb5\x2f\xfd") or (
        len(start) >= 4 and start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50
    ):
        return "zstd"
    return None


def plain(source: Source) -> Source:
    """A source without its compression, if it has one."""
    found = compression(source.pread(0, 4))
    return source if found is None else Inflated(source, found)


class Inflated:
    """What is compressed in a source."""

    def __init__(self, source: Source, kind: Compression) -> None:
        self._new = functools.partial(_CURSORS[kind], source)
        self._lock = threading.Lock()
        self._limit = KEPT[kind]
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._cursors: list[_Cursor] = []
        self._checkpoints: list[_Cursor] = []
        self._spacing = CHECKPOINT
        self._end: int | None = None
        self._broken: BrokenArchive | None = None

    def pread(self, offset: int, count: int) -> bytes:
        number, start = divmod(offset, BLOCK)
        data = self._block(number)[start : start + count]
        while data and len(data) < count:
            number += 1
            more = self._block(number)[: count - len(data)]
            if not more:
                break
            data += more
        return data

    def _block(self, number: int) -> bytes:
        with self._lock:
            block = self._kept.get(number)
            if block is not None:
                self._kept.move_to_end(number)
                return block
            if self._broken is not None:
                raise self._broken
            if self._end is not None and number * BLOCK >= self._end:
                return b""
            try:
                return self._inflate(number)
            except BrokenArchive as broken:
                self._broken = broken
                raise

    def _inflate(self, number: int) -> bytes:
        cursor = self._nearest(number * BLOCK)
        self._read(cursor, -cursor.position % BLOCK)  # a frame may end within a block
        while True:
            at = cursor.position // BLOCK
            block = self._read(cursor, BLOCK)
            if len(block) < BLOCK:
                self._end = cursor.position
            if block:
                self._keep(at, block)
            if at == number or len(block) < BLOCK:
                return block if at == number else b""

    def _nearest(self, position: int) -> _Cursor:
        """The decompressor that is nearest before a position; the last ones used are kept, since
        several threads may read in several places."""
        found = None
        for cursor in self._cursors:
            if cursor.position <= position and (not found or found.position < cursor.position):
                found = cursor
        for checkpoint in reversed(self._checkpoints):
            if checkpoint.position <= position:
                if found is None or found.position < checkpoint.position:
                    found = checkpoint.copy()
                break
        found = found or self._new()
        self._cursors = [found, *(one for one in self._cursors if one is not found)][:CURSORS]
        return found

    def _read(self, cursor: _Cursor, count: int) -> bytes:
        """What comes next. States at which one can go on later are kept."""
        data = b""
        while len(data) < count:
            last = self._checkpoints[-1].position if self._checkpoints else 0
            if cursor.position - last >= self._spacing and cursor.can_copy:
                self._checkpoints.append(cursor.copy())
                if len(self._checkpoints) > CHECKPOINTS:
                    del self._checkpoints[::2]
                    self._spacing *= 2
            more = cursor.read(count - len(data))
            if not more:
                break
            data = data + more if data else more
            if cursor.position > INFLATED_LIMIT:
                raise BrokenArchive(f"has more than {INFLATED_LIMIT >> 30} GiB when decompressed")
        return data

    def _keep(self, number: int, block: bytes) -> None:
        self._kept[number] = block
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)


class _Cursor(Protocol):
    """A decompressor at `position` of what it gives."""

    position: int

    @property
    def can_copy(self) -> bool: ...

    def read(self, count: int) -> bytes:
        """At most `count` bytes; b"" only at the end. Raises BrokenArchive."""

    def copy(self) -> _Cursor:
        """One that stands at the same place, where `can_copy` says so."""


class _Gzip:
    """gzip: https://datatracker.ietf.org/doc/html/rfc1952, of one or more members."""

    can_copy = True

    def __init__(self, source: Source) -> None:
        self._source = source
        self._offset = 0
        self._data = b""
        self._inflate: Any = None
        self.position = 0

    def read(self, count: int) -> bytes:
        try:
            while True:
                if not self._data:
                    self._data = self._source.pread(self._offset, _INPUT)
                    self._offset += len(self._data)
                if self._inflate is None:
                    if not self._data.strip(b"\0") and self.position:
                        if not self._data:
                            return b""
                        self._data = b""  # padding, as gzip(1) ignores it
                        continue
                    self._inflate = zlib_ng.decompressobj(zlib_ng.MAX_WBITS | 16)
                if not self._data:
                    raise BrokenArchive("broke off: it is incomplete")
                found: bytes = self._inflate.decompress(self._data, count)
                self._data = self._inflate.unconsumed_tail
                if self._inflate.eof:
                    self._data = self._inflate.unused_data
                    self._inflate = None
                self.position += len(found)
                if found:
                    return found
        except zlib_ng.error as error:  # type: ignore[misc]  # its annotation is of an object
            raise BrokenArchive(f"is damaged: its gzip data cannot be read ({error})") from None

    def copy(self) -> _Gzip:
        other = _Gzip(self._source)
        # What is left of the input is read again: it would take more memory than the state.
        other._offset = self._offset - len(self._data)
        other._inflate = self._inflate and self._inflate.copy()
        other.position = self.position
        return other


class _Zstd:
    """zstd: https://datatracker.ietf.org/doc/html/rfc8878, of one or more frames."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._offset = 0
        self._data = b""
        self._inflate: Any = None
        self.position = 0

    @property
    def can_copy(self) -> bool:
        return self._inflate is None

    def read(self, count: int) -> bytes:
        zstd = _zstd()
        try:
            while True:
                if not self._data and (self._inflate is None or self._inflate.needs_input):
                    self._data = self._source.pread(self._offset, _INPUT)
                    self._offset += len(self._data)
                    if not self._data:
                        if self._inflate is None:
                            return b""
                        raise BrokenArchive("broke off: it is incomplete")
                if self._inflate is None:
                    limit = {zstd.DecompressionParameter.window_log_max: WINDOW_LIMIT}
                    self._inflate = zstd.ZstdDecompressor(options=limit)
                found: bytes = self._inflate.decompress(self._data, count)
                self._data = b""
                if self._inflate.eof:
                    self._data = self._inflate.unused_data
                    self._inflate = None
                self.position += len(found)
                if found:
                    return found
        except zstd.ZstdError as error:
            raise BrokenArchive(f"is damaged: its zstd data cannot be read ({error})") from None

    def copy(self) -> _Zstd:
        other = _Zstd(self._source)
        other._offset = self._offset - len(self._data)
        other.position = self.position
        return other


_CURSORS: dict[Compression, Callable[[Source], _Cursor]] = {"gzip": _Gzip, "zstd": _Zstd}


def _zstd() -> Any:
    """The standard library's module, or what it was before Python 3.14."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class SourceFile(SizedFile):
    """A part of a source as a file: seekable, unbuffered.

    Args:
        start: its first bytes, as far as they are known.
        name: what is read, for people.
    """

    def __init__(self, source: Source, offset: int, size: int, start: bytes, name: str) -> None:
        super().__init__(size, start)
        self._source = source
        self._offset = offset
        self._name = name

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._size - self._at, 0)
        count = left if size is None or size < 0 else min(size, left)
        if self._at + count <= len(self._start):
            data = self._start[self._at : self._at + count]
        else:
            try:
                data = self._source.pread(self._offset + self._at, count)
            except BrokenArchive as error:
                raise EngineError(f"{self._name}: its archive {error}.") from error
            if len(data) < count:
                raise EngineError(f"{self._name}: its archive has changed while it was read.")
        self._at += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(min(len(view), 8 * 1024 * 1024))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()
