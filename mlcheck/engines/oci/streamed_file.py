"""A regular file of an image, seekable, whose content comes from its engine as it is read.

Reading raises EngineError when the engine fails, OSError when this machine's temporary
directory is full.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from mlcheck.image.sized_file import SizedFile
from mlcheck.image.tar_headers import BrokenArchive
from mlcheck.image.tar_reader import TarStream
from mlcheck.model.errors import EngineError

IN_MEMORY = 1024 * 1024
"""Bytes of one opened file up to which it needs no temporary file."""

_CHUNK = 1024 * 1024


class StreamedFile(SizedFile):
    """See above.

    Args:
        size: bytes of the file.
        start: its first bytes, as far as they are known.
        fetch: returns a stream positioned at its content.
    """

    def __init__(self, size: int, start: bytes, fetch: Callable[[], TarStream]) -> None:
        super().__init__(size, start)
        self._fetch = fetch
        self._stream: TarStream | None = None
        self._fetched = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - see close()
        self._count = 0

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        end = min(self._at + min(len(buffer), _CHUNK), self._size)
        if end <= self._at:
            return 0
        if self._at < len(self._start):
            data = self._start[self._at : end]
        else:
            self._fetch_to(end)
            self._fetched.seek(self._at)
            data = self._fetched.read(end - self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch_to(self, end: int) -> None:
        if self._stream is None:
            self._stream = self._fetch()
        self._fetched.seek(self._count)
        while self._count < end:
            try:
                data = self._stream.read(min(_CHUNK, end - self._count))
            except BrokenArchive as error:
                raise EngineError(f"The engine's archive {error}.") from error
            if not data:
                raise EngineError("The engine's archive holds less of a file than before.")
            self._fetched.write(data)
            self._count += len(data)

    def close(self) -> None:
        if not self.closed:
            self._fetched.close()
            if self._stream is not None:
                self._stream.close()
        super().close()
