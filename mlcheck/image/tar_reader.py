"""Read an untrusted tar archive forward, member by member, in bounded memory; extract nothing.

Every tar archive of an image is read here: layers, archives of images, streams from engines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Self

from mlcheck.image.byte_sources import Part, Passing, Source
from mlcheck.image.tar_headers import BLOCK, BrokenArchive, Member, next_member

_WINDOW = 4096
"""Bytes that are read at a time around headers, which are as far apart as the files are large."""

_EMPTY = bytes(BLOCK)


class TarReader:
    """The members of an archive, one after another.

    Args:
        source: the archive, without compression.
        end_may_be_unmarked: True if the archive may end behind any member, as Go's archive/tar and
            GNU tar accept. In a stream that may break off, the end marker must be there.
        padding_may_be_missing: True if it may then end before the padding of its last content, as
            only Go's does; umoci 0.4.7 writes such layers, and all engines take them.

    Attributes:
        at: offset in the source of the next bytes; after `next`, of the member's content.

    Raises:
        BrokenArchive: from every method: the archive is damaged.
    """

    def __init__(
        self,
        source: Source,
        *,
        end_may_be_unmarked: bool = False,
        padding_may_be_missing: bool = False,
    ) -> None:
        self.at = 0
        self._source = source
        self._end_may_be_unmarked = end_may_be_unmarked
        self._padding_may_be_missing = padding_may_be_missing
        self._window = b""
        self._window_at = 0
        self._content_end = 0
        self._next_header = 0

    def next(self) -> Member | None:
        """Return the next member, however much of the current one was read; None at the
        archive's end.

        An incomplete current member is detected here.
        """
        self.at = self._next_header
        member = next_member(self._exactly)
        self._content_end = self.at + (member.size if member else 0)
        self._next_header = self._content_end + -self._content_end % BLOCK
        return member

    def peek(self, count: int) -> bytes:
        """Return at most `count` of the next bytes without advancing; fewer only at the end."""
        start = self.at - self._window_at
        data = self._window[start : start + count]
        if len(data) < count:
            self._window_at = self.at
            self._window = self._source.pread(self.at, max(count, _WINDOW))
            data = self._window[:count]
        return data

    def read(self, count: int) -> bytes:
        """Return at most `count` bytes of the current member's content; b"" at its end."""
        count = min(count, self._content_end - self.at)
        if count <= 0:
            return b""
        start = self.at - self._window_at
        data = self._window[start : start + count] or self._source.pread(self.at, count)
        if not data:
            raise _broke_off()
        self.at += len(data)
        return data

    def content(self) -> Part:
        """Return the current member's content, before any of it is read."""
        return Part(self._source, self.at, self._content_end - self.at)

    def read_to_end(self) -> int:
        """Read the rest, which includes the checksum of compressed data; return the total
        of bytes."""
        while more := len(self._source.pread(self.at, 1024 * 1024)):
            self.at += more
        return self.at

    def _exactly(self, count: int) -> bytes:
        data = self.peek(count)
        if len(data) < count:
            whole = not data and self.at == self._next_header
            end = self._content_end if self._padding_may_be_missing else self.at
            if self._end_may_be_unmarked and whole and (not end or self._is_there(end - 1)):
                return _EMPTY
            raise _broke_off()
        self.at += count
        return data

    def _is_there(self, offset: int) -> bool:
        return bool(self._source.pread(offset, 1))


class TarStream(TarReader):
    """The members of an archive that arrives piece by piece.

    Args:
        pieces: the archive; closed with the stream if it can be.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__(Passing(pieces))
        self._pieces = pieces

    def is_empty(self) -> bool:
        """Return whether there is not a single byte, not even an end marker."""
        return not self._is_there(0)

    def close(self) -> None:
        """Close the stream at its source."""
        with contextlib.suppress(AttributeError):
            self._pieces.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _broke_off() -> BrokenArchive:
    return BrokenArchive("broke off: it is incomplete")
