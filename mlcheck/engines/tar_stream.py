"""Read an untrusted tar stream forward, member by member, in bounded memory.

The standard library parses the headers. It would read a header of any length into memory, take
a broken header for the end, and go back for a negative size: the stream that it is given here
refuses all three. Nothing is extracted.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Literal, Self, cast

from mlcheck.facts import FileType

HEADER_LIMIT = 1024 * 1024
"""Bytes of all headers of one member: names and extended attributes, of 64 KiB at most each."""

_TYPES: dict[bytes, FileType | Literal["hard link"]] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symlink",
    tarfile.DIRTYPE: "directory",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
}


class BrokenArchive(Exception):  # noqa: N818 - words that follow "the archive"
    """The stream is no intact archive."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member as its header describes it; `name` and `target` are untrusted."""

    name: str
    type: FileType | Literal["hard link"]
    mode: int
    uid: int
    gid: int
    size: int
    target: str | None


class TarStream:
    """The members of a tar stream.

    Raises:
        BrokenArchive: from `next` and `read`; its text follows "the archive".
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._source = _Forward(chunks)
        # Made over an empty archive, because the constructor reads the first member.
        self._tar = tarfile.TarFile(fileobj=io.BytesIO(bytes(1024)), errors="surrogateescape")
        self._tar.encoding = "utf-8"
        self._tar.fileobj = cast(IO[bytes], self._source)
        self._tar.offset = 0
        self._left = 0

    def next(self) -> Member | None:
        """The next member, whatever was read of the one before; None at the end."""
        self._source.seek(self._tar.offset)
        self._source.budget = HEADER_LIMIT
        if not self._source.peek(tarfile.BLOCKSIZE).strip(b"\0"):
            return None
        try:
            found = tarfile.TarInfo.fromtarfile(self._tar)
        except (tarfile.TarError, ValueError, RecursionError) as error:
            raise BrokenArchive("has a broken header") from error
        kind = _TYPES.get(found.type)
        if kind is None or found.issparse() or found.size < 0:
            raise BrokenArchive("holds something that is no file")
        linked = kind in ("symlink", "hard link")
        self._left = found.size if kind == "file" else 0
        return Member(
            name=found.name,
            type=kind,
            mode=found.mode & 0o7777,
            uid=found.uid,
            gid=found.gid,
            size=self._left,
            target=found.linkname if linked else None,
        )

    def read(self, count: int) -> bytes:
        """At most `count` bytes of the current member's content; b"" at its end."""
        data = self._source.take(min(count, self._left)) if self._left else b""
        if self._left and count and not data:
            raise BrokenArchive("broke off")
        self._left -= len(data)
        return data

    def close(self) -> None:
        """End the stream at its source."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Forward:
    """Chunks as a file that can only go forward."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._iterator = iter(chunks)
        self._buffer = memoryview(b"")
        self._position = 0
        self.budget = HEADER_LIMIT

    def take(self, count: int) -> bytes:
        while not self._buffer:
            chunk = next(self._iterator, None)
            if chunk is None:
                return b""
            self._buffer = memoryview(chunk)
        data = bytes(self._buffer[:count])
        self._buffer = self._buffer[count:]
        self._position += len(data)
        return data

    def read(self, count: int) -> bytes:
        """Bytes of a header."""
        self.budget -= count
        if count < 0 or self.budget < 0:
            raise BrokenArchive(f"has a header of more than {HEADER_LIMIT} bytes")
        data = bytearray()
        while len(data) < count and (more := self.take(count - len(data))):
            data += more
        return bytes(data)

    def peek(self, count: int) -> bytes:
        while len(self._buffer) < count:
            chunk = next(self._iterator, None)
            if chunk is None:
                raise BrokenArchive("broke off")
            self._buffer = memoryview(bytes(self._buffer) + chunk)
        return bytes(self._buffer[:count])

    def seek(self, position: int) -> int:
        if position < self._position:
            raise BrokenArchive("has a header that leads back")
        while self._position < position:
            if not self.take(position - self._position):
                raise BrokenArchive("broke off")
        return position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._iterator = iter(())
        self._buffer = memoryview(b"")
        with contextlib.suppress(AttributeError):
            self._chunks.close()  # type: ignore[attr-defined]
