"""Faults of ROOT at run time."""

from __future__ import annotations

from pathlib import Path

from mlcheck.reference import newenv, tree
from mlcheck.reference.defects.base import ML_PYROOT, Catalogue
from mlcheck.reference.python import PREFIX, SITE
from mlcheck.reference.root import COMPILED, COMPILERS, CXX_HEADERS
from mlcheck.reference.system import LIB

DEFECTS = Catalogue()
_PYROOT = (ML_PYROOT,)
_MODULE = f"{SITE}/ROOT/__init__.py"
_ROOT_CONFIG = f"{PREFIX}/bin/root-config"


@DEFECTS.defect(
    "pyroot-fails",
    "import ROOT raises: it finds no libCling.so.",
    "pyroot",
    "imports",
    "on-host-programs",
    "conda-files-unchanged",
    images=_PYROOT,
)
def _pyroot_fails(image: Path) -> None:
    tree.write(image, _MODULE, 'raise ImportError("Failed to load libCling.so")\n')


@DEFECTS.defect(
    "pyroot-illegal-instruction",
    "import ROOT ends by SIGILL, an instruction that the CPU does not have.",
    "pyroot",
    "imports",
    "on-host-programs",
    "conda-files-unchanged",
    images=_PYROOT,
)
def _pyroot_illegal_instruction(image: Path) -> None:
    text = "import os\nimport signal\n\nos.kill(os.getpid(), signal.SIGILL)\n"
    tree.write(image, _MODULE, text)


@DEFECTS.defect(
    "pyroot-wrong",
    "A histogram in PyROOT has a wrong mean.",
    "pyroot",
    "conda-files-unchanged",
    images=_PYROOT,
)
def _pyroot_wrong(image: Path) -> None:
    tree.replace(
        image, _MODULE, "return sum(self._values) / len", "return 0.5 + sum(self._values) / len"
    )


@DEFECTS.defect(
    "root-no-compiler",
    "There is no C++ compiler.",
    "root-program",
    "conda-files-present",
    images=_PYROOT,
)
def _root_no_compiler(image: Path) -> None:
    for name in COMPILERS:
        tree.remove(image, f"{PREFIX}/bin/{name}")
    newenv.write(image)  # environments have links to them


@DEFECTS.defect(
    "root-no-headers",
    "ROOT's headers are not there.",
    "root-program",
    "conda-files-present",
    images=_PYROOT,
)
def _root_no_headers(image: Path) -> None:
    tree.remove(image, f"{PREFIX}/include/TH1F.h")


@DEFECTS.defect(
    "cling-no-headers",
    "cling finds no header of C++, such as <vector>.",
    "pyroot",
    "conda-files-present",
    images=_PYROOT,
)
def _cling_no_headers(image: Path) -> None:
    tree.remove(image, f"{CXX_HEADERS}/vector")


@DEFECTS.defect(
    "root-config-system-first",
    "root-config names the system's library directory before the prefix's: its libz is taken.",
    "root-program",
    images=_PYROOT,
)
def _root_config_system_first(image: Path) -> None:
    old, new = "-Wl,-rpath,$prefix/lib", f"-Wl,-rpath,{LIB} -Wl,-rpath,$prefix/lib"
    tree.replace(image, _ROOT_CONFIG, old, new)


@DEFECTS.defect(
    "root-config-no-rpath",
    "root-config names no -rpath: programs find no library of ROOT when they run.",
    "root-program",
    images=_PYROOT,
)
def _root_config_no_rpath(image: Path) -> None:
    tree.replace(image, _ROOT_CONFIG, " -Wl,-rpath,$prefix/lib", "")


@DEFECTS.defect(
    "root-program-illegal-instruction",
    "A program that is compiled in the image ends by SIGILL.",
    "root-program",
    "conda-files-unchanged",
    images=_PYROOT,
)
def _root_program_illegal_instruction(image: Path) -> None:
    program = tree.own(image, f"{COMPILED}/histogram")
    content = program.read_bytes()
    # Its entry, `and $-16, %rsp; call start`, becomes ud2, the undefined instruction.
    entry = content.index(b"\x48\x83\xe4\xf0\xe8")
    program.write_bytes(content[:entry] + b"\x0f\x0b" + content[entry + 2 :])
