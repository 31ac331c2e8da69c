"""An rpm database with a few packages, in the format of rpm 4.16 and later (rpmdb.sqlite).

Source: rpm's manual, "RPM v4 header format" and "The sqlite database"; `rpm -qa` reads it.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_STRING, _INT32, _BIN, _STRING_ARRAY, _I18N = 6, 4, 7, 8, 9
_IMMUTABLE, _SHA1 = 63, 269

_INDEXES = {
    "Name": "TEXT",
    "Basenames": "TEXT",
    "Group": "TEXT",
    "Requirename": "TEXT",
    "Providename": "TEXT",
    "Conflictname": "TEXT",
    "Obsoletename": "TEXT",
    "Triggername": "TEXT",
    "Dirnames": "TEXT",
    "Installtid": "BLOB",
    "Sigmd5": "BLOB",
    "Sha1header": "TEXT",
    "Filetriggername": "TEXT",
    "Transfiletriggername": "TEXT",
    "Recommendname": "TEXT",
    "Suggestname": "TEXT",
    "Supplementname": "TEXT",
    "Enhancename": "TEXT",
}


@dataclass(frozen=True, slots=True)
class RpmPackage:
    """One package to record; `files` are absolute paths in the image."""

    name: str
    version: str
    release: str
    summary: str
    license: str
    arch: str = "x86_64"
    files: tuple[str, ...] = ()


def write(database: Path, packages: list[RpmPackage], install_time: int) -> None:
    """Create the database file; `install_time` in seconds since 1970."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)"
        )
        for table, kind in _INDEXES.items():
            connection.execute(
                f"CREATE TABLE '{table}' (key '{kind}' NOT NULL, hnum INTEGER NOT NULL, "
                "idx INTEGER NOT NULL, FOREIGN KEY (hnum) REFERENCES 'Packages'(hnum))"
            )
            connection.execute(f"CREATE INDEX '{table}_key_idx' ON '{table}'(key ASC)")
        for number, package in enumerate(packages, start=1):
            blob, digest = _header(package, install_time)
            connection.execute("INSERT INTO Packages VALUES (?, ?)", (number, blob))
            keys = [
                ("Name", package.name, 0),
                ("Providename", package.name, 0),
                ("Group", "Unspecified", 0),
                ("Sha1header", digest, 0),
                ("Installtid", struct.pack("<I", install_time), 0),
            ]
            for index, file in enumerate(package.files):
                keys.append(("Basenames", file.rpartition("/")[2], index))
            for index, directory in enumerate(_directories(package)):
                keys.append(("Dirnames", directory, index))
            for table, key, index in keys:
                # The table is one of the names above; the values are bound.
                connection.execute(f"INSERT INTO '{table}' VALUES (?, ?, ?)", (key, number, index))  # noqa: S608


def _header(package: RpmPackage, install_time: int) -> tuple[bytes, str]:
    """Return the header as the database stores it, and the SHA-1 of its immutable region."""
    directories = _directories(package)
    tags: dict[int, tuple[int, object]] = {
        1000: (_STRING, package.name),
        1001: (_STRING, package.version),
        1002: (_STRING, package.release),
        1004: (_I18N, [package.summary]),
        1005: (_I18N, [package.summary]),
        1006: (_INT32, [install_time]),
        1009: (_INT32, [0]),
        1014: (_STRING, package.license),
        1016: (_I18N, ["Unspecified"]),
        1021: (_STRING, "linux"),
        1022: (_STRING, package.arch),
        1044: (_STRING, f"{package.name}-{package.version}-{package.release}.src.rpm"),
        1047: (_STRING_ARRAY, [package.name]),
        1112: (_INT32, [8]),
        1113: (_STRING_ARRAY, [f"{package.version}-{package.release}"]),
        1124: (_STRING, "cpio"),
        1125: (_STRING, "gzip"),
    }
    if package.files:
        tags[1116] = (_INT32, [directories.index(_directory(file)) for file in package.files])
        tags[1117] = (_STRING_ARRAY, [file.rpartition("/")[2] for file in package.files])
        tags[1118] = (_STRING_ARRAY, directories)
    immutable = _pack(tags)
    digest = hashlib.sha1(_MAGIC + immutable, usedforsecurity=False).hexdigest()
    # Tags added at installation follow the immutable region, unsigned.
    added: dict[int, tuple[int, object]] = {
        _SHA1: (_STRING, digest),
        1008: (_INT32, [install_time]),
        1128: (_INT32, [install_time]),
    }
    return _pack(tags, added), digest


_MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"


def _pack(
    region: Mapping[int, tuple[int, object]], dribbles: Mapping[int, tuple[int, object]] = {}
) -> bytes:
    """Pack a header: an immutable region, then entries added later ("dribbles")."""
    index, data = b"", b""
    for tag, (kind, value) in sorted(region.items()):
        entry, data = _entry(tag, kind, value, data)
        index += entry
    count = len(region) + 1
    trailer = struct.pack(">iIii", _IMMUTABLE, _BIN, -count * 16, 16)
    index = struct.pack(">IIiI", _IMMUTABLE, _BIN, len(data), 16) + index
    data += trailer
    for tag, (kind, value) in sorted(dribbles.items()):
        entry, data = _entry(tag, kind, value, data)
        index += entry
    return struct.pack(">II", len(index) // 16, len(data)) + index + data


def _entry(tag: int, kind: int, value: object, data: bytes) -> tuple[bytes, bytes]:
    if kind == _INT32:
        assert isinstance(value, list)
        data += b"\0" * (-len(data) % 4)
        packed, count = struct.pack(f">{len(value)}I", *value), len(value)
    else:
        texts = value if isinstance(value, list) else [value]
        packed, count = b"".join(str(text).encode() + b"\0" for text in texts), len(texts)
    return struct.pack(">IIII", tag, kind, len(data), count), data + packed


def _directory(file: str) -> str:
    return file.rpartition("/")[0] + "/"


def _directories(package: RpmPackage) -> list[str]:
    return sorted({_directory(file) for file in package.files})
