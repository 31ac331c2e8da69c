"""What ml-pyroot adds: stand-ins for ROOT whose ELF files, paths and answers are real."""

from __future__ import annotations

import hashlib
import shutil
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
"""Upstream's RPATH after its equal-length correction (its README tells the one before)."""

PROGRAMS = ("root.exe", "rootcling.exe", "hadd.exe", "rootn.exe", "roots.exe")
LIBRARIES = ("libCore.so", "libRIO.so", "libHist.so", "libTree.so", "libMathCore.so")
COMPILERS = ("x86_64-conda-linux-gnu-g++", "g++", "c++")
COMPILED = f"{PREFIX}/libexec/reference-g++"
_ZLIB = "1.3.1"
_RPATH_ROOM = "/rpath-" + 500 * "0"
"""Replaced by the RPATH that is asked for; see the stand-in compiler."""


def add(root: Path, job: Job) -> list[CondaPackage]:
    """Programs, libraries and the Python module; returns the records that own them."""
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
    """What the stand-in compiler writes, but for its RPATH, and the compiler's other names."""
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
    root_base = condameta.files_below(root, *programs, *libraries, header, f"{SITE}/ROOT")
    zlib = condameta.files_below(
        root,
        f"{PREFIX}/include/zlib.h",
        *(f"{PREFIX}/lib/{name}" for name in ("libz.so", "libz.so.1", f"libz.so.{_ZLIB}")),
    )
    compilers = [f"{PREFIX}/bin/{name}" for name in COMPILERS]
    gxx = condameta.files_below(root, *compilers, COMPILED)
    built = build_string("root")
    # As the package has them: the images' builders put -lz and another RPATH there.
    own = {f"bin/{name}": (b"/0000000000000:", f"{PREFIX}/lib:".encode()) for name in PROGRAMS}
    own["bin/root-config"] = (b" -lz ", b" ")
    hashes = {}
    for path, (ours, theirs) in own.items():
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
            (f"python {VERSION}.*", "zlib >=1.3.1,<2.0a0", "_x86_64-microarch-level >=3"),
            root_base,
            hashes,
        ),
        CondaPackage("zlib", _ZLIB, build_string("zlib", python=False), "Zlib", files=zlib),
        CondaPackage("gxx", "12.4.0", build_string("gxx", python=False), "GPL-3.0-only", files=gxx),
        CondaPackage("_x86_64-microarch-level", "3", "2_haswell", "BSD-3-Clause", noarch=False),
    ]
