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
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.packages.facts import InstalledPackage
from mlcheck.model.errors import ProbeError

SIZE_LIMIT = 512 * 1024 * 1024
"""Bytes of a database; EL 9 with a desktop has about 50 MB."""

TIME_LIMIT_S = 30.0
"""Seconds of work in SQLite."""

PACKAGE_LIMIT = 100_000

_HEADER_LIMIT = 64 * 1024 * 1024
_TEXT_LIMIT = 4096
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
    content = rootfs.read(path, SIZE_LIMIT)
    # Changes that were not yet written back lie in the log.
    log = f"{path}-wal"
    if (found := rootfs.resolve(log).file) is not None and found.size:
        with tempfile.TemporaryDirectory(prefix="mlcheck-rpm-") as directory:
            copy = Path(directory, "rpmdb.sqlite")
            _write(content, copy, path)
            _write(rootfs.read(log, SIZE_LIMIT), Path(directory, "rpmdb.sqlite-wal"), log)
            return _packages(sqlite3.connect(copy), path)
    connection = sqlite3.connect(":memory:")
    try:
        # In memory there is no log: https://www.sqlite.org/c3ref/deserialize.html
        if content:
            connection.deserialize(_without_log(content))
    except (sqlite3.Error, OverflowError) as error:
        connection.close()
        raise Unreadable(path, f"cannot be read as an SQLite database: {error}") from None
    return _packages(connection, path)


def owned(rootfs: RootFS, path: str, files: Sequence[str]) -> frozenset[str]:
    """Return those of some files that the database `path` has as files of a package.

    Raises:
        Unreadable: it is no rpm database, is damaged, or takes too long to read.
        ProbeError: this machine forbids reading it.
    """
    connection = sqlite3.connect(":memory:")
    found: set[str] = set()
    try:
        with contextlib.closing(connection):
            connection.deserialize(_without_log(rootfs.read(path, SIZE_LIMIT)))
            for blob in _blobs(connection, path):
                # Directories and names are two lists of texts in a header.
                found |= {
                    file
                    for file in files
                    for directory, _, name in [file.encode("utf-8", "replace").rpartition(b"/")]
                    if b"\0" + name + b"\0" in blob and b"\0" + directory + b"/\0" in blob
                }
    except (sqlite3.Error, OverflowError) as error:
        raise Unreadable(path, f"cannot be read as an SQLite database: {error}") from None
    return frozenset(found)


def _without_log(content: bytes) -> bytes:
    """Turn the database into one without a write-ahead log: bytes 18 and 19 of
    https://www.sqlite.org/fileformat.html#the_database_header."""
    return content[:18] + b"\1\1" + content[20:] if content[18:20] == b"\2\2" else content


def _packages(connection: sqlite3.Connection, path: str) -> list[InstalledPackage]:
    try:
        with contextlib.closing(connection):
            return [_package(blob, path) for blob in _blobs(connection, path)]
    except sqlite3.Error as error:
        raise Unreadable(path, f"cannot be read as an SQLite database: {error}") from None


def _write(content: bytes, target: Path, path: str) -> None:
    try:
        target.write_bytes(content)
    except OSError as error:
        raise ProbeError(
            f"{path}: cannot be copied to {target.parent}, where it is to be read: "
            f"{error.strerror}.",
            "Set TMPDIR to a directory with enough space.",
        ) from error


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
