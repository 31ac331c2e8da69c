"""/etc/ld.so.cache, as ldconfig(8) writes it.

The layout is that of glibc's `sysdeps/generic/dl-cache.h`: since 2.32 the new format alone, before
(CentOS 7) an old table with the new one behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from mlcheck.image.api import RootFS, Unreadable

PATH = "/etc/ld.so.cache"
SIZE_LIMIT = 1024 * 1024
"""Bytes; a full desktop's has a tenth of a megabyte."""

_OLD_MAGIC = b"ld.so-1.7.0"
_OLD_HEADER = 16
_OLD_ENTRY = 12
_NEW_MAGIC = b"glibc-ld.so.cache1.1"
_NEW_HEADER = struct.Struct("=20sII20x")
_NEW_ENTRY = struct.Struct("=iIIIQ")
_NAME_LIMIT = 4096


def read(rootfs: RootFS) -> Mapping[str, tuple[str, ...]]:
    """Read the cache: soname to paths, those for every CPU before those for some (hwcap).

    Returns an empty mapping if the image has no cache.

    Raises:
        Unreadable: it is not a cache, or refers to missing data.
        ProbeError: this machine forbids reading it.
    """
    if rootfs.resolve(PATH).file is None:
        return {}
    data = rootfs.read(PATH, SIZE_LIMIT)
    start = 0
    if data.startswith(_OLD_MAGIC) and len(data) >= _OLD_HEADER:
        (count,) = struct.unpack_from("=I", data, _OLD_HEADER - 4)
        # The new table begins at the next multiple of eight bytes.
        start = -(-(_OLD_HEADER + count * _OLD_ENTRY) // 8) * 8
    if data[start : start + len(_NEW_MAGIC)] != _NEW_MAGIC:
        raise Unreadable(PATH, "is no cache of glibc's loader in a format that mlcheck knows")
    try:
        _, count, _ = _NEW_HEADER.unpack_from(data, start)
        table = start + _NEW_HEADER.size
        found: dict[str, list[tuple[bool, str]]] = {}
        for index in range(count):
            _, key, value, isa, hwcap = _NEW_ENTRY.unpack_from(
                data, table + index * _NEW_ENTRY.size
            )
            path = _text(data, start + value)
            found.setdefault(_text(data, start + key), []).append((bool(isa or hwcap), path))
    except (struct.error, ValueError):
        raise Unreadable(PATH, "is damaged: an entry refers to what is not in it") from None
    return {
        soname: tuple(path for _, path in sorted(paths, key=lambda entry: entry[0]))
        for soname, paths in found.items()
    }


def _text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + _NAME_LIMIT)
    if end < 0:
        raise ValueError("no end of string")
    return data[at:end].decode("utf-8", "surrogateescape")
