"""ELF files as the dynamic loader would read them.

lief parses them, in a process of its own (`lief_server`). It is lenient: it gives what it can of a
broken file, and copies the whole of one. So it is given what `elf_cut` leaves of a file, a few KB
that are known to be in order.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Sequence
from typing import BinaryIO

from mlcheck.engines.base import RootFS, Unreadable
from mlcheck.facts import ElfFile, ElfFiles, File, Problem
from mlcheck.layered import BY_LAYER, ByLayer, Known, Parts
from mlcheck.probes import elf_cut
from mlcheck.probes.lief_client import LIEF
from mlcheck.probes.reading import opened


def probe(rootfs: RootFS, top: str = "/opt/conda") -> ElfFiles:
    """Every regular file below `top` that begins as ELF; hard links of one file once.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    LIEF.get_ready()
    scanned = itertools.count()

    def begins_as_elf(_: str, head: bytes) -> bool:
        next(scanned)
        return head.startswith(elf_cut.MAGIC)

    # All of them first: meanwhile lief gets ready.
    cuts = list(rootfs.each(top, begins_as_elf, _cut))
    files: dict[str, ElfFile] = {}
    problems: list[Problem] = []
    for file, cut in cuts:
        try:
            if isinstance(cut, Unreadable):
                raise cut
            files[file.path] = _fact(cut, file.path)
        except Unreadable as unreadable:
            problems.append(Problem(unreadable.path, unreadable.what))
    return ElfFiles(files, next(scanned), tuple(problems))


def _cut(file: File, content: BinaryIO) -> elf_cut.Cut:
    return elf_cut.cut(content, file.path)


def of_layer(layer: RootFS, top: str) -> ElfFiles:
    """The same of one layer, with every name of a file: another layer may hide the first.

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
    """What `probe` finds, with as few files opened as can be."""
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
    """None: the file does not begin as ELF."""
    try:
        with opened(rootfs, path) as content:
            is_elf = content.read(len(elf_cut.MAGIC)) == elf_cut.MAGIC
            return parse(content, path) if is_elf else None
    except Unreadable as unreadable:
        return Problem(unreadable.path, unreadable.what)


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
        path: how the fact and errors call it.

    Raises:
        Unreadable: it is no ELF file, is truncated, or refers to what is not in it.
        ProbeError: lief cannot be used.
    """
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    return _fact(elf_cut.cut(stream, path), path)


def _fact(cut: elf_cut.Cut, path: str) -> ElfFile:
    found = LIEF.describe(cut.small)
    try:
        interpreter = None if cut.interpreter is None else cut.interpreter.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable(path, "holds a name for the loader that is not UTF-8") from None
    if "problem" in found:
        raise Unreadable(path, found["problem"])
    found["needed"] = tuple(found["needed"])
    return ElfFile(path=path, interpreter=interpreter, dynamic=cut.dynamic, **found)
