"""Faults of ELF files: the directories that they search for libraries, and what is there."""

from __future__ import annotations

import os
from pathlib import Path

from mlcheck.reference import elf, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.defects.base import ML_PYROOT, Catalogue
from mlcheck.reference.python import PREFIX, SITE
from mlcheck.reference.root import ROOT_RPATH
from mlcheck.reference.system import LIB

DEFECTS = Catalogue()
_BIN = f"{PREFIX}/bin"
_GL = f"{LIB}/libGL.so.1"
_PYROOT = (ML_PYROOT,)


@DEFECTS.defect(
    "rpath",
    "The RPATH of root.exe begins with /opt/conda/lib, as it was before upstream's correction.",
    "rpath-hard-coded",
    "on-host-libraries",
    images=_PYROOT,
)
def _rpath(image: Path) -> None:
    rpath = ROOT_RPATH.replace("/0000000000000", f"{PREFIX}/lib")
    elf.set_rpath(Job(), tree.own(image, f"{_BIN}/root.exe"), rpath)


@DEFECTS.defect(
    "rpath-second",
    "/opt/conda/lib stands twice in the RPATH of rootcling.exe, and only the first is replaced.",
    "rpath-hard-coded",
    images=_PYROOT,
)
def _rpath_second(image: Path) -> None:
    rpath = f"/0000000000000:$ORIGIN:{PREFIX}/lib:$ORIGIN/../lib"
    elf.set_rpath(Job(), tree.own(image, f"{_BIN}/rootcling.exe"), rpath)


@DEFECTS.defect(
    "rpath-last-entry",
    "/opt/conda/lib is the last entry in the RPATH of hadd.exe, with no colon behind it.",
    "rpath-hard-coded",
    images=_PYROOT,
)
def _rpath_last_entry(image: Path) -> None:
    rpath = f"$ORIGIN:$ORIGIN/../lib:{PREFIX}/lib"
    elf.set_rpath(Job(), tree.own(image, f"{_BIN}/hadd.exe"), rpath)


@DEFECTS.defect(
    "rpath-library",
    "The RPATH of libHist.so, which is no *.exe, begins with /opt/conda/lib.",
    "rpath-hard-coded",
    "conda-files-unchanged",
    images=_PYROOT,
)
def _rpath_library(image: Path) -> None:
    library = tree.own(image, f"{PREFIX}/lib/libHist.so")
    elf.set_rpath(Job(), library, f"{PREFIX}/lib:$ORIGIN")


@DEFECTS.defect(
    "rpath-runpath",
    "An extension module of a Python package has the RUNPATH /opt/conda/lib/sub.",
    "rpath-hard-coded",
    "conda-files-unchanged",
)
def _rpath_runpath(image: Path) -> None:
    module = tree.own(image, _extension_module(image))
    elf.set_rpath(Job(), module, f"{PREFIX}/lib/sub", runpath=True)


@DEFECTS.defect(
    "rpath-empty",
    "The RUNPATH of an extension module has an empty entry, which is the working directory.",
    "rpath-relative",
    "conda-files-unchanged",
)
def _rpath_empty(image: Path) -> None:
    module = tree.own(image, _extension_module(image))
    elf.set_rpath(Job(), module, "$ORIGIN::$ORIGIN/../lib", runpath=True)


@DEFECTS.defect(
    "rpath-relative",
    "The RPATH of roots.exe has the entry ../lib, which is relative to the working directory.",
    "rpath-relative",
    images=_PYROOT,
)
def _rpath_relative(image: Path) -> None:
    elf.set_rpath(Job(), tree.own(image, f"{_BIN}/roots.exe"), "$ORIGIN/../lib:../lib")


@DEFECTS.defect(
    "rpath-by-link",
    "/opt/anaconda is a link to conda, and the RPATH of hadd.exe begins with /opt/anaconda/lib.",
    "rpath-hard-coded",
    images=_PYROOT,
)
def _rpath_by_link(image: Path) -> None:
    tree.symlink(image, "/opt/anaconda", "conda")
    rpath = "/opt/anaconda/lib:$ORIGIN/../lib"
    elf.set_rpath(Job(), tree.own(image, f"{_BIN}/hadd.exe"), rpath)


@DEFECTS.defect(
    "rpath-no-token",
    "The RPATH of hadd.exe has $ORIGINAL/../lib, which is no token, and so a relative entry.",
    "rpath-relative",
    images=_PYROOT,
)
def _rpath_no_token(image: Path) -> None:
    rpath = "$ORIGIN/../lib:$ORIGINAL/../lib"
    elf.set_rpath(Job(), tree.own(image, f"{_BIN}/hadd.exe"), rpath)


@DEFECTS.defect(
    "elf-needed-by-path",
    "libTree.so needs /opt/conda/lib/libMathCore.so, by its absolute path.",
    *("rpath-hard-coded", "conda-files-unchanged"),
    images=_PYROOT,
)
def _elf_needed_by_path(image: Path) -> None:
    library = tree.own(image, f"{PREFIX}/lib/libTree.so")
    elf.patchelf(Job(), "--add-needed", f"{PREFIX}/lib/libMathCore.so", library)


@DEFECTS.defect(
    "elf-second-name",
    "rootnew.exe needs a library that is nowhere, and has a second name that comes before bin/.",
    "libraries-resolve",
    images=_PYROOT,
)
def _elf_second_name(image: Path) -> None:
    first = tree.at(image, f"{PREFIX}/.bin/rootnew.exe")
    first.parent.mkdir()
    first.write_bytes(tree.at(image, f"{_BIN}/hadd.exe").read_bytes())
    first.chmod(0o755)
    elf.patchelf(Job(), "--add-needed", "libCling.so", first)
    tree.at(image, f"{_BIN}/rootnew.exe").hardlink_to(first)


@DEFECTS.defect(
    "rpath-dead",
    "The RPATH of hadd.exe has nothing but a directory of the machine that built it.",
    "libraries-resolve",
    images=_PYROOT,
)
def _rpath_dead(image: Path) -> None:
    rpath = ROOT_RPATH.rpartition(":")[2]
    elf.set_rpath(Job(), tree.own(image, f"{_BIN}/hadd.exe"), rpath)


@DEFECTS.defect(
    "rpath-required",
    "root.exe has no RPATH entry $ORIGIN/../lib: its libraries are found by links in bin/.",
    "rpath-required",
    images=_PYROOT,
)
def _rpath_required(image: Path) -> None:
    elf.set_rpath(Job(), tree.own(image, f"{_BIN}/root.exe"), "$ORIGIN")
    for name in ("libCore.so", "libz.so.1"):
        tree.symlink(image, f"{_BIN}/{name}", f"../lib/{name}")


@DEFECTS.defect(
    "elf-missing-library",
    "rootcling.exe needs libCling.so, which is nowhere.",
    "libraries-resolve",
    images=_PYROOT,
)
def _elf_missing_library(image: Path) -> None:
    program = tree.own(image, f"{_BIN}/rootcling.exe")
    elf.patchelf(Job(), "--add-needed", "libCling.so", program)


@DEFECTS.defect(
    "elf-library-32bit",
    "libCore.so is for 32 bits: the loader passes it over, and the programs find no other.",
    "libraries-resolve",
    "imports",
    "pyroot",
    "root-program",
    "on-host-programs",
    "on-host-libraries",
    "conda-files-unchanged",
    images=_PYROOT,
)
def _elf_library_32bit(image: Path) -> None:
    library = tree.at(image, f"{PREFIX}/lib/libCore.so")
    elf.library(Job(), library, library.name, "reference_root_version", "6.30/04", elf.BITS_32)


@DEFECTS.defect(
    "elf-truncated",
    "rootcling.exe ends in the middle of its program headers.",
    "elf-readable",
    images=_PYROOT,
)
def _elf_truncated(image: Path) -> None:
    os.truncate(tree.own(image, f"{_BIN}/rootcling.exe"), 100)


@DEFECTS.defect(
    "elf-linker-text",
    "libMathCore.so is a text that only the linker reads.",
    *("libraries-resolve", "conda-files-unchanged"),
    images=_PYROOT,
)
def _elf_linker_text(image: Path) -> None:
    tree.write(image, f"{PREFIX}/lib/libMathCore.so", "GROUP ( libMathCore.so.6 )\n", 0o755)


@DEFECTS.defect(
    "libgl-missing", "The system has no libGL.so.1.", "libraries-system", images=_PYROOT
)
def _libgl_missing(image: Path) -> None:
    tree.remove(image, _GL)
    tree.remove(image, f"{_GL}.7.0")


@DEFECTS.defect(
    "libgl-dangling",
    "The system's libGL.so.1 is a link to a file that does not exist.",
    "libraries-system",
    images=_PYROOT,
)
def _libgl_dangling(image: Path) -> None:
    tree.symlink(image, _GL, "libGL.so.1.6.0")


@DEFECTS.defect(
    "libgl-loop", "The system's libGL.so.1 is a link to itself.", "libraries-system", images=_PYROOT
)
def _libgl_loop(image: Path) -> None:
    tree.symlink(image, _GL, "libGL.so.1")


@DEFECTS.defect(
    "libgl-32bit", "The system's libGL.so.1 is for 32 bits.", "libraries-system", images=_PYROOT
)
def _libgl_32bit(image: Path) -> None:
    library = tree.at(image, f"{_GL}.7.0")
    elf.library(Job(), library, "libGL.so.1", "glXGetClientString", "1.7.0", elf.BITS_32)


@DEFECTS.defect(
    "libgl-from-conda",
    "The only libGL.so.1 is conda's, in /opt/conda/lib, where the loader does not look.",
    "libraries-system",
    images=_PYROOT,
)
def _libgl_from_conda(image: Path) -> None:
    content = tree.at(image, f"{_GL}.7.0").read_bytes()
    tree.write(image, f"{PREFIX}/lib/libGL.so.1.7.0", content, 0o755)
    tree.symlink(image, f"{PREFIX}/lib/libGL.so.1", "libGL.so.1.7.0")
    _libgl_missing(image)


def _extension_module(image: Path) -> str:
    module = next(iter(sorted(tree.at(image, f"{SITE}/markupsafe").glob("*.so"))))
    return f"{SITE}/markupsafe/{module.name}"
