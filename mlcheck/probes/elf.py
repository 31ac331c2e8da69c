"""ELF files as the dynamic loader would read them. The only module that imports lief.

lief is lenient: it gives what it can of a broken file, and copies the whole of one. So it is
given what `elf_cut` leaves of a file, a few KB that are known to be in order. lief 1.0 survived
150,000 mutated ELF files without a crash, a hang or memory beyond the file's size; hence it runs
in this process.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Literal

from mlcheck.engines.base import RootFS, Unreadable
from mlcheck.facts import ElfFile, ElfFiles, File, Problem
from mlcheck.probes import elf_cut
from mlcheck.probes.reading import opened


@functools.cache
def _lief() -> Any:
    """lief, imported with the first ELF file: that takes half a second."""
    import lief

    # It writes what it dislikes about a file to stderr.
    lief.logging.disable()
    return lief.ELF


def probe(rootfs: RootFS, top: str = "/opt/conda") -> ElfFiles:
    """Every regular file below `top` that begins as ELF; hard links of one file once.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    files: dict[str, ElfFile] = {}
    problems: list[Problem] = []
    for file, told in rootfs.each(top, _begins_as_elf, _look):
        if isinstance(told, Unreadable):
            problems.append(Problem(told.path, told.what))
        else:
            files[file.path] = told
    scanned = sum(file.type == "file" for file in rootfs.walk(top))
    return ElfFiles(files, scanned, tuple(problems))


def _begins_as_elf(_: File, head: bytes) -> bool:
    return head.startswith(elf_cut.MAGIC)


def _look(file: File, content: BinaryIO) -> ElfFile:
    return parse(content, file.path)


def probe_files(rootfs: RootFS, paths: Sequence[str]) -> ElfFiles:
    """The named files; one that is missing or no ELF file is a Problem.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    files: dict[str, ElfFile] = {}
    problems: list[Problem] = []
    for path in paths:
        try:
            files[path] = read(rootfs, path)
        except Unreadable as unreadable:
            problems.append(Problem(unreadable.path, unreadable.what))
    return ElfFiles(files, len(paths), tuple(problems))


def read(rootfs: RootFS, path: str) -> ElfFile:
    """Parse the image's file `path`.

    Raises:
        Unreadable: there is no such file, or it is no intact ELF file.
        ProbeError: this machine forbids reading it.
    """
    with opened(rootfs, path) as content:
        return parse(content, path)


def parse(content: BinaryIO | bytes, path: str) -> ElfFile:
    """Parse one ELF file.

    Args:
        content: the file, seekable, or its bytes.
        path: how the fact and errors call it.

    Raises:
        Unreadable: it is no ELF file, is truncated, or refers to what is not in it.
    """
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    part = elf_cut.cut(stream, path)
    head = part.head
    order: Literal["little", "big"] = "little" if head[5] == 1 else "big"
    elf = _lief()
    try:
        found = _Names(part.dynamic, path)
        return ElfFile(
            path=path,
            bits=32 * head[4],
            # lief's own header warns about every number that it has no name for.
            machine=_name(elf.ARCH, int.from_bytes(head[18:20], order)),
            type=_name(elf.Header.FILE_TYPE, int.from_bytes(head[16:18], order)),
            rpath=found.joined(elf.DynamicEntryRpath, "rpath"),
            runpath=found.joined(elf.DynamicEntryRunPath, "runpath"),
            needed=tuple(found.texts(elf.DynamicEntryLibrary, "name")),
            soname=next(iter(found.texts(elf.DynamicSharedObject, "name")), None),
            interpreter=None if part.interpreter is None else part.interpreter.decode("utf-8"),
            dynamic=part.dynamic is not None,
        )
    except UnicodeDecodeError:
        raise Unreadable(path, "holds a name for the loader that is not UTF-8") from None


def _text(found: str | bytes) -> str:
    """lief gives bytes for some of the texts that are not UTF-8; for others it raises."""
    return found if isinstance(found, str) else found.decode("utf-8")


def _name(names: Any, value: int) -> str:
    try:
        return str(names(value).name)
    except ValueError:
        return str(value)


class _Names:
    """What lief reads in a dynamic section, of which `elf_cut` left the names.

    Raises:
        Unreadable: lief does not read it.
    """

    def __init__(self, dynamic: bytes | None, path: str) -> None:
        self._entries: list[Any] = []
        if dynamic is None:
            return
        binary = _lief().parse(io.BytesIO(dynamic))
        if binary is None:
            raise Unreadable(path, "cannot be parsed as ELF")
        self._entries = list(binary.dynamic_entries)
        self._binary = binary  # which owns what the entries refer to

    def texts(self, kind: type[Any], attribute: str) -> Iterator[str]:
        """The strings of all entries of one lief class, in order."""
        for entry in filter(lambda entry: isinstance(entry, kind), self._entries):
            yield _text(getattr(entry, attribute))

    def joined(self, kind: type[Any], attribute: str) -> str | None:
        """The same, joined by ":"; None when there is no such entry."""
        found = list(self.texts(kind, attribute))
        return ":".join(found) if found else None
