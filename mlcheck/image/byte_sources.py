"""Bytes of an archive by their offset: of a file, of a part of one, or of decompressed data.

Nothing is written to disk. For compressed data, the state of the decompressor is kept every
CHECKPOINT bytes, so that at most that many bytes are decompressed to reach any position. For gzip
a state takes 50 kB. zstd gives access to its state only at the beginning of a frame, so that in
archives of one frame, going back means starting again: for this case, recently decompressed data
is kept. What is decompressed and kept counts for all layers of an image together
(`mlcheck.image.budget`).

All classes are safe for use from several threads.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from mlcheck.image.budget import MEMBER_COST, Budget
from mlcheck.image.sized_file import SizedFile
from mlcheck.image.tar_headers import BrokenArchive
from mlcheck.model.errors import EngineError

Compression = Literal["gzip", "zstd"]

BLOCK = 256 * 1024
"""Bytes that are decompressed at a time and kept together."""

CHECKPOINT = 16 * 1024 * 1024
"""Work between two states that are kept, in bytes as the budget counts them."""

CHECKPOINTS = 512
"""Most states of one decompressor; beyond that, they are further apart."""

WINDOW_LIMIT = 25
"""Binary logarithm of the memory that each zstd decompressor may use: 32 MiB; `zstd -19`
needs 8."""

_INPUT = 128 * 1024
_FIRST_INPUT = 512
"""Bytes given at once to a decompressor that has just begun. What it leaves is copied, and many a
member or frame ends after a few bytes."""


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


def plain(source: Source, budget: Budget | None = None) -> Source:
    """Return a source without its compression, if it has one.

    Args:
        budget: of the image that it belongs to; None: it is one by itself.
    """
    found = compression(source.pread(0, 4))
    return source if found is None else Inflated(source, found, budget or Budget())


class Inflated:
    """The decompressed content of a source."""

    def __init__(self, source: Source, kind: Compression, budget: Budget) -> None:
        self._new = functools.partial(_CURSORS[kind], source)
        self._budget = budget
        self._spent = 0
        self._lock = threading.Lock()
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
            block = self._budget.blocks.get((self, number))
            if block is not None:
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
                self._budget.blocks.put((self, at), block)
            if at == number or len(block) < BLOCK:
                return block if at == number else b""

    def _nearest(self, position: int) -> _Cursor:
        """Return the decompressor nearest before a position. The last ones used are kept, since
        several threads may read in several places."""
        found = None
        for (owner, _), kept in self._budget.cursors.items():
            cursor = cast(_Cursor, kept)
            near = found.position if found else -1
            if owner is self and near < cursor.position <= position:
                found = cursor
        for checkpoint in reversed(self._checkpoints):
            if checkpoint.position <= position:
                if found is None or found.position < checkpoint.position:
                    found = checkpoint.copy()
                break
        found = found or self._new()
        self._budget.cursors.put((self, id(found)), found)
        return found

    def _read(self, cursor: _Cursor, count: int) -> bytes:
        """Read the next bytes. States from which decompression can resume later are kept."""
        found: list[bytes] = []
        while count:
            last = self._checkpoints[-1].work if self._checkpoints else 0
            if cursor.work - last >= self._spacing and cursor.can_copy:
                self._checkpoints.append(cursor.copy())
                if len(self._checkpoints) > CHECKPOINTS:
                    del self._checkpoints[::2]
                    self._spacing *= 2
            more = cursor.read(count)
            if more is None:
                break
            if more:
                found.append(more)
                count -= len(more)
            if cursor.work > self._spent:
                self._budget.inflate(cursor.work - self._spent)
                self._spent = cursor.work
        return found[0] if len(found) == 1 else b"".join(found)


class _Cursor(Protocol):
    """A decompressor.

    Attributes:
        position: its offset in the decompressed data.
        work: bytes that it decompressed, and what beginning each member or frame counts for.
    """

    position: int
    work: int

    @property
    def can_copy(self) -> bool: ...

    def read(self, count: int) -> bytes | None:
        """Go one step further and return at most `count` bytes, possibly none; None only at the
        end. Raises BrokenArchive."""

    def copy(self) -> _Cursor:
        """Return a decompressor at the same position; only if `can_copy` is True."""


class _Input:
    """The compressed bytes of a source, in pieces that grow from the beginning of each member."""

    def __init__(self, source: Source, offset: int = 0) -> None:
        self._source = source
        self._data = memoryview(b"")
        self._at = 0
        self._data_end = offset
        self._piece = _FIRST_INPUT

    @property
    def offset(self) -> int:
        """Return the offset of the next byte in the source."""
        return self._data_end - len(self._data) + self._at

    def begin(self) -> None:
        """Go on with small pieces: a member or frame begins here."""
        self._piece = _FIRST_INPUT

    def next(self) -> memoryview:
        """Return the next bytes; none only at the end."""
        if self._at == len(self._data):
            data = self._source.pread(self._data_end, _INPUT)
            self._data_end += len(data)
            self._data, self._at = memoryview(data), 0
        found = self._data[self._at : self._at + self._piece]
        self._at += len(found)
        self._piece = min(2 * self._piece, _INPUT)
        return found

    def back(self, count: int) -> None:
        """Return to a place in the bytes that came last."""
        self._at -= count


class _Gzip:
    """gzip: https://datatracker.ietf.org/doc/html/rfc1952, of one or more members."""

    can_copy = True

    def __init__(self, source: Source, offset: int = 0) -> None:
        self._source = source
        self._input = _Input(source, offset)
        self._inflate: Any = None
        self.position = self.work = 0

    def read(self, count: int) -> bytes | None:
        from zlib_ng import zlib_ng  # most runs read nothing that is compressed

        data = self._input.next()
        if self._inflate is None:
            # Zeros behind a member are padding, as gzip(1) ignores it.
            if self.position and not bytes(data).strip(b"\0"):
                return b"" if data else None
            self._inflate = zlib_ng.decompressobj(zlib_ng.MAX_WBITS | 16)
            self.work += MEMBER_COST
        if not data:
            raise BrokenArchive("broke off: it is incomplete")
        try:
            found: bytes = self._inflate.decompress(data, count)
        except zlib_ng.error as error:  # type: ignore[misc]  # annotated as an object
            raise BrokenArchive(f"is damaged: its gzip data cannot be read ({error})") from None
        ended = self._inflate.eof
        left = self._inflate.unused_data if ended else self._inflate.unconsumed_tail
        self._input.back(len(left))
        if ended:
            self._inflate = None
            self._input.begin()
        self.position += len(found)
        self.work += len(found)
        return found

    def copy(self) -> _Gzip:
        # The rest of the input is read again: keeping it would take more memory than the state.
        other = _Gzip(self._source, self._input.offset)
        other._inflate = self._inflate and self._inflate.copy()
        other.position, other.work = self.position, self.work
        return other


class _Zstd:
    """zstd: https://datatracker.ietf.org/doc/html/rfc8878, of one or more frames."""

    def __init__(self, source: Source, offset: int = 0) -> None:
        self._source = source
        self._input = _Input(source, offset)
        self._inflate: Any = None
        self.position = self.work = 0

    @property
    def can_copy(self) -> bool:
        return self._inflate is None

    def read(self, count: int) -> bytes | None:
        zstd = _zstd()
        data = memoryview(b"")
        if self._inflate is None or self._inflate.needs_input:
            data = self._input.next()
            if not data:
                if self._inflate is None:
                    return None
                raise BrokenArchive("broke off: it is incomplete")
        try:
            if self._inflate is None:
                limit = {zstd.DecompressionParameter.window_log_max: WINDOW_LIMIT}
                self._inflate = zstd.ZstdDecompressor(options=limit)
                self.work += MEMBER_COST
            found: bytes = self._inflate.decompress(data, count)
        except zstd.ZstdError as error:
            raise BrokenArchive(f"is damaged: its zstd data cannot be read ({error})") from None
        if self._inflate.eof:
            self._input.back(len(self._inflate.unused_data))
            self._inflate = None
            self._input.begin()
        self.position += len(found)
        self.work += len(found)
        return found

    def copy(self) -> _Zstd:
        other = _Zstd(self._source, self._input.offset)
        other.position, other.work = self.position, self.work
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
