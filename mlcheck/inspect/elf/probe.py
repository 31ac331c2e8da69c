"""ELF files as the dynamic loader would read them.

lief parses them, in a process of its own (`lief_server`). It is lenient: it returns partial data of
a broken file, and copies the whole of one. So it is given only the parts that `cut` extracts from a
file, a few KB that are known to be in order.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Sequence
from typing import BinaryIO

from mlcheck.cache.layer_facts import BY_LAYER, ByLayer, Known, Parts
from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import opened
from mlcheck.inspect.elf import cut as elf_cut
from mlcheck.inspect.elf import names
from mlcheck.inspect.elf.debug_files import DebugFile
from mlcheck.inspect.elf.facts import ElfFile, ElfFiles, only_loaded
from mlcheck.inspect.elf.lief_client import LIEF
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.model.files import File, Problem
from mlcheck.model.units import binary

ALL_NAMES_SIZE = 64 * 1024 * 1024
"""Cost of the names of all ELF files of one directory; large images have a fifth of it."""


@fact()
def elf_files(rootfs: RootFS, prefix: PrefixPath, ask: Ask) -> ElfFiles:
    """Every ELF file of the prefix, and what its Python reaches through links."""
    known = ask(names.probe, rootfs, prefix)
    outside = [(path, top, ask(probe, rootfs, top)) for path, top in known.modules.items()]
    return names.added(ask(probe, rootfs, prefix), known, outside)


def probe(rootfs: RootFS, top: str = "/opt/conda") -> ElfFiles:
    """Every regular file below `top` that begins as ELF, or is named as a library that only the
    loader reads; hard links of one file once.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    LIEF.get_ready()
    scanned = itertools.count()
    spent = 0

    def begins_as_elf(path: str, head: bytes) -> bool:
        next(scanned)
        return head.startswith(elf_cut.MAGIC) or only_loaded(path)

    def look(file: File, content: BinaryIO) -> elf_cut.Cut:
        nonlocal spent
        found = elf_cut.cut(content, file.path)
        spent += found.cost
        if spent > ALL_NAMES_SIZE:
            raise Unreadable(
                file.path,
                f"is not judged: together with the ELF files before it, it has over "
                f"{binary(ALL_NAMES_SIZE)} of names for the loader",
            )
        return found

    # All of them first: meanwhile lief gets ready.
    cuts = list(rootfs.each(top, begins_as_elf, look))
    files: dict[str, ElfFile] = {}
    problems: list[Problem] = []
    for file, cut in cuts:
        try:
            if isinstance(cut, Unreadable):
                raise cut
            files[file.path] = _fact(cut, file.path)
        except Unreadable as unreadable:
            if not _is_for_debuggers(unreadable):
                problems.append(Problem(unreadable.path, unreadable.what))
    return ElfFiles(files, next(scanned), tuple(problems))


def _is_for_debuggers(unreadable: Unreadable) -> bool:
    """Return whether it is no library that was damaged, but a file that no loader reads."""
    return isinstance(unreadable, DebugFile) and unreadable.is_in_its_place


def of_layer(layer: RootFS, top: str) -> ElfFiles:
    """Find the same in one layer, with every name of a file: another layer may hide the first.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    found = probe(layer, top)
    by_path: dict[str, ElfFile | Problem] = {**found.files}
    by_path |= {problem.path: problem for problem in found.problems}
    files = [file for file in layer.walk(top) if file.type == "file"]
    by_inode = {file.inode: by_path[file.path] for file in files if file.path in by_path}
    named = [
        dataclasses.replace(by_inode[file.inode], path=file.path)
        for file in files
        if file.inode in by_inode
    ]
    return ElfFiles(
        {fact.path: fact for fact in named if isinstance(fact, ElfFile)},
        found.scanned,
        tuple(fact for fact in named if isinstance(fact, Problem)),
    )


def _joined(parts: Parts[ElfFiles], rootfs: RootFS, top: str = "/opt/conda") -> ElfFiles:
    """Return the same as `probe`, with as few files opened as possible."""
    known = Known[ElfFile | Problem](
        [
            (layer, {**found.files, **{problem.path: problem for problem in found.problems}})
            for layer, found in parts
        ]
    )
    chosen, scanned = known.below(rootfs, top)
    found = [known.of(file) or _fact_or_problem(rootfs, file.path) for file in chosen]
    return ElfFiles(
        {fact.path: fact for fact in found if isinstance(fact, ElfFile)},
        scanned,
        tuple(fact for fact in found if isinstance(fact, Problem)),
    )


def _fact_or_problem(rootfs: RootFS, path: str) -> ElfFile | Problem | None:
    """Parse a file, or return None if it does not begin as ELF."""
    try:
        with opened(rootfs, path) as content:
            is_elf = content.read(len(elf_cut.MAGIC)) == elf_cut.MAGIC
            return parse(content, path) if is_elf or only_loaded(path) else None
    except Unreadable as unreadable:
        return None if _is_for_debuggers(unreadable) else Problem(unreadable.path, unreadable.what)


def _top(_: RootFS, top: str = "/opt/conda") -> str:
    return top


BY_LAYER[probe] = ByLayer(of_layer, _top, _joined)


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
        path: name of the file in the fact and in errors.

    Raises:
        Unreadable: it is no ELF file, is truncated, or refers to what is not in it.
        ProbeError: lief cannot be used.
    """
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    return _fact(elf_cut.cut(stream, path), path)


def _fact(cut: elf_cut.Cut, path: str) -> ElfFile:
    found = LIEF.describe(cut.small)

    def texts(*tags: int) -> tuple[str, ...]:
        return tuple(name.decode() for tag, name in cut.names if tag in tags)

    if "problem" in found:
        raise Unreadable(path, found["problem"])
    found["needed"] = tuple(found["needed"])
    needed, defined = cut.versions
    try:
        return ElfFile(
            path=path,
            interpreter=None if cut.interpreter is None else cut.interpreter.decode(),
            dynamic=cut.dynamic,
            filters=texts(elf_cut.DT_FILTER),
            auxiliaries=texts(elf_cut.DT_AUXILIARY),
            audits=texts(elf_cut.DT_AUDIT, elf_cut.DT_DEPAUDIT),
            versions_needed=tuple((name.decode(), version.decode()) for name, version in needed),
            versions=None if defined is None else tuple(name.decode() for name in defined),
            no_default_directories=cut.no_default_directories,
            refused=cut.refused,
            little_endian=cut.little_endian,
            **found,
        )
    except UnicodeDecodeError:
        raise Unreadable(path, "holds a name for the loader that is not UTF-8") from None
