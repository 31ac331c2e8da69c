"""A file of an image of known size, seekable and unbuffered, whose bytes come from elsewhere."""

from __future__ import annotations

import io
import os


class SizedFile(io.RawIOBase):
    """A base class. Subclasses implement reading: from `_at` on, which they advance.

    Args:
        size: bytes.
        start: its first bytes, as far as they are known.
    """

    def __init__(self, size: int, start: bytes) -> None:
        self._size = size
        self._start = start
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError("negative seek position")
        self._at = at
        return at
