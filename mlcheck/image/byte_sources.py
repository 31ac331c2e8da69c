"""Bytes of an archive by their offset: of a file, of a part of one, or of decompressed data.

Nothing is written to disk. For compressed data, the state of the decompressor is kept every
CHECKPOINT bytes, so that at most that many bytes are decompressed to reach any position. For gzip
a state takes 50 kB. zstd gives access to its state only at the beginning of a frame, so that in
archives of one frame, going back means starting again: for this case, recently decompressed data
is kept.

All classes are safe for use from several threads.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

from mlcheck.image.sized_file import SizedFile
from mlcheck.image.tar_headers import BrokenArchive
from mlcheck.model.errors import EngineError

Compression = Literal["gzip", "zstd"]

BLOCK = 256 * 1024
"""Bytes that are decompressed at a time and kept together."""

KEPT: dict[Compression, int] = {"gzip": 64, "zstd": 256}
"""Blocks kept of one compressed layer: 16 and 64 MiB."""

CHECKPOINT = 16 * 1024 * 1024

CHECKPOINTS = 512
"""Most states of one decompressor; beyond that, they are further apart."""

INFLATED_LIMIT = 64 * 1024**3
"""Most bytes that one layer may have when it is decompressed; real ones have up to 20 GB."""

CURSORS = 3
"""Decompressors of one layer that are kept at their positions."""

WINDOW_LIMIT = 25
"""Binary logarithm of the memory that each zstd decompressor may use: 32 MiB; `zstd -19`
needs 8."""

_INPUT = 128 * 1024


class Source(Protocol):
    """Bytes that can be read at any offset."""

    def pread(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset` on; fewer only at the end.

        Raises:
            BrokenArchive: compressed data is damaged.
            EngineError: this machine cannot read the file.
        """


class FileBytes:
    """A regular file of this machine.

    Args:
        flags: further flags of open(2).

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        # Non-blocking, so that a FIFO is recognised instead of being waited for.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
        self.path = path
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise OSError(None, "it is no regular file")
        self.size = status.st_size

    def pread(self, offset: int, count: int) -> bytes:
        # What an archive says of itself may not even fit the kernel's integers.
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
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
    """A part of another source. Its size may claim more bytes than the source has."""

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self._source = source
        self._offset = offset
        self.size = size

    def pread(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset)
        return self._source.pread(self._offset + offset, count) if count > 0 else b""

    def pieces(self, count: int) -> Iterator[bytes]:
        """Iterate over all of it, at most `count` bytes at a time.

        Raises:
            BrokenArchive: it is shorter than its size.
        """
        at = 0
        while at < self.size:
            data = self.pread(at, count)
            if not data:
                raise BrokenArchive("broke off: it is incomplete")
            at += len(data)
            yield data


class Passing:
    """A forward-only source: bytes before the last piece that was read are gone.

    Args:
        pieces: the bytes, in order.

    Raises:
        BrokenArchive: from `pread`, for bytes that are gone.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = filter(None, pieces)
        self._data = b""
        self._start = 0

    def pread(self, offset: int, count: int) -> bytes:
        if offset < self._start:
            raise BrokenArchive("cannot be read backwards")
        if offset + count > self._start + len(self._data):
            self._go_on(offset, offset + count)
        offset -= self._start
        return self._data[offset : offset + count]

    def _go_on(self, offset: int, end: int) -> None:
        # One byte before the offset is kept, so that a reader can verify that nothing is missing.
        gone = min(max(offset - 1 - self._start, 0), max(len(self._data) - 1, 0))
        held = [self._data[gone:]]
        stop = self._start + len(self._data)
        for piece in self._pieces:
            if stop < offset:
                held = [held[-1][-1:]]
            held.append(piece)
            stop += len(piece)
            if stop >= end:
                break
        self._data = b"".join(held)
        self._start = stop - len(self._data)


def compression(start: bytes) -> Compression | None:
    """Return the compression of some data, from its first bytes: media types are often wrong."""
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    # A frame, or a skippable one (https://datatracker.ietf.org/doc/html/rfc8878#section-3.1).
    if start.startswith(b"\x28\xb5\x2f\xfd") or (
        len(start) >= 4 and start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50
    ):
        return "zstd"
    return None


def plain(source: Source) -> Source:
    """Return a source without its compression, if it has one."""
    found = compression(source.pread(0, 4))
    return source if found is None else Inflated(source, found)


class Inflated:
    """The decompressed content of a source."""

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
        """Return the decompressor nearest before a position. The last ones used are kept, since
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
        """Read the next bytes. States from which decompression can resume later are kept."""
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
    """A decompressor; `position` is its offset in the decompressed data."""

    position: int

    @property
    def can_copy(self) -> bool: ...

    def read(self, count: int) -> bytes:
        """Return at most `count` bytes; b"" only at the end. Raises BrokenArchive."""

    def copy(self) -> _Cursor:
        """Return a decompressor at the same position; only if `can_copy` is True."""


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
        from zlib_ng import zlib_ng  # most runs read nothing that is compressed

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
        except zlib_ng.error as error:  # type: ignore[misc]  # annotated as an object
            raise BrokenArchive(f"is damaged: its gzip data cannot be read ({error})") from None

    def copy(self) -> _Gzip:
        other = _Gzip(self._source)
        # The rest of the input is read again: keeping it would take more memory than the state.
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
    """Return the standard library's module, or its backport before Python 3.14."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class SourceFile(SizedFile):
    """A part of a source as a file: seekable, unbuffered.

    Args:
        start: its first bytes, as far as they are known.
        name: name of the content, for people.
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
