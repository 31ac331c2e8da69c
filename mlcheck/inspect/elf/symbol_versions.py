"""Symbol versions of an ELF file (Linux Standard Base, "Symbol Versioning"; `elf/dl-version.c`)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

LIMIT = 10_000
"""Versions of one file; glibc's own has 50."""

_BLOCK = 4096
_WEAK = 2


class Versions(NamedTuple):
    """Versions by which the loader compares a program with its libraries.

    Args:
        needed: (name of a library, version) of each that the loader insists on.
        defined: those of the file itself, or None if it has none, which fits every need.
    """

    needed: tuple[tuple[bytes, bytes], ...]
    defined: tuple[bytes, ...] | None


NONE = Versions((), None)


def read(
    read_at: Callable[[int, int], bytes],
    order: str,
    needs: int | None,
    definitions: int | None,
    text: Callable[[int], bytes],
) -> Versions:
    """Read both tables, which begin at these offsets in the file.

    Args:
        read_at: (offset, count) -> bytes of the file.
        order: byte order, as in `struct`.
        text: offset in the string table -> name.

    Raises:
        ValueError: a table leaves the file, or has no end.
    """
    needed: list[tuple[bytes, bytes]] = []
    if needs is not None:
        table = _Table(read_at, needs)
        form, entry = struct.Struct(f"{order}HHIII"), struct.Struct(f"{order}IHHII")
        for at, (_, _, file, first, _) in table.chain(form, 0):
            for _, (_, flags, _, name, _) in table.chain(entry, at + first):
                if not flags & _WEAK:
                    needed.append((text(file), text(name)))
    if definitions is None:
        return Versions(tuple(needed), None)
    table = _Table(read_at, definitions)
    form, entry = struct.Struct(f"{order}HHHHIII"), struct.Struct(f"{order}II")
    defined = [
        text(entry.unpack(table.read(at + fields[5], entry.size))[0])
        for at, fields in table.chain(form, 0)
    ]
    return Versions(tuple(needed), tuple(defined))


class _Table:
    """A table of versions: records, each of which says how far the next one is."""

    def __init__(self, read_at: Callable[[int, int], bytes], start: int) -> None:
        self._read_at = read_at
        self._start = start
        self._block = read_at(start, _BLOCK)
        self._records = 0

    def read(self, at: int, count: int) -> bytes:
        if at + count <= len(self._block):
            return self._block[at : at + count]
        found = self._read_at(self._start + at, count)
        if len(found) < count:
            raise ValueError("has a table of symbol versions outside the file")
        return found

    def chain(self, form: struct.Struct, at: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return the records from `at` on with their places; the last field leads to the next."""
        found = []
        while True:
            self._records += 1
            if self._records > LIMIT:
                raise ValueError(f"has more than {LIMIT} symbol versions")
            fields = form.unpack(self.read(at, form.size))
            found.append((at, fields))
            if not fields[-1]:
                return found
            at += fields[-1]
