"""Faults of packages' files and dependencies, and of an image as a directory for many users."""

from __future__ import annotations

import importlib.util
import marshal
from pathlib import Path

from mlcheck.reference import consistency, tree
from mlcheck.reference.condameta import PLACEHOLDER, CondaPackage
from mlcheck.reference.condameta import write as write_records
from mlcheck.reference.defects.base import ML_PYROOT, Catalogue, edit_list, uninstall
from mlcheck.reference.python import PREFIX, SITE
from mlcheck.reference.system import LIB

DEFECTS = Catalogue()
_PRESENT, _UNCHANGED = "conda-files-present", "conda-files-unchanged"
_FILE = f"{PREFIX}/share/zoneinfo/Zulu"


@DEFECTS.defect("conda-file-missing", "A file of the conda package tzdata is not there.", _PRESENT)
def _conda_file_missing(image: Path) -> None:
    tree.remove(image, _FILE)


@DEFECTS.defect(
    "conda-file-link", "A file of the conda package tzdata is a link to itself.", _PRESENT
)
def _conda_file_link(image: Path) -> None:
    tree.symlink(image, _FILE, "Zulu")


@DEFECTS.defect(
    "conda-file-changed", "One byte of a file of the conda package tzdata is another.", _UNCHANGED
)
def _conda_file_changed(image: Path) -> None:
    content = bytearray(tree.at(image, _FILE).read_bytes())
    content[-1] ^= 1
    tree.write(image, _FILE, bytes(content))


@DEFECTS.defect(
    "conda-file-size", "A file of the conda package tzdata is one byte longer.", _UNCHANGED
)
def _conda_file_size(image: Path) -> None:
    tree.write(image, _FILE, tree.at(image, _FILE).read_bytes() + b"\n")


@DEFECTS.defect(
    "conda-file-placeholder",
    "libssl.pc still has the prefix of the machine that built it.",
    _UNCHANGED,
)
def _conda_file_placeholder(image: Path) -> None:
    path = f"{PREFIX}/lib/pkgconfig/libssl.pc"
    tree.replace(image, path, f"prefix={PREFIX}", f"prefix={PLACEHOLDER}")


@DEFECTS.defect(
    "byte-code-unchecked",
    "The byte code of seaborn is of another source, and says that Python is not to check it.",
    _UNCHANGED,
)
def _byte_code_unchecked(image: Path) -> None:
    source = f"{SITE}/seaborn/__init__.py"
    edited = tree.at(image, source).read_bytes() + b"\nEDITED = True\n"
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    code = marshal.dumps(compile(edited, source, "exec", dont_inherit=True))
    path = f"{SITE}/seaborn/__pycache__/__init__.cpython-311.pyc"
    tree.write(image, path, header + importlib.util.source_hash(edited) + code)


@DEFECTS.defect(
    "openssl-is-a-text",
    "libssl.so.3 in the prefix is neither conda's nor the system's, but a text of ten bytes.",
    "conda-files-replaced",
    "elf-readable",
)
def _openssl_is_a_text(image: Path) -> None:
    tree.write(image, f"{PREFIX}/lib/libssl.so.3", "0123456789", 0o755)


@DEFECTS.defect(
    "openssl-of-conda",
    "libssl.so.3 and libcrypto.so.3 in the prefix are conda's, as before their replacement.",
    "conda-files-replaced",
)
def _openssl_of_conda(image: Path) -> None:
    consistency.undo_openssl(image)


@DEFECTS.defect(
    "openssl-of-system",
    "libssl.so.3 in the prefix is the system's, in the image that should keep conda's.",
    "conda-files-unchanged",
    images=("ml-tensorflow-cpu",),
)
def _openssl_of_system(image: Path) -> None:
    tree.copy(image, consistency.OPENSSL[1], tree.at(image, f"{LIB}/libssl.so.3"), 0o755)


@DEFECTS.defect(
    "requirement-missing",
    "The Python package sneaky, in image and list, requires ghost, which is not installed.",
    "python-requirements",
    "package-list-checked-in",
)
def _requirement_missing(image: Path) -> None:
    _add_sneaky(image, "ghost>=2")


@DEFECTS.defect(
    "requirement-version",
    "The Python package sneaky, in image and list, requires a numpy older than 1.",
    "python-requirements",
    "package-list-checked-in",
)
def _requirement_version(image: Path) -> None:
    _add_sneaky(image, "numpy<1; sys_platform == 'linux'")


@DEFECTS.defect(
    "depends-missing",
    "The conda package sneaky, in image and list, depends on ghost, which is not installed.",
    "conda-depends",
    "package-list-checked-in",
)
def _depends_missing(image: Path) -> None:
    _add_conda_sneaky(image, "ghost >=2")


@DEFECTS.defect(
    "depends-version",
    "The conda package sneaky, in image and list, depends on a Python older than 3.",
    "conda-depends",
    "package-list-checked-in",
)
def _depends_version(image: Path) -> None:
    _add_conda_sneaky(image, "python >=2.7,<3.0a0")


@DEFECTS.defect(
    "depends-build",
    "The conda package sneaky, in image and list, depends on a build of python_abi for 3.12.",
    "conda-depends",
    "package-list-checked-in",
)
def _depends_build(image: Path) -> None:
    _add_conda_sneaky(image, "python_abi * *_cp312")


@DEFECTS.defect(
    "base-package-missing",
    "webcolors, which ml-base has, is missing in ml-pyroot.",
    "packages-of-base",
    "package-list-checked-in",
    images=(ML_PYROOT,),
)
def _base_package_missing(image: Path) -> None:
    uninstall(image, "webcolors", ("webcolors",))


@DEFECTS.defect(
    "singularity-d-incomplete",
    "/.singularity.d has no script that starts an instance.",
    "singularity-d",
)
def _singularity_d_incomplete(image: Path) -> None:
    tree.remove(image, "/.singularity.d/actions/start")


@DEFECTS.defect(
    "singularity-d-mode", "The runscript in /.singularity.d has the mode 0644.", "singularity-d"
)
def _singularity_d_mode(image: Path) -> None:
    tree.chmod(image, "/.singularity.d/runscript", 0o644)


@DEFECTS.defect(
    "private-file", "A file in the prefix may be read by its owner alone.", "deployed-readable"
)
def _private_file(image: Path) -> None:
    tree.chmod(image, _FILE, 0o600)


@DEFECTS.defect(
    "private-directory",
    "A directory in the prefix may be entered by its owner alone.",
    "deployed-readable",
)
def _private_directory(image: Path) -> None:
    tree.at(image, f"{PREFIX}/share/private").mkdir(mode=0o700)


def _add_sneaky(image: Path, requirement: str) -> None:
    info = f"{SITE}/sneaky-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: sneaky\nVersion: 1.0\nRequires-Dist: {requirement}\n"
    tree.write(image, f"{info}/METADATA", metadata)
    edit_list(image, lambda lines: [*lines, "sneaky 1.0"])


def _add_conda_sneaky(image: Path, dependency: str) -> None:
    write_records(image, [CondaPackage("sneaky", "1.0", "h1234567_0", depends=(dependency,))])
    edit_list(image, lambda lines: [*lines, "sneaky 1.0"])
