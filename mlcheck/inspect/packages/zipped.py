"""Zip files on sys.path, such as the `.egg` that easy_install left: `importlib.metadata` looks into
them as into directories (`FastPath` in https://github.com/python/importlib_metadata)."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from typing import Protocol

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.model.files import File, ResolvedFile

ZIP_LIMIT = 32 * 1024 * 1024
MEMBERS_LIMIT = 100_000

_MEMBER = b"PK\x01\x02"
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(RuntimeError, ValueError),  # encrypted; of another Zip than Python reads
)


class Files(Protocol):
    """A directory of sys.path, as far as it is asked; see `RootFS`."""

    def listdir(self, path: str) -> list[str]: ...

    def resolve(self, path: str) -> ResolvedFile: ...

    def read(self, path: str, limit: int) -> bytes: ...


class Zipped:
    """The files in a zip file, as if it were a directory; what is no zip file is an empty one.

    Args:
        path: of the file in the image.

    Raises:
        Unreadable: it is too large.
        ProbeError: this machine forbids reading it.
    """

    def __init__(self, rootfs: RootFS, path: str) -> None:
        content = rootfs.read(path, ZIP_LIMIT)
        if content.count(_MEMBER) > MEMBERS_LIMIT:
            raise Unreadable(path, f"has more than {MEMBERS_LIMIT} members")
        self._path = path
        self._sizes: dict[str, int] = {}
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
            self._sizes = {info.filename: info.file_size for info in self._zip.infolist()}
        except _BROKEN:
            return

    def listdir(self, path: str) -> list[str]:
        """Return the names at the top; no other directory is asked."""
        return sorted(
            {name.partition("/")[0] for name in self._sizes} if path == self._path else ()
        )

    def resolve(self, path: str) -> ResolvedFile:
        """Return a regular file, or nothing."""
        size = self._sizes.get(self._member(path))
        if size is None:
            return ResolvedFile(path, None, None, path, "is missing")
        file = File(path, "file", 0o644, 0, 0, size, None, (0, 0))
        return ResolvedFile(path, file, file, path)

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a member.

        Raises:
            Unreadable: there is none, it is too large, or damaged.
        """
        name = self._member(path)
        if name not in self._sizes:
            raise Unreadable(path, "does not exist in the image")
        try:
            with self._zip.open(name) as member:
                content = member.read(limit + 1)
        except _BROKEN as error:
            raise Unreadable(path, f"is damaged: {error}") from error
        if len(content) > limit:
            raise Unreadable(path, f"is larger than {limit} bytes")
        return content

    def _member(self, path: str) -> str:
        return path.removeprefix(f"{self._path}/")
