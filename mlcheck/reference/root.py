"""Additions of ml-pyroot: stand-ins for ROOT with real ELF files, paths and output."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlcheck.reference import condameta, elf, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.condameta import CondaPackage, build_string
from mlcheck.reference.python import PREFIX, SITE, VERSION
from mlcheck.reference.system import LOADER

ROOT_VERSION = "6.30.4"
ROOT_RPATH = (
    "/0000000000000:$ORIGIN:$ORIGIN/../lib"
    ":/home/conda/feedstock_root/build_artifacts/root_base_1689430670413/_build_env/lib"
)
"""Upstream's RPATH after its equal-length correction (its README has the original)."""

PROGRAMS = ("root.exe", "rootcling.exe", "hadd.exe", "rootn.exe", "roots.exe")
LIBRARIES = ("libCore.so", "libRIO.so", "libHist.so", "libTree.so", "libMathCore.so")
COMPILERS = ("x86_64-conda-linux-gnu-g++", "g++", "c++")
COMPILED = f"{PREFIX}/libexec/reference-g++"
CXX_HEADERS = f"{PREFIX}/x86_64-conda-linux-gnu/include/c++/12.4.0"
"""Directory of the C++ headers in conda's compiler."""
_ZLIB = "1.3.1"
_RPATH_ROOM = "/rpath-" + 500 * "0"
"""Placeholder that is replaced by the requested RPATH; see the stand-in compiler."""


def add(root: Path, job: Job) -> list[CondaPackage]:
    """Add programs, libraries and the Python module; returns the records that own them."""
    tree.overlay(root, Path(__file__).parent / "rootfs/root", VERSION)
    lib, bin_ = tree.at(root, f"{PREFIX}/lib"), tree.at(root, f"{PREFIX}/bin")
    for name in LIBRARIES:
        function = "reference_root_version" if name == "libCore.so" else f"reference_{name[3:-3]}"
        elf.library(job, lib / name, name, function, "6.30/04")
        elf.set_rpath(job, lib / name, "$ORIGIN")
    elf.library(job, lib / f"libz.so.{_ZLIB}", "libz.so.1", "zlibVersion", _ZLIB)
    tree.symlink(root, f"{PREFIX}/lib/libz.so.1", f"libz.so.{_ZLIB}")
    tree.symlink(root, f"{PREFIX}/lib/libz.so", f"libz.so.{_ZLIB}")
    first = bin_ / PROGRAMS[0]
    elf.compile_c(
        job,
        "program.c",
        first,
        {},
        [
            f"-Wl,--dynamic-linker={LOADER}",
            lib / "libCore.so",
            lib / f"libz.so.{_ZLIB}",
        ],
    )
    elf.set_rpath(job, first, ROOT_RPATH)
    for name in PROGRAMS[1:]:
        shutil.copy2(first, bin_ / name)
    _compiler(root, job)
    tree.symlink(root, f"{PREFIX}/bin/rootcling", "rootcling.exe")
    return _records(root)


def _compiler(root: Path, job: Job) -> None:
    """Add the output of the stand-in compiler, except its RPATH, and the compiler's other names."""
    program = tree.at(root, f"{COMPILED}/histogram")
    program.parent.mkdir(parents=True, exist_ok=True)
    lib = tree.at(root, f"{PREFIX}/lib")
    needed = [lib / "libCore.so", lib / "libHist.so", lib / f"libz.so.{_ZLIB}"]
    elf.compile_c(job, "histogram.c", program, {}, [f"-Wl,--dynamic-linker={LOADER}", *needed])
    elf.set_rpath(job, program, _RPATH_ROOM)
    for name in COMPILERS[1:]:
        tree.symlink(root, f"{PREFIX}/bin/{name}", COMPILERS[0])


def _records(root: Path) -> list[CondaPackage]:
    programs = [f"{PREFIX}/bin/{name}" for name in (*PROGRAMS, "root", "rootcling", "root-config")]
    libraries = [f"{PREFIX}/lib/{name}" for name in LIBRARIES]
    header = f"{PREFIX}/include/TH1F.h"
    files = condameta.files_below(root, *programs, *libraries, header, f"{SITE}/ROOT")
    return records(root, files, {"bin/root-config": (b" -lz ", b" ")}, _ZLIB)


def records(
    root: Path, files: tuple[str, ...], edited: Mapping[str, tuple[bytes, bytes]], zlib: str
) -> list[CondaPackage]:
    """Make the records of ROOT, zlib and the compiler.

    Args:
        files: ROOT's files, below the prefix.
        edited: files that upstream's builders changed, each with what they wrote (at its first
            occurrence) and what it replaced.
        zlib: version of zlib.
    """
    of_zlib = [f"{PREFIX}/include/{name}" for name in ("zlib.h", "zconf.h")]
    of_zlib += [
        f"{PREFIX}/lib/{file.name}" for file in tree.at(root, f"{PREFIX}/lib").glob("libz.so*")
    ]
    of_gxx = [*(f"{PREFIX}/bin/{name}" for name in COMPILERS), COMPILED, CXX_HEADERS]
    built = build_string("root")
    # Record the files as the package has them: the images' builders set another RPATH.
    prefix = f"{PREFIX}/lib:".encode()
    own = {path: (b"/0000000000000:", prefix) for path in files if re.match(r"bin/.*\.exe$", path)}
    hashes = {}
    for path, (ours, theirs) in {**own, **edited}.items():
        content = tree.at(root, f"{PREFIX}/{path}").read_bytes().replace(ours, theirs, 1)
        hashes[path] = (hashlib.sha256(content).hexdigest(), len(content))
    return [
        CondaPackage(
            "root",
            ROOT_VERSION,
            built,
            "LGPL-2.1-only",
            (f"root_base {ROOT_VERSION} {built}",),
            requested="root",
        ),
        CondaPackage(
            "root_base",
            ROOT_VERSION,
            built,
            "LGPL-2.1-only",
            (f"python {VERSION}.*", f"zlib >={zlib},<2.0a0", "_x86_64-microarch-level >=3"),
            files,
            hashes,
        ),
        CondaPackage(
            "zlib",
            zlib,
            build_string("zlib", python=False),
            "Zlib",
            files=condameta.files_below(root, *_there(root, of_zlib)),
        ),
        CondaPackage(
            "gxx",
            "12.4.0",
            build_string("gxx", python=False),
            "GPL-3.0-only",
            files=condameta.files_below(root, *_there(root, of_gxx)),
        ),
        CondaPackage("_x86_64-microarch-level", "3", "2_haswell", "BSD-3-Clause", noarch=False),
    ]


def _there(root: Path, paths: Iterable[str]) -> Iterator[str]:
    return (path for path in paths if os.path.lexists(tree.at(root, path)))
