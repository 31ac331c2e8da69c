"""ELF files as the dynamic loader would read them. The only module that imports lief.

lief is lenient: it gives what it can of a broken file, and stops at limits of its own (1,000
dynamic entries, 10,000 segments). A loader that ignores those limits would see more than we do,
so whatever lief did not read completely is a Problem. lief 1.0 survived 150,000 mutated ELF
files without a crash, a hang or memory beyond the file's size; hence it runs in this process.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Literal

import lief

from mlcheck.engines.base import RootFS, Unreadable
from mlcheck.errors import ProbeError
from mlcheck.facts import ElfFile, ElfFiles, Problem
from mlcheck.probes.reading import opened

SIZE_LIMIT = 4 * 1024**3
"""Bytes. lief holds one copy of the file that it parses; the largest known library has 1.6 GB."""

_TEXT_LIMIT = 64 * 1024
"""Bytes of one name or search path in a dynamic section."""

_LARGE = 512 * 1024**2
"""Bytes from which on only one file is parsed at a time."""

_MAGIC = b"\x7fELF"

_parsing_large = threading.Lock()

_Tag = lief.ELF.DynamicEntry.TAG
_PT_DYNAMIC = 2


def _only_what_a_loader_reads() -> lief.ELF.ParserConfig:
    config = lief.ELF.ParserConfig()
    config.parse_dyn_symbols = False
    config.parse_notes = False
    config.parse_overlay = False
    config.parse_relocations = False
    config.parse_symbol_versions = False
    config.parse_symtab_symbols = False
    return config


_CONFIG = _only_what_a_loader_reads()

# lief writes what it dislikes about a file to stderr; here that becomes a Problem.
lief.logging.disable()


def probe(rootfs: RootFS, top: str = "/opt/conda") -> ElfFiles:
    """Every regular file below `top` that begins as ELF; hard links of one file once.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    scanned = 0
    problems: list[Problem] = []

    def begin_as_elf() -> Iterator[str]:
        nonlocal scanned
        seen: set[tuple[int, int]] = set()
        for file in rootfs.walk(top):
            if file.type != "file":
                continue
            scanned += 1
            if file.inode in seen:
                continue
            if file.inode != (0, 0):
                seen.add(file.inode)
            try:
                with opened(rootfs, file.path) as content:
                    magic = _bytes_at(content, 0, len(_MAGIC))
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
                continue
            if magic == _MAGIC:
                yield file.path

    files = _parse_all(rootfs, begin_as_elf(), problems)
    return ElfFiles(files, scanned, tuple(problems))


def probe_files(rootfs: RootFS, paths: Sequence[str]) -> ElfFiles:
    """The named files; one that is missing or no ELF file is a Problem.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    problems: list[Problem] = []
    files = _parse_all(rootfs, paths, problems)
    return ElfFiles(files, len(paths), tuple(problems))


def _parse_all(
    rootfs: RootFS, paths: Iterable[str], problems: list[Problem]
) -> Mapping[str, ElfFile]:
    """Parse side by side: lief releases the interpreter's lock."""
    files: dict[str, ElfFile] = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        parsing = {path: pool.submit(read, rootfs, path) for path in paths}
        for path, future in parsing.items():
            try:
                files[path] = future.result()
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
    return files


def read(rootfs: RootFS, path: str) -> ElfFile:
    """Parse the image's file `path`.

    Raises:
        Unreadable: there is no such file, or it is no intact ELF file.
        ProbeError: this machine forbids reading it.
    """
    with opened(rootfs, path) as content:
        # One unbuffered read ends at 2 GiB (read(2)), and lief would take that for the end.
        whole = io.BufferedReader(content) if isinstance(content, io.RawIOBase) else content
        return parse(whole, path)


def parse(content: BinaryIO | bytes, path: str) -> ElfFile:
    """Parse one ELF file.

    Args:
        content: the file, seekable and buffered, or its bytes.
        path: how the fact and errors call it.

    Raises:
        Unreadable: it is no ELF file, is truncated, or refers to what is not in it.
        ProbeError: this machine has too little memory.
    """
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    size = stream.seek(0, io.SEEK_END)
    header = _bytes_at(stream, 0, 20)
    if not header.startswith(_MAGIC):
        raise Unreadable(path, "is no ELF file" if size else "is empty")
    if len(header) < 20 or header[4] not in (1, 2) or header[5] not in (1, 2):
        raise Unreadable(path, "has no valid ELF header")
    if size > SIZE_LIMIT:
        raise Unreadable(path, f"is an ELF file of more than {SIZE_LIMIT // 1024**3} GiB")
    stream.seek(0)
    try:
        with _parsing_large if size > _LARGE else contextlib.nullcontext():
            # lief takes any object that can be read; its annotation names only some of them.
            binary = lief.ELF.parse(stream, _CONFIG)  # type: ignore[arg-type]
    except MemoryError:
        raise ProbeError(f"{path}: this machine has no {size} bytes of memory for it.") from None
    if binary is None:
        raise Unreadable(path, "cannot be parsed as ELF")
    order: Literal["little", "big"] = "little" if header[5] == 1 else "big"
    try:
        dynamic = _Dynamic(binary, _segment_types(stream, binary, order, size, path), size, path)
        return ElfFile(
            path=path,
            bits=32 * header[4],
            # lief's own header warns about every number that it has no name for.
            machine=_name(lief.ELF.ARCH, int.from_bytes(header[18:20], order)),
            type=_name(lief.ELF.Header.FILE_TYPE, int.from_bytes(header[16:18], order)),
            rpath=dynamic.joined(lief.ELF.DynamicEntryRpath, "rpath"),
            runpath=dynamic.joined(lief.ELF.DynamicEntryRunPath, "runpath"),
            needed=tuple(dynamic.texts(lief.ELF.DynamicEntryLibrary, "name")),
            soname=next(iter(dynamic.texts(lief.ELF.DynamicSharedObject, "name")), None),
            interpreter=_text(binary.interpreter) if binary.has_interpreter else None,
            dynamic=dynamic.present,
        )
    except UnicodeDecodeError:
        raise Unreadable(path, "holds a name for the loader that is not UTF-8") from None


def _bytes_at(stream: BinaryIO, offset: int, count: int) -> bytes:
    """`count` bytes, or fewer at the end of the file: an unbuffered read may give less at once."""
    stream.seek(offset)
    found = b""
    while len(found) < count and (more := stream.read(count - len(found))):
        found += more
    return found


def _text(found: str | bytes) -> str:
    """lief gives bytes for some of the texts that are not UTF-8; for others it raises."""
    return found if isinstance(found, str) else found.decode("utf-8")


def _name(names: Any, value: int) -> str:
    try:
        return str(names(value).name)
    except ValueError:
        return str(value)


def _segment_types(
    stream: BinaryIO, binary: lief.ELF.Binary, order: Literal["little", "big"], size: int, path: str
) -> list[int]:
    """p_type of every segment, each of which lies in the file.

    lief's `segment.type` warns about every number that it has no name for.
    """
    header = binary.header
    count = header.numberof_segments
    if not count:
        return []
    step = 56 if header.identity_class == lief.ELF.Header.CLASS.ELF64 else 32
    start = header.program_header_offset
    # A loader refuses headers of another size.
    sane = header.program_header_size == step and start + count * step <= size
    if not sane or len(binary.segments) != count:
        raise Unreadable(path, "has program headers that cannot be read")
    for segment in binary.segments:
        end = segment.file_offset + segment.physical_size
        if segment.physical_size and end > size:
            raise Unreadable(path, f"is truncated: {size} bytes instead of at least {end}")
    table = _bytes_at(stream, start, count * step)
    return [int.from_bytes(table[at : at + 4], order) for at in range(0, len(table), step)]


class _Dynamic:
    """The dynamic section's entries that refer to its string table.

    Raises:
        Unreadable: the section has no end, or the table or a string lies outside the file.
    """

    def __init__(
        self, binary: lief.ELF.Binary, segment_types: list[int], size: int, path: str
    ) -> None:
        self._path = path
        self._entries: list[Any] = []
        self._table_size = 0
        count = segment_types.count(_PT_DYNAMIC)
        self.present = count > 0
        if not self.present:
            return
        if count > 1:
            raise Unreadable(path, "has more than one dynamic section")
        if not binary.has(_Tag.NULL):
            raise Unreadable(path, "has a dynamic section without an end")
        self._entries = list(binary.dynamic_entries)
        section: Any = binary.get(lief.ELF.Segment.TYPE.DYNAMIC)
        if binary.virtual_address_to_offset(section.virtual_address) != section.file_offset:
            # lief goes by the offset, the loader by the address.
            raise Unreadable(path, "has a dynamic section that is loaded from elsewhere")
        table: Any = binary.get(_Tag.STRTAB)
        table_size: Any = binary.get(_Tag.STRSZ)
        if table is not None and table_size is not None:
            offset = binary.virtual_address_to_offset(table.value)
            if not isinstance(offset, int) or offset + table_size.value > size:
                raise Unreadable(path, "has a dynamic string table outside the file")
            self._table_size = table_size.value

    def texts(self, kind: type[Any], attribute: str) -> Iterator[str]:
        """The strings of all entries of one lief class, in order."""
        for entry in filter(lambda entry: isinstance(entry, kind), self._entries):
            text = _text(getattr(entry, attribute))
            length = len(text.encode("utf-8"))
            if entry.value + length >= self._table_size:
                raise Unreadable(self._path, "has a name outside its dynamic string table")
            if length > _TEXT_LIMIT:
                raise Unreadable(self._path, f"has a name of {length} bytes for the loader")
            yield text

    def joined(self, kind: type[Any], attribute: str) -> str | None:
        """The same, joined by ":"; None when there is no such entry."""
        found = list(self.texts(kind, attribute))
        return ":".join(found) if found else None
