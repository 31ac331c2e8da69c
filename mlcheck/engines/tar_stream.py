"""Read an untrusted tar stream forward, member by member, in bounded memory; extract nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Self

from mlcheck.engines.tar_headers import BLOCK, BrokenArchive, Member, next_member

__all__ = ["BrokenArchive", "Member", "TarStream"]


class TarStream:
    """The members of a tar stream.

    Raises:
        BrokenArchive: from `next` and `read`; its text follows "the archive".
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._iterator = iter(chunks)
        self._buffer = memoryview(b"")
        self._left = 0
        self._padding = 0

    def is_empty(self) -> bool:
        """Whether it ends here, be it without the mark of an archive's end."""
        self._take(0)
        return not self._buffer

    def next(self) -> Member | None:
        """The next member, whatever was read of the one before; None at the end."""
        self._skip(self._left + self._padding)
        member = next_member(self._exactly)
        self._left = member.size if member else 0
        self._padding = -self._left % BLOCK
        return member

    def read(self, count: int) -> bytes:
        """At most `count` bytes of the current member's content; b"" at its end."""
        data = self._take(min(count, self._left)) if self._left else b""
        if self._left and count and not data:
            raise BrokenArchive("broke off")
        self._left -= len(data)
        return data

    def _take(self, count: int) -> bytes:
        """At most `count` bytes; b"" at the stream's end."""
        while not self._buffer:
            chunk = next(self._iterator, None)
            if chunk is None:
                return b""
            self._buffer = memoryview(chunk)
        data = bytes(self._buffer[:count])
        self._buffer = self._buffer[count:]
        return data

    def _exactly(self, count: int) -> bytes:
        data = self._take(count)
        while len(data) < count:
            more = self._take(count - len(data))
            if not more:
                raise BrokenArchive("broke off")
            data += more
        return data

    def _skip(self, count: int) -> None:
        while count:
            skipped = len(self._take(count))
            if not skipped:
                raise BrokenArchive("broke off")
            count -= skipped

    def close(self) -> None:
        """End the stream at its source."""
        self._iterator = iter(())
        self._buffer = memoryview(b"")
        with contextlib.suppress(AttributeError):
            self._chunks.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
