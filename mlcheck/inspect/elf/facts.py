"""ELF files and the libraries that they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.model.files import Problem


def only_loaded(path: str) -> bool:
    """Return whether only a loader reads a file of that name: a library with its version, which no
    program is linked with, or an extension module of Python's. A text of the linker has neither."""
    directory, _, name = path.rpartition("/")
    if name.endswith(".so"):
        return ".cpython-3" in name or name.endswith(".abi3.so")
    stem, so, version = name.partition(".so.")
    if not (so and stem.startswith("lib")) or "/share/" in directory:
        return False
    return version.replace(".", "").isdecimal() and version.isascii()


@dataclass(frozen=True, slots=True)
class ElfFile:
    """An ELF file as the dynamic loader sees it.

    Args:
        bits: 32 or 64.
        machine: lief's name of e_machine ("X86_64", "AARCH64").
        type: lief's name of e_type ("EXEC", "DYN", "REL", ...).
        rpath, runpath: DT_RPATH and DT_RUNPATH as written, or None; of several tags the last one,
            by which the loader goes.
        needed: DT_NEEDED in order.
        soname: DT_SONAME.
        interpreter: PT_INTERP.
        dynamic: True if there is a dynamic section; without one the file is static.
        filters, auxiliaries: DT_FILTER, a library that must be there as a needed one must, and
            DT_AUXILIARY, one that need not.
        audits: DT_AUDIT and DT_DEPAUDIT as written, each a list of libraries with colons.
        versions_needed: (name of a library, version) of each that the loader insists on.
        versions: the symbol versions that it defines, or None if it has none.
        no_default_directories: the loader searches no default directories for what it needs.
        refused: reason why the loader does not take it for a library, or "".
        little_endian: the byte order.
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
    filters: tuple[str, ...] = ()
    auxiliaries: tuple[str, ...] = ()
    audits: tuple[str, ...] = ()
    versions_needed: tuple[tuple[str, str], ...] = ()
    versions: tuple[str, ...] | None = None
    no_default_directories: bool = False
    refused: str = ""
    little_endian: bool = True


@dataclass(frozen=True, slots=True)
class ElfFiles:
    """Every ELF file below some directories, by path, under each name that was looked for."""

    files: Mapping[str, ElfFile]
    scanned: int
    """Number of regular files that were examined, hard links of one file once."""
    problems: tuple[Problem, ...] = ()
    """Files that begin as ELF and cannot be parsed (truncated, crafted)."""


@dataclass(frozen=True, slots=True)
class LoaderPath:
    """A path that an ELF file names for the kernel or the loader, or an entry of a list of them.

    Args:
        tag: "RPATH", "RUNPATH", "NEEDED", "FILTER", "AUXILIARY", "AUDIT", "SONAME" or "INTERP".
        text: the path as written.
        expanded: with its tokens replaced, for the file under this name.
        final: where it leads in the image after all links; "" if it is relative to the working
            directory.
        is_fixed: True if it leads there by an absolute path: its own, that of a link on its way, or
            by more `..` than there are directories above the file.
    """

    tag: str
    text: str
    expanded: str
    final: str
    is_fixed: bool


@dataclass(frozen=True, slots=True)
class RequiredPaths:
    """The search path of a promised ELF file.

    Args:
        wanted: the entries that are promised, as the file would have them.
        there: the entries that it has.
        problem: reason why the file cannot be read, or "".
    """

    wanted: tuple[LoaderPath, ...]
    there: tuple[LoaderPath, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LoaderPaths:
    """The places to which the paths in ELF files lead.

    Args:
        of: paths by ELF file; files without any are left out.
        places: directories that are forbidden, each with its place after all links.
        required: the promised search paths, by file.
    """

    of: Mapping[str, tuple[LoaderPath, ...]]
    places: Mapping[str, str]
    required: Mapping[str, RequiredPaths]


@dataclass(frozen=True, slots=True)
class LibraryNeed:
    """A soname, and the file that the loader finds for it.

    Args:
        soname: the needed name ("libGL.so.1").
        by: path of the ELF file that needs it, or "" if only the profile does.
        path: the file that the loader would load, as found on its search path, or None if not
            found.
        final_path: the same after all symlinks inside the image, or None if not found.
        bits, machine: of the file found.
        searched: the directories that were searched, in the loader's order.
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
    """The resolution of libraries as the image's loader does it: glibc's (ld.so(8)) or musl's."""

    needs: tuple[LibraryNeed, ...]
    problems: tuple[Problem, ...] = ()
    missing: tuple[tuple[str, LibraryNeed], ...] = ()
    """(promised library, need that it leads to) for those that the loader does not find."""
