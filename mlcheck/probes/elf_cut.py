"""Cut out of an ELF file what a dynamic loader reads: its headers and its dynamic section's names.

lief copies the whole of a file that it parses, and a library of TensorFlow has 1 GB. So it is
given a small ELF file of the same class, byte order, machine and type whose dynamic section says
the same. What a file must be for a loader to read it (gabi, "Program Loading and Dynamic
Linking", https://gabi.xinuos.com/) is judged here, where its real size and offsets are known.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from mlcheck.engines.base import Unreadable

MAGIC = b"\x7fELF"

HEAD = 4096
"""Bytes of a file's beginning, read at once: the headers of nearly every file are in them."""

SEGMENT_LIMIT = 10_000
"""Program headers of one file, as in lief; real ones have 15."""

DYNAMIC_LIMIT = 1024 * 1024
"""Bytes of a dynamic section; the largest real ones have 2 KiB."""

NAME_LIMIT = 64 * 1024
"""Bytes of one name or search path in a dynamic section."""

NAMES_LIMIT = 990
"""Names in a dynamic section: lief stops after 1,000 entries, and would miss those behind."""

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_STRTAB, _DT_STRSZ = 0, 5, 10
_DT_NAMES = (1, 14, 15, 29)
"""DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH: their values are offsets of names."""


class _Segment(NamedTuple):
    """A program header, as far as it is needed."""

    type: int
    offset: int
    address: int
    size: int
    """Bytes in the file."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How one class and byte order lays out its structures (gabi, "Object Files")."""

    header: struct.Struct
    segment: struct.Struct
    entry: struct.Struct
    wide: bool

    def segments(self, table: bytes) -> list[_Segment]:
        found = []
        for fields in self.segment.iter_unpack(table):
            if self.wide:
                type_, _, offset, address, _, size, _, _ = fields
            else:
                type_, offset, address, _, size, _, _, _ = fields
            found.append(_Segment(type_, offset, address, size))
        return found

    def packed(self, type_: int, offset: int, address: int, size: int) -> bytes:
        """A program header; readable, in memory as in the file."""
        if self.wide:
            return self.segment.pack(type_, 4, offset, address, address, size, size, 8)
        return self.segment.pack(type_, offset, address, address, size, size, 4, 8)


def _form(order: str, *, wide: bool) -> _Form:
    word = "Q" if wide else "I"
    return _Form(
        header=struct.Struct(f"{order}16sHHI{word * 3}I6H"),
        segment=struct.Struct(f"{order}II6Q" if wide else f"{order}8I"),
        entry=struct.Struct(f"{order}qQ" if wide else f"{order}iI"),
        wide=wide,
    )


_FORMS = {
    (klass, data): _form(order, wide=klass == 2)
    for klass in (1, 2)
    for data, order in ((1, "<"), (2, ">"))
}


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of an ELF file.

    Args:
        small: an ELF file with the names of the dynamic section, if there is one.
        interpreter: PT_INTERP, up to the first NUL.
        dynamic: whether there is a dynamic section.
    """

    small: bytes
    interpreter: bytes | None
    dynamic: bool


def cut(content: BinaryIO, path: str, head: bytes | None = None) -> Cut:
    """Read the parts of one ELF file.

    Args:
        content: the file, seekable.
        path: how errors call it.
        head: its first HEAD bytes (all of a smaller file), if they are known.

    Raises:
        Unreadable: it is no ELF file, is truncated, or refers to what is not in it.
    """
    return _File(content, path, head).cut()


class _File:
    def __init__(self, content: BinaryIO, path: str, head: bytes | None) -> None:
        self._content = content
        self._path = path
        self._size = content.seek(0, 2)
        self._head = b""
        self._head = self._read(0, HEAD) if head is None else head

    def cut(self) -> Cut:
        head = self._head
        if not head.startswith(MAGIC):
            raise self._unreadable("is no ELF file" if self._size else "is empty")
        form = _FORMS.get((head[4], head[5])) if len(head) > 5 else None
        if form is None or len(head) < form.header.size:
            raise self._unreadable("has no valid ELF header")
        fields = form.header.unpack_from(head)
        segments = self._segments(form, start=fields[5], step=fields[9], count=fields[10])
        interpreter = None
        for segment in segments:
            if segment.type == _PT_INTERP and interpreter is None:
                interpreter = self._name(segment.offset, segment.size)
                if interpreter is None:
                    raise self._unreadable("names its interpreter without an end")
        dynamic = [segment for segment in segments if segment.type == _PT_DYNAMIC]
        if len(dynamic) > 1:
            raise self._unreadable("has more than one dynamic section")
        names = self._dynamic(form, segments, dynamic[0]) if dynamic else []
        return Cut(_small(form, fields, names), interpreter, bool(dynamic))

    def _segments(self, form: _Form, start: int, step: int, count: int) -> Sequence[_Segment]:
        if not count:
            return ()
        # A loader refuses headers of another size.
        sane = step == form.segment.size and count <= SEGMENT_LIMIT
        if not sane or start + count * step > self._size:
            raise self._unreadable("has program headers that cannot be read")
        segments = form.segments(self._read(start, count * step))
        for segment in segments:
            end = segment.offset + segment.size
            if segment.size and end > self._size:
                raise self._unreadable(
                    f"is truncated: {self._size} bytes instead of at least {end}"
                )
        return segments

    def _dynamic(
        self, form: _Form, segments: Sequence[_Segment], section: _Segment
    ) -> list[tuple[int, bytes]]:
        """The names in the dynamic section, each behind its tag."""
        if section.size > DYNAMIC_LIMIT:
            raise self._unreadable(f"has a dynamic section of {section.size} bytes")
        table: dict[int, int] = {}
        asked: list[tuple[int, int]] = []
        ended = False
        whole_entries = section.size // form.entry.size * form.entry.size
        for tag, value in form.entry.iter_unpack(self._read(section.offset, whole_entries)):
            if tag == _DT_NULL:
                ended = True
                break
            if tag in _DT_NAMES:
                asked.append((tag, value))
            elif tag in (_DT_STRTAB, _DT_STRSZ):
                table[tag] = value
        if not ended:
            raise self._unreadable("has a dynamic section without an end")
        if len(asked) > NAMES_LIMIT:
            raise self._unreadable(f"has {len(asked)} names for the loader")
        if _offset(segments, section.address) != section.offset:
            # Tools go by the offset, the loader by the address.
            raise self._unreadable("has a dynamic section that is loaded from elsewhere")
        return self._names(segments, table, asked)

    def _names(
        self, segments: Sequence[_Segment], table: dict[int, int], asked: list[tuple[int, int]]
    ) -> list[tuple[int, bytes]]:
        """The texts at the offsets of `asked` in the string table."""
        start, size = None, 0
        if _DT_STRTAB in table and _DT_STRSZ in table:
            start, size = _offset(segments, table[_DT_STRTAB]), table[_DT_STRSZ]
            if start is None or start + size > self._size:
                raise self._unreadable("has a dynamic string table outside the file")
        names = []
        for tag, offset in asked:
            name = None if start is None else self._name(start + offset, size - offset)
            if name is None:
                raise self._unreadable("has a name outside its dynamic string table")
            names.append((tag, name))
        return names

    def _name(self, start: int, limit: int) -> bytes | None:
        """The text at `start` up to a NUL; None: there is none within `limit` bytes."""
        name = b""
        while len(name) < limit:
            more = self._read(start + len(name), min(limit - len(name), 256 + len(name)))
            text, nul, _ = more.partition(b"\0")
            name += text
            if len(name) > NAME_LIMIT:
                raise self._unreadable(f"has a name of over {NAME_LIMIT} bytes for the loader")
            if nul:
                return name
            if not more:
                break
        return None

    def _read(self, start: int, count: int) -> bytes:
        """`count` bytes, or fewer at the end of the file: a read may give less at once."""
        if start + count <= len(self._head):
            return self._head[start : start + count]
        self._content.seek(start)
        found = b""
        while len(found) < count and (more := self._content.read(count - len(found))):
            found += more
        return found

    def _unreadable(self, what: str) -> Unreadable:
        return Unreadable(self._path, what)


def _offset(segments: Sequence[_Segment], address: int) -> int | None:
    """Where in the file an address is loaded from; None: from nowhere."""
    for type_, offset, start, size in segments:
        if type_ == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    return None


def _small(form: _Form, fields: Sequence[int], names: Sequence[tuple[int, bytes]]) -> bytes:
    """An ELF file whose dynamic section has these names alone; every address is its offset."""
    start = form.header.size + 2 * form.segment.size
    table_start = start + (len(names) + 3) * form.entry.size
    table = b"\0" + b"".join(name + b"\0" for _, name in names)
    entries = b""
    offset = 1
    for tag, name in names:
        entries += form.entry.pack(tag, offset)
        offset += len(name) + 1
    entries += form.entry.pack(_DT_STRTAB, table_start) + form.entry.pack(_DT_STRSZ, len(table))
    entries += form.entry.pack(_DT_NULL, 0)
    ident, type_, machine, version, _, _, _, flags, size, step, *_ = fields
    return b"".join(
        (
            form.header.pack(
                *(ident, type_, machine, version, 0, form.header.size, 0),
                *(flags, size, step, 2, 0, 0, 0),
            ),
            form.packed(_PT_LOAD, 0, 0, table_start + len(table)),
            form.packed(_PT_DYNAMIC, start, start, len(entries)),
            entries,
            table,
        )
    )
