"""Directories in which the image's programs and libraries look for libraries."""

from __future__ import annotations

import posixpath
from collections import Counter

from mlcheck.inspect.elf.facts import (
    ElfFiles,
    Libraries,
    LibraryNeed,
    LoaderPath,
    LoaderPaths,
    RequiredPaths,
    only_loaded,
)
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, Verdict, judged
from mlcheck.profile.catalog import Profile, promised

_READELF = "readelf -d"
_LISTS = ("RPATH", "RUNPATH")


@rule("elf-readable", keys=["prefix"])
def test_elf_readable(elf: ElfFiles, profile: Profile) -> Verdict:
    """Every ELF file of the prefix can be parsed, so that the loader can use it; libraries and
    Python's extension modules are libraries indeed, and for the machine of the prefix's programs.

    Why: A truncated library is found by nobody until a user imports what needs it; the loader's
    message then names neither package nor cause (elf(5), ld.so(8)).

    Fix: The file was truncated or damaged while the image was built; install its package again.
    """
    findings = [
        Finding(p.path, p.what, "a whole ELF file", show=ShowFile("readelf -hd", p.path))
        for p in elf.problems
    ]
    places = {f"{profile.expect.prefix}/lib", f"{profile.expect.prefix}/lib64"}
    programs = Counter(
        (file.bits, file.machine)
        for path, file in elf.files.items()
        if file.interpreter and path.startswith(f"{profile.expect.prefix}/bin/")
    )
    for path, file in elf.files.items():
        # Compilers for other machines have the libraries of these in directories of their own.
        if not only_loaded(path) or not (path.endswith(".so") or _directory(path) in places):
            continue
        said = file.refused
        if programs and (file.bits, file.machine) not in programs:
            said = f"is for {file.bits}-bit {file.machine}"
        if said:
            show = ShowFile("readelf -hd", path)
            findings.append(Finding(path, said, "a library that the loader takes", show=show))
    return judged(len(elf.files), findings, nothing=_no_elf(elf))


@rule("rpath-hard-coded", keys=["rpath.forbidden"])
def test_rpath_hard_coded(elf: ElfFiles, paths: LoaderPaths, profile: Profile) -> Verdict:
    """No RPATH or RUNPATH has an entry in the prefix by its absolute path, and no ELF file names a
    library or its loader there by one: on a host with the same directory, the image used as a
    virtual environment would load the host's libraries.

    Why: $ORIGIN/../lib finds the libraries wherever the image lies; a hard-coded prefix goes first
    and finds those of a host (README of usatlas/ML-Containers, "RPATH in the executable files").
    The loader follows links, and takes more `..` than there are directories for /.

    Fix: Remove the entry (patchelf --remove-rpath or --set-rpath); $ORIGIN/../lib is enough.
    Needed libraries go by their names alone (patchelf --replace-needed).
    """
    rpath = promised(profile.expect.rpath)
    findings = []
    elsewhere: Counter[str] = Counter()
    for file, named in paths.of.items():
        for path in named:
            if not path.is_fixed:
                continue
            for index, directory in enumerate(rpath.forbidden):
                if _leads_into(path, directory, paths.places.get(directory, directory)):
                    findings.append(
                        Finding(
                            file,
                            _said(path),
                            f"no entry in {directory}",
                            profile.source("rpath", "forbidden", index),
                            _show(path, file),
                        )
                    )
                    break
            else:
                if path.tag in _LISTS:
                    elsewhere[path.text] += 1
    notes = [
        f"{entry} stands in the RPATH of {_files(count)}: outside the prefix, harmless if it "
        "exists on no host"
        for entry, count in sorted(elsewhere.items())
    ]
    return judged(len(elf.files), findings, notes, nothing=_no_elf(elf))


@rule("rpath-relative", keys=["rpath"])
def test_rpath_relative(elf: ElfFiles, paths: LoaderPaths, profile: Profile) -> Verdict:
    """No RPATH or RUNPATH has a relative or an empty entry, and no library or loader is named by a
    relative path: the loader would search the working directory.

    Why: ld.so(8) searches an empty or relative entry from the working directory: whoever can write
    there chooses the library. $ORIGINAL is no token, and so a relative entry.

    Fix: Begin the entry with $ORIGIN, or remove it with patchelf.
    """
    findings = []
    for file, named in paths.of.items():
        for path in named:
            if not path.expanded.startswith("/") and path.tag != "SONAME":
                wanted = "an absolute entry or one that begins with $ORIGIN"
                found = _said(path) if path.text else f"an empty {path.tag} entry"
                source = profile.source("rpath")
                findings.append(Finding(file, found, wanted, source, _show(path, file)))
    return judged(len(elf.files), findings, nothing=_no_elf(elf))


@rule("rpath-required", keys=["rpath.required"])
def test_rpath_required(paths: LoaderPaths, profile: Profile) -> Verdict:
    """The promised ELF files have the RPATH entries by which they find their libraries.

    Why: With the prefix taken out, a program finds the libraries of its own directory by this entry
    alone (README of usatlas/ML-Containers, "RPATH in the executable files").

    Fix: Add the entry with patchelf --set-rpath.
    """
    rpath = promised(profile.expect.rpath)
    findings = []
    for path, entries in rpath.required.items():
        compared = paths.required.get(path, RequiredPaths((), (), "was not looked at"))
        there = {_place(one) for one in compared.there}
        for index, entry in enumerate(entries):
            if compared.problem:
                found = f"no ELF file at this path: it {compared.problem}"
            elif _place(compared.wanted[index]) in there:
                continue
            else:
                listed = ":".join(one.text for one in compared.there)
                found = listed or "no RPATH and no RUNPATH"
            source = profile.source("rpath", "required", path, index)
            findings.append(Finding(path, found, entry, source, ShowFile(_READELF, path)))
    return judged(len(rpath.required), findings)


@rule("libraries-resolve", keys=["prefix"], also=["root_config"])
def test_libraries_resolve(libraries: Libraries, profile: Profile) -> Verdict:
    """The loader finds every library that the programs in the prefix's bin/ need, in the versions
    that they need, and where ROOT is promised those that its own libraries need.

    Why: A package that counts on a library of the system installs without it and fails when it is
    first used, as OpenCV does without libGL
    (https://github.com/conda-forge/opencv-feedstock/issues/321).

    Fix: Install the package that has the library, or correct the RPATH of the file that needs it.
    """
    needs = [need for need in libraries.needs if need.by]
    findings = [
        Finding(
            need.by,
            f"needs {need.soname}: {_not_found(need)}",
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
    return judged(len(needs), findings, nothing=nothing)


@rule("libraries-system", keys=["libraries.system"])
def test_libraries_system(libraries: Libraries, profile: Profile) -> Verdict:
    """The loader finds the promised system libraries, outside the prefix, and what they need.

    Why: libGL has to fit the machine's graphics driver, so the system's package manager installs
    it; a copy of conda's in the prefix does not stand for it (README of usatlas/ML-Containers,
    "Missing Library libGL.so").

    Fix: Install the library with the system's package manager (libGL.so.1: mesa-libGL or
    libglvnd-glx).
    """
    wanted = profile.expect.libraries.system
    # An environment that is the system's own has the system's libraries.
    prefix = profile.expect.prefix if profile.expect.prefix != "/usr" else None
    needs = {need.soname: need for need in libraries.needs if not need.by}
    findings = []
    for index, soname in enumerate(wanted):
        source = profile.source("libraries", "system", index)
        need = needs.get(soname)
        if need is None or need.path is None or need.final_path is None:
            findings.append(
                Finding(
                    soname,
                    _not_found(need) if need else "not in any directory",
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
    for soname, missing in libraries.missing:
        found = f"{missing.by} needs {missing.soname}: {_not_found(missing)}"
        source = profile.source("libraries", "system", [*wanted].index(soname))
        show = ShowFile(_READELF, missing.by)
        findings.append(Finding(soname, found, "found by the loader", source, show))
    return judged(len(wanted), findings)


def _not_found(need: LibraryNeed) -> str:
    """Where a library is not, and why what is there is none."""
    places = [f"not in {', '.join(need.searched)}"] if need.searched else []
    places += [f"{path} {why}" for path, why in need.rejected]
    return "; ".join(places) or "not in any directory"


def _looked_for(soname: str, need: LibraryNeed | None) -> ShowFile:
    """What does not fit, or each place in which a library is not."""
    if need is not None and need.rejected:
        first, *others = dict.fromkeys(path for path, _ in need.rejected)
        return ShowFile("readelf -h", first, tuple(others))
    searched = [place for place in need.searched if "." not in place] if need else []
    first, *others = (f"{place}/{soname}" for place in searched or ["/usr/lib64"])
    return ShowFile("ls -l", first, tuple(others))


def _leads_into(path: LoaderPath, directory: str, place: str) -> bool:
    """Whether a path leads into a directory, by its letters or by what the image has there."""
    plain = posixpath.normpath("/" + path.expanded.lstrip("/"))
    tops = {directory.rstrip("/"), place.rstrip("/")}
    return any(f"{one}/".startswith(f"{top}/") for one in (plain, path.final) for top in tops)


def _place(path: LoaderPath) -> tuple[str, bool]:
    """What makes two entries the same for the loader."""
    return path.final or path.expanded, path.is_fixed


def _said(path: LoaderPath) -> str:
    words = f"{path.tag} entry {path.text}" if path.tag in _LISTS else f"{path.tag} {path.text}"
    plain = posixpath.normpath("/" + path.text.lstrip("/"))
    return words if path.final in ("", plain) else f"{words}, which leads to {path.final}"


def _show(path: LoaderPath, file: str) -> ShowFile:
    return ShowFile("readelf -l" if path.tag == "INTERP" else _READELF, file)


def _no_elf(elf: ElfFiles) -> str | None:
    """Why there is nothing to judge; None: nothing was looked at."""
    if not elf.scanned or elf.problems:
        return None
    return f"none of the {elf.scanned} files in the prefix is an ELF file"


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
