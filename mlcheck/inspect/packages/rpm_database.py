"""The rpm database of an image, read without rpm.

Fedora and EL 9 keep it in SQLite: one row per package, holding the package's header. Tags and
layout are those of rpm's `rpmtag.h` and "RPM v4 header format" (docs/manual/hregions and format_v4
of rpm.org). The file comes from the image and may be hostile: it is opened as a private copy,
with SQLite's own defences for such files (https://www.sqlite.org/security.html).
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import opened
from mlcheck.inspect.packages.facts import InstalledPackage
from mlcheck.machine import janitor
from mlcheck.model.errors import ProbeError
from mlcheck.model.units import binary

SIZE_LIMIT = 512 * 1024 * 1024
"""Bytes of a database with its log; EL 9 with a desktop has about 50 MB."""

TIME_LIMIT_S = 30.0
"""Seconds of work in SQLite."""

PACKAGE_LIMIT = 100_000

_HEADER_LIMIT = 64 * 1024 * 1024
_TEXT_LIMIT = 512
"""Bytes of a name or version; all of them together name a file, in 255 bytes."""

_CHUNK = 1024 * 1024
_TABLE = re.compile(
    r"""CREATE TABLE ['"]?Packages['"]? \(hnum INTEGER PRIMARY KEY AUTOINCREMENT, ?"""
    r"""blob BLOB NOT NULL\)"""
)
_NAME, _VERSION, _RELEASE, _ARCH = 1000, 1001, 1002, 1022
_STRING = 6
_INTRO = struct.Struct(">II")
_ENTRY = struct.Struct(">IIII")


def read_sqlite(rootfs: RootFS, path: str) -> list[InstalledPackage]:
    """Read every package in the image's `rpmdb.sqlite`.

    Raises:
        Unreadable: it is no rpm database, is damaged, or takes too long to read.
        ProbeError: this machine forbids reading it.
    """
    with _opened(rootfs, path) as connection:
        return [_package(blob, path) for blob in _blobs(connection, path)]


def owned(rootfs: RootFS, path: str, files: Sequence[str]) -> frozenset[str]:
    """Return those of some files that the database `path` has as files of a package.

    Raises:
        Unreadable: it is no rpm database, is damaged, or takes too long to read.
        ProbeError: this machine forbids reading it.
    """
    found: set[str] = set()
    with _opened(rootfs, path) as connection:
        for blob in _blobs(connection, path):
            # Directories and names are two lists of texts in a header.
            found |= {
                file
                for file in files
                for directory, _, name in [file.encode("utf-8", "replace").rpartition(b"/")]
                if b"\0" + name + b"\0" in blob and b"\0" + directory + b"/\0" in blob
            }
    return frozenset(found)


@contextlib.contextmanager
def _opened(rootfs: RootFS, path: str) -> Iterator[sqlite3.Connection]:
    """Open a private copy of a database.

    Raises:
        Unreadable: SQLite cannot read it; also for errors in the body.
    """
    log = f"{path}-wal"
    with janitor.temporary_directory("mlcheck-rpm-") as directory:
        copy = directory / "rpmdb.sqlite"
        size = _copy(rootfs, path, copy, SIZE_LIMIT)
        if (found := rootfs.resolve(log).file) is not None and found.size:
            # Changes that were not yet written back lie in the log.
            _copy(rootfs, log, directory / "rpmdb.sqlite-wal", SIZE_LIMIT - size)
        else:
            _forget_log(copy)
        try:
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                yield connection
        # SQLite's own message may quote what is not UTF-8.
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise Unreadable(path, f"cannot be read as an SQLite database: {error}") from None


def _copy(rootfs: RootFS, path: str, target: Path, limit: int) -> int:
    """Copy a file of the image, with holes for zeros, and return its size."""
    with opened(rootfs, path) as content, _writing(path, target) as file:
        size = 0
        while chunk := content.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise Unreadable(path, f"is larger than {binary(limit)}")
            if chunk.strip(b"\0"):
                file.seek(size - len(chunk))
                file.write(chunk)
        file.truncate(size)
    return size


@contextlib.contextmanager
def _writing(path: str, target: Path) -> Iterator[BinaryIO]:
    try:
        with target.open("xb") as file:
            yield file
    except OSError as error:
        raise ProbeError(
            f"{path}: cannot be copied to {target.parent}, where it is to be read: "
            f"{error.strerror}.",
            "Set TMPDIR to a directory with enough space.",
        ) from error


def _forget_log(copy: Path) -> None:
    """Turn the database into one without a write-ahead log: bytes 18 and 19 of
    https://www.sqlite.org/fileformat.html#the_database_header."""
    with copy.open("r+b") as file:
        file.seek(18)
        if file.read(2) == b"\2\2":
            file.seek(18)
            file.write(b"\1\1")


def _blobs(connection: sqlite3.Connection, path: str) -> Iterator[bytes]:
    deadline = time.monotonic() + TIME_LIMIT_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _HEADER_LIMIT)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
        connection.execute(f"PRAGMA {pragma}")
    shape = connection.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'Packages' AND type = 'table'"
    ).fetchone()
    # A view or a virtual table of this name would run code of the image's choice.
    if shape is None or not isinstance(shape[0], str) or not _TABLE.fullmatch(shape[0]):
        raise Unreadable(path, "has no table Packages as rpm makes it")
    for count, (blob,) in enumerate(connection.execute("SELECT blob FROM Packages")):
        if not isinstance(blob, bytes):
            raise Unreadable(path, "holds a package header that is no blob")
        if count == PACKAGE_LIMIT:
            raise Unreadable(path, f"holds more than {PACKAGE_LIMIT} packages")
        yield blob


def _package(blob: bytes, path: str) -> InstalledPackage:
    tags = _strings(blob, path)
    name, version, release = (tags.get(tag, "") for tag in (_NAME, _VERSION, _RELEASE))
    if not (name and version and release):
        raise Unreadable(path, f"holds a package without name, version or release ({name!r})")
    return InstalledPackage(name, f"{version}-{release}", "rpm", path, tags.get(_ARCH, ""))


def _strings(blob: bytes, path: str) -> dict[int, str]:
    """Return the requested tags of type string, from one header."""
    try:
        entries, size = _INTRO.unpack_from(blob)
        store = _INTRO.size + entries * _ENTRY.size
        if store + size != len(blob):
            raise ValueError("its length is not what it says")
        found: dict[int, str] = {}
        for index in range(entries):
            tag, kind, offset, _ = _ENTRY.unpack_from(blob, _INTRO.size + index * _ENTRY.size)
            if kind == _STRING and tag in (_NAME, _VERSION, _RELEASE, _ARCH):
                start = store + offset
                end = blob.index(b"\0", start, start + _TEXT_LIMIT)
                found[tag] = blob[start:end].decode("utf-8", "replace")
    except (struct.error, ValueError) as error:
        raise Unreadable(path, f"holds a damaged package header: {error}") from None
    return found
