"""RPATH and RUNPATH of the ELF files, and whether the loader finds their libraries."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator

from mlcheck.facts import ElfFile, ElfFiles, Libraries, LibraryNeed
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, Verdict

READABLE = Rule(
    "elf-readable",
    "Every ELF file of the prefix can be parsed, so that the loader can use it.",
    "The file was truncated or damaged while the image was built; install its package again.",
    "A truncated library is found by nobody until a user imports what needs it; the loader's "
    "message then names neither package nor cause (elf(5), ld.so(8)).",
    keys=("prefix",),
)
HARD_CODED = Rule(
    "rpath-hard-coded",
    "No RPATH or RUNPATH has an entry in the prefix by its absolute path: on a host with the same "
    "directory, the image used as a virtual environment would load the host's libraries.",
    "Take the entry out (patchelf --remove-rpath or --set-rpath); $ORIGIN/../lib is enough.",
    "$ORIGIN/../lib finds the libraries wherever the image lies; a hard-coded prefix goes first "
    'and finds those of a host (README of usatlas/ML-Containers, "RPATH in the executable '
    'files").',
    keys=("rpath.forbidden",),
)
RELATIVE = Rule(
    "rpath-relative",
    "No RPATH or RUNPATH has a relative or an empty entry: the loader would search the working "
    "directory.",
    "Begin the entry with $ORIGIN, or take it out with patchelf.",
    "ld.so(8) searches an empty or relative entry from the working directory: whoever can write "
    "there chooses the library.",
    keys=("rpath",),
)
REQUIRED = Rule(
    "rpath-required",
    "The promised ELF files have the RPATH entries by which they find their libraries.",
    "Add the entry with patchelf --set-rpath.",
    "With the prefix taken out, a program finds the libraries of its own directory by this entry "
    'alone (README of usatlas/ML-Containers, "RPATH in the executable files").',
    keys=("rpath.required",),
)
RESOLVE = Rule(
    "libraries-resolve",
    "The loader finds every library that the programs in the prefix's bin/ need.",
    "Install the package that has the library, or correct the RPATH of the file that needs it.",
    "A package that counts on a library of the system installs without it and fails when it is "
    "first used, as OpenCV does without libGL "
    "(https://github.com/conda-forge/opencv-feedstock/issues/321).",
    keys=("prefix",),
)
SYSTEM = Rule(
    "libraries-system",
    "The loader finds the promised system libraries, and outside the prefix.",
    "Install the library with the system's package manager (libGL.so.1: mesa-libGL or "
    "libglvnd-glx).",
    "libGL has to fit the machine's graphics driver: neither ROOT nor micromamba installs it, "
    "the system's package manager does (README of usatlas/ML-Containers, \"Missing Library "
    'libGL.so").',
    keys=("libraries.system",),
)

_READELF = "readelf -d"
_ORIGIN = ("$ORIGIN", "${ORIGIN}")


def readable(elf: ElfFiles) -> Verdict:
    """No file that begins as ELF is broken."""
    findings = [
        Finding(p.path, p.what, "a whole ELF file", show=ShowFile("readelf -hd", p.path))
        for p in elf.problems
    ]
    return READABLE.judged(len(elf.files), findings, nothing=_no_elf(elf))


def hard_coded(elf: ElfFiles, profile: Profile) -> Verdict:
    """No entry is, or lies under, a directory of `rpath.forbidden`."""
    rpath = profile.expect.rpath
    if rpath is None or not rpath.forbidden:
        return HARD_CODED.skipped("the profile forbids no directory in an RPATH")
    findings = []
    elsewhere: Counter[str] = Counter()
    for file in elf.files.values():
        for tag, entry in _entries(file):
            if not entry.startswith("/"):
                continue
            plain = posixpath.normpath("/" + entry.lstrip("/"))
            for index, directory in enumerate(rpath.forbidden):
                top = directory.rstrip("/")
                if plain == top or plain.startswith(top + "/"):
                    findings.append(
                        Finding(
                            file.path,
                            f"{tag} entry {entry}",
                            f"no entry in {directory}",
                            profile.source("rpath", "forbidden", index),
                            ShowFile(_READELF, file.path),
                        )
                    )
                    break
            else:
                elsewhere[entry] += 1
    notes = [
        f"{entry} stands in the RPATH of {_files(count)}: outside the prefix, harmless if it "
        "exists on no host"
        for entry, count in sorted(elsewhere.items())
    ]
    return HARD_CODED.judged(len(elf.files), findings, notes, nothing=_no_elf(elf))


def relative(elf: ElfFiles, profile: Profile) -> Verdict:
    """Every entry is absolute or begins with $ORIGIN."""
    if profile.expect.rpath is None:
        return RELATIVE.skipped("the profile says nothing about RPATH")
    findings = []
    for file in elf.files.values():
        for tag, entry in _entries(file):
            if not entry.startswith(("/", *_ORIGIN)):
                found = f"{tag} entry {entry}" if entry else f"an empty {tag} entry"
                findings.append(
                    Finding(
                        file.path,
                        found,
                        "an absolute entry or one that begins with $ORIGIN",
                        profile.source("rpath"),
                        ShowFile(_READELF, file.path),
                    )
                )
    return RELATIVE.judged(len(elf.files), findings, nothing=_no_elf(elf))


def required(elf: ElfFiles, profile: Profile) -> Verdict:
    """The files of `rpath.required` have their entries."""
    rpath = profile.expect.rpath
    if rpath is None or not rpath.required:
        return REQUIRED.skipped("the profile requires no RPATH entry")
    findings = []
    for path, entries in rpath.required.items():
        file = elf.files.get(path)
        there = [entry for _, entry in _entries(file)] if file else []
        for index, entry in enumerate(entries):
            if entry not in there:
                found = (
                    (":".join(there) or "no RPATH and no RUNPATH")
                    if file
                    else "no ELF file at this path"
                )
                source = profile.source("rpath", "required", path, index)
                findings.append(Finding(path, found, entry, source, ShowFile(_READELF, path)))
    return REQUIRED.judged(len(rpath.required), findings)


def resolve(libraries: Libraries, profile: Profile) -> Verdict:
    """Every need of an ELF file in bin/ was found."""
    if profile.expect.prefix is None:
        return RESOLVE.skipped("the profile names no prefix")
    needs = [need for need in libraries.needs if need.by]
    findings = [
        Finding(
            need.by,
            f"needs {need.soname}: not in {', '.join(need.searched) or 'any directory'}"
            + "".join(f"; {path} {why}" for path, why in need.rejected),
            "found by the loader",
            show=ShowFile(_READELF, need.by),
        )
        for need in needs
        if need.path is None
    ]
    findings += [
        Finding(p.path, p.what, "readable for the loader", show=ShowFile("readelf -hd", p.path))
        for p in libraries.problems
    ]
    nothing = f"no program in {profile.expect.prefix}/bin is an ELF file that needs a library"
    return RESOLVE.judged(len(needs), findings, nothing=nothing)


def system(libraries: Libraries, profile: Profile) -> Verdict:
    """The libraries of `libraries.system` are found by the plain loader, outside the prefix."""
    promised = profile.expect.libraries.system
    if not promised:
        return SYSTEM.skipped("the profile promises no system library")
    prefix = profile.expect.prefix
    needs = {need.soname: need for need in libraries.needs if not need.by}
    findings = []
    for index, soname in enumerate(promised):
        source = profile.source("libraries", "system", index)
        need = needs.get(soname)
        if need is None or need.path is None or need.final_path is None:
            searched = ", ".join(need.searched) if need else ""
            rejected = "".join(f"; {path} {why}" for path, why in need.rejected) if need else ""
            findings.append(
                Finding(
                    soname,
                    f"not in {searched or 'any directory'}{rejected}",
                    "found by the loader",
                    source,
                    _looked_for(soname, need),
                )
            )
        elif prefix and any(p.startswith(prefix + "/") for p in (need.path, need.final_path)):
            where = need.path if need.path == need.final_path else f"{need.path}, {need.final_path}"
            findings.append(
                Finding(soname, where, f"outside {prefix}", source, ShowFile("ls -l", need.path))
            )
    return SYSTEM.judged(len(promised), findings)


def _looked_for(soname: str, need: LibraryNeed | None) -> ShowFile:
    """What does not fit, or each place in which a library is not."""
    if need is not None and need.rejected:
        first, *others = dict.fromkeys(path for path, _ in need.rejected)
        return ShowFile("readelf -h", first, tuple(others))
    searched = [place for place in need.searched if "." not in place] if need else []
    first, *others = (f"{place}/{soname}" for place in searched or ["/usr/lib64"])
    return ShowFile("ls -l", first, tuple(others))


def _entries(file: ElfFile) -> Iterator[tuple[str, str]]:
    """Tag and entry of all search paths of a file; an empty string is one empty entry."""
    if file.rpath is not None:
        yield from (("RPATH", entry) for entry in file.rpath.split(":"))
    if file.runpath is not None:
        yield from (("RUNPATH", entry) for entry in file.runpath.split(":"))


def _no_elf(elf: ElfFiles) -> str | None:
    """Why there is nothing to judge; None: nothing was looked at."""
    if not elf.scanned or elf.problems:
        return None
    return f"none of the {elf.scanned} files in the prefix is an ELF file"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
