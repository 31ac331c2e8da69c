"""ELF files and the libraries that they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class ElfFile:
    """What the dynamic loader would know of one ELF file.

    Args:
        bits: 32 or 64.
        machine: lief's name of e_machine ("X86_64", "AARCH64").
        type: lief's name of e_type ("EXEC", "DYN", "REL", ...).
        rpath, runpath: DT_RPATH and DT_RUNPATH as written, or None; several tags joined by ":".
        needed: DT_NEEDED in order.
        soname: DT_SONAME.
        interpreter: PT_INTERP.
        dynamic: whether there is a dynamic section; without one the file is static.
    """

    path: str
    bits: int
    machine: str
    type: str
    rpath: str | None
    runpath: str | None
    needed: tuple[str, ...]
    soname: str | None
    interpreter: str | None
    dynamic: bool


@dataclass(frozen=True, slots=True)
class ElfFiles:
    """Every ELF file below some directories, by path; hard links and symlinks only once."""

    files: Mapping[str, ElfFile]
    scanned: int
    """How many regular files were looked at, hard links of one file once."""
    problems: tuple[Problem, ...] = ()
    """Files that begin as ELF and cannot be parsed (truncated, crafted)."""


@dataclass(frozen=True, slots=True)
class LibraryNeed:
    """One soname and where the loader finds it.

    Args:
        soname: what is asked for ("libGL.so.1").
        by: path of the ELF file that needs it; "" when nothing but the profile asks.
        path: what the loader would load, as found on its search path; None: not found.
        final_path: the same after all symlinks inside the image; None: not found.
        bits, machine: of the file found.
        searched: the directories that were looked at, in the loader's order.
        rejected: (path, reason) of candidates that the loader would not take.
    """

    soname: str
    by: str
    path: str | None
    final_path: str | None
    bits: int | None
    machine: str | None
    searched: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Libraries:
    """How the loader resolves libraries (ld.so(8)): RPATH, LD_LIBRARY_PATH, RUNPATH, cache,
    default directories."""

    needs: tuple[LibraryNeed, ...]
    problems: tuple[Problem, ...] = ()
