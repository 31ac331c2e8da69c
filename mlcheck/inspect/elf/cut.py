"""Extract from an ELF file the parts that a dynamic loader reads: headers and dynamic names.

lief copies the whole of a file that it parses, and a library of TensorFlow has 1 GB. So it is
given a small ELF file of the same class, byte order, machine and type whose dynamic section says
the same. The conditions under which a loader can read a file (gabi, "Program Loading and Dynamic
Linking", https://gabi.xinuos.com/) are checked here, where its real size and offsets are known.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from mlcheck.image.api import Unreadable
from mlcheck.inspect.elf import debug_files, symbol_versions

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
"""Names in a dynamic section: lief stops after 1,000 entries, and would miss later ones."""

NAMES_SIZE = 128 * 1024
"""Bytes of all names in a dynamic section and its symbol versions: the same bytes of a file may be
named again and again. Real files have up to 20 KiB."""

ENTRY_LIMIT = 1000
"""Entries of one search path; real ones have up to 200."""

_ENTRY_COST = 100
"""Bytes for which a name or an entry counts, besides its own."""

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_STRTAB, _DT_STRSZ = 0, 5, 10
_DT_NAMES = (1, 14, 15, 29)
"""DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH: their values are offsets of names."""

DT_AUDIT, DT_DEPAUDIT, DT_AUXILIARY, DT_FILTER = 0x6FFFFEFC, 0x6FFFFEFB, 0x7FFFFFFD, 0x7FFFFFFF
_DT_OTHERS = (DT_AUDIT, DT_DEPAUDIT, DT_AUXILIARY, DT_FILTER)
"""The same, for which lief has no class."""
_DT_FLAGS_1, _DT_VERDEF, _DT_VERNEED = 0x6FFFFFFB, 0x6FFFFFFC, 0x6FFFFFFE
_DF_1_NODEFLIB, _DF_1_PIE = 0x800, 0x08000000

_ET_EXEC, _ET_DYN, _ET_CORE = 2, 3, 4
_HOSTS = frozenset((3, 21, 22, 40, 62, 183, 243, 258))
"""Machines on which Linux runs: x86, POWER, z, ARM, RISC-V and LoongArch. Programs of GPUs and the
kernel's own are ELF files too, and no loader ever maps them."""
_PAGE = 4096
"""Bytes of the smallest page of any of them."""


class _Segment(NamedTuple):
    """A program header, as far as it is needed."""

    type: int
    offset: int
    address: int
    size: int
    """Bytes in the file."""
    memory: int
    """Bytes in memory."""


@dataclass(frozen=True, slots=True)
class _Form:
    """The layout of structures in one class and byte order (gabi, "Object Files")."""

    header: struct.Struct
    segment: struct.Struct
    entry: struct.Struct
    section: struct.Struct
    wide: bool
    order: str

    def segments(self, table: bytes) -> list[_Segment]:
        found = []
        for fields in self.segment.iter_unpack(table):
            if self.wide:
                type_, _, offset, address, _, size, memory, _ = fields
            else:
                type_, offset, address, _, size, memory, _, _ = fields
            found.append(_Segment(type_, offset, address, size, memory))
        return found

    def packed(self, type_: int, offset: int, address: int, size: int) -> bytes:
        """Pack a program header; readable, in memory as in the file."""
        if self.wide:
            return self.segment.pack(type_, 4, offset, address, address, size, size, 8)
        return self.segment.pack(type_, offset, address, address, size, size, 4, 8)


def _form(order: str, *, wide: bool) -> _Form:
    word = "Q" if wide else "I"
    return _Form(
        header=struct.Struct(f"{order}16sHHI{word * 3}I6H"),
        segment=struct.Struct(f"{order}II6Q" if wide else f"{order}8I"),
        entry=struct.Struct(f"{order}qQ" if wide else f"{order}iI"),
        section=struct.Struct(f"{order}IIQ48x" if wide else f"{order}III28x"),
        wide=wide,
        order=order,
    )


_FORMS = {
    (klass, data): _form(order, wide=klass == 2)
    for klass in (1, 2)
    for data, order in ((1, "<"), (2, ">"))
}


@dataclass(frozen=True, slots=True)
class Cut:
    """The extracted parts of an ELF file.

    Args:
        small: an ELF file with the names of the dynamic section, if there is one.
        interpreter: PT_INTERP, up to the first NUL.
        dynamic: True if there is a dynamic section.
        names: names of the tags in _DT_OTHERS.
        no_default_directories: True with the flag DF_1_NODEFLIB.
        refused: reason why the loader takes the file for no library, or "".
        versions: the symbol versions that it needs and defines.
        cost: bytes of all names, with something for each of them and each entry of a search path.
    """

    small: bytes
    interpreter: bytes | None
    dynamic: bool
    names: Sequence[tuple[int, bytes]] = ()
    no_default_directories: bool = False
    refused: str = ""
    versions: symbol_versions.Versions = symbol_versions.NONE
    little_endian: bool = True
    cost: int = 0


def cut(content: BinaryIO, path: str, head: bytes | None = None) -> Cut:
    """Read the parts of one ELF file.

    Args:
        content: the file, seekable.
        path: name of the file in errors.
        head: its first HEAD bytes (all of a smaller file), if they are known.

    Raises:
        Unreadable: it is no ELF file, is truncated, or refers to missing data.
    """
    file = _File(content, path, head)
    try:
        return file.cut()
    except Unreadable:
        if file.is_for_debuggers():
            raise debug_files.DebugFile(path) from None
        raise


@dataclass(frozen=True, slots=True)
class _Dynamic:
    """The contents of a dynamic section, if there is one."""

    names: Sequence[tuple[int, bytes]] = ()
    flags: int = 0
    versions: symbol_versions.Versions = symbol_versions.NONE


class _File:
    def __init__(self, content: BinaryIO, path: str, head: bytes | None) -> None:
        self._content = content
        self._path = path
        self._size = content.seek(0, 2)
        self._head = b""
        self._head = self._read(0, HEAD) if head is None else head
        self._is_loaded = self._is_core = False
        self._names_size = self._cost = 0

    def cut(self) -> Cut:
        head = self._head
        if not head.startswith(MAGIC):
            raise self._unreadable("is no ELF file" if self._size else "is empty")
        form = _FORMS.get((head[4], head[5])) if len(head) > 5 else None
        if form is None or len(head) < form.header.size:
            raise self._unreadable("has no valid ELF header")
        fields = form.header.unpack_from(head)
        type_, machine = fields[1:3]
        self._is_core = type_ == _ET_CORE  # often cut off, and loaded by nothing
        self._is_loaded = type_ in (_ET_EXEC, _ET_DYN) and machine in _HOSTS
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
        found = self._dynamic(form, segments, dynamic[0]) if dynamic else _Dynamic()
        names = [(tag, name) for tag, name in found.names if tag in _DT_NAMES]
        return Cut(
            _small(form, fields, names),
            interpreter,
            bool(dynamic),
            [(tag, name) for tag, name in found.names if tag in _DT_OTHERS],
            bool(found.flags & _DF_1_NODEFLIB),
            _refused(fields, segments, found.flags, dynamic=bool(dynamic)),
            found.versions,
            head[5] == 1,
            self._cost,
        )

    def is_for_debuggers(self) -> bool:
        """Return whether it is a separate file of debugging information."""
        form = _FORMS.get((self._head[4], self._head[5])) if len(self._head) > 5 else None
        if form is None or len(self._head) < form.header.size:
            return False
        fields = form.header.unpack_from(self._head)
        start, step, count = fields[6], fields[11], fields[12]
        if start + step * count > self._size:
            return False
        table = self._read(start, step * count) if step == form.section.size else b""
        return debug_files.are_sections(form.section, table)

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
            if segment.size and end > self._size and not self._is_core:
                raise self._unreadable(
                    f"is truncated: {self._size} bytes instead of at least {end}"
                )
        if self._is_loaded and (why := _unmapped(segments)):
            raise self._unreadable(why)
        return segments

    def _dynamic(self, form: _Form, segments: Sequence[_Segment], section: _Segment) -> _Dynamic:
        """Read the dynamic section."""
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
            if tag in _DT_NAMES or tag in _DT_OTHERS:
                asked.append((tag, value))
            else:
                table[tag] = value  # the loader too goes by the last one
        if not ended:
            raise self._unreadable("has a dynamic section without an end")
        if len(asked) > NAMES_LIMIT:
            raise self._unreadable(f"has {len(asked)} names for the loader")
        if _offset(segments, section.address) != section.offset:
            # Tools go by the offset, the loader by the address.
            raise self._unreadable("has a dynamic section that is loaded from elsewhere")
        start, size = None, 0
        if _DT_STRTAB in table and _DT_STRSZ in table:
            start, size = _offset(segments, table[_DT_STRTAB]), table[_DT_STRSZ]
            if start is None or start + size > self._size:
                raise self._unreadable("has a dynamic string table outside the file")

        def text(offset: int) -> bytes:
            name = None if start is None else self._name(start + offset, size - offset)
            if name is None:
                raise self._unreadable("has a name outside its dynamic string table")
            self._names_size += len(name) + 1
            if self._names_size > NAMES_SIZE:
                raise self._unreadable(f"has names of over {NAMES_SIZE} bytes for the loader")
            entries = 1 + name.count(b":") + name.count(b"\n")
            if entries > ENTRY_LIMIT:
                raise self._unreadable(f"has a search path of over {ENTRY_LIMIT} entries")
            self._cost += len(name) + entries * _ENTRY_COST
            return name

        names = [(tag, text(offset)) for tag, offset in asked]
        versions = symbol_versions.NONE
        if self._is_loaded:
            needs = self._version_table(segments, table.get(_DT_VERNEED))
            definitions = self._version_table(segments, table.get(_DT_VERDEF))
            try:
                versions = symbol_versions.read(self._read, form.order, needs, definitions, text)
            except ValueError as error:
                raise self._unreadable(str(error)) from None
        return _Dynamic(names, table.get(_DT_FLAGS_1, 0), versions)

    def _version_table(self, segments: Sequence[_Segment], address: int | None) -> int | None:
        if address is None:
            return None
        if (offset := _offset(segments, address)) is None:
            raise self._unreadable("has a table of symbol versions outside the file")
        return offset

    def _name(self, start: int, limit: int) -> bytes | None:
        """Return the text at `start` up to a NUL, or None if there is no NUL within `limit`
        bytes."""
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
        """Read `count` bytes, or fewer at the end of the file: a read may return less at once."""
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
    """Return the file offset from which an address is loaded, or None if it is not loaded."""
    for type_, offset, start, size, _ in segments:
        if type_ == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    return None


def _unmapped(segments: Sequence[_Segment]) -> str | None:
    """Return why kernel or loader cannot map these segments, or None if they can."""
    # Packers of static programs put them in any order: only the kernel maps these.
    is_linked = any(segment.type == _PT_DYNAMIC for segment in segments)
    end = 0
    for segment in segments:
        if segment.type != _PT_LOAD:
            continue
        if (segment.address - segment.offset) % _PAGE:
            return (
                f"has a segment that cannot be mapped: offset {segment.offset:#x} and address "
                f"{segment.address:#x} differ within a page"
            )
        if segment.address < end and is_linked:
            return f"has a segment at {segment.address:#x} that overlaps the one before it"
        end = segment.address + segment.memory
    return None


def _refused(
    fields: Sequence[Any], segments: Sequence[_Segment], flags: int, *, dynamic: bool
) -> str:
    """Return why the loader takes this for no library (glibc's `elf/dl-load.c`), or ""."""
    ident, type_, _, version = fields[:4]
    if ident[6] != 1 or version != 1:
        return "has another version of the ELF format"
    if ident[7] not in (0, 3) or (ident[8] and ident[7] == 0) or any(ident[9:]):
        return "is for another operating system"
    if type_ not in (_ET_EXEC, _ET_DYN):
        return "is neither a program nor a library"
    if type_ == _ET_EXEC or flags & _DF_1_PIE:
        return "is a program, which cannot be loaded as a library"
    if not any(segment.type == _PT_LOAD for segment in segments):
        return "has no segment to load"
    return "" if dynamic else "has no dynamic section"


def _small(form: _Form, fields: Sequence[Any], names: Sequence[tuple[int, bytes]]) -> bytes:
    """Build an ELF file with only these dynamic names; every address is its offset."""
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
