"""Faults of packages: the list, installed and promised packages, imports."""

from __future__ import annotations

import os
from pathlib import Path

from mlcheck.reference import dist_info, listing, rpmdb, tree
from mlcheck.reference.condameta import INSTALLED, CondaPackage
from mlcheck.reference.condameta import write as write_records
from mlcheck.reference.defects.base import ML_PYROOT, Catalogue, edit_list, record, uninstall
from mlcheck.reference.python import SITE
from mlcheck.reference.system import PACKAGES

DEFECTS = Catalogue()
_READABLE, _INSTALLED = "package-list-readable", "package-list-installed"
_CHECKED_IN = "package-list-checked-in"


@DEFECTS.defect(
    "list-missing-line",
    "The package list does not tell of numpy.",
    _INSTALLED,
    _CHECKED_IN,
    "packages-of-base",
)
def _list_missing_line(image: Path) -> None:
    edit_list(image, lambda lines: [line for line in lines if not line.startswith("numpy ")])


@DEFECTS.defect(
    "list-extra-line",
    "The package list tells of ghost 1.0, which is not installed.",
    _INSTALLED,
    _CHECKED_IN,
)
def _list_extra_line(image: Path) -> None:
    edit_list(image, lambda lines: [*lines, "ghost 1.0"])


@DEFECTS.defect(
    "list-wrong-version",
    "The package list tells of scipy 1.0.0; another is installed.",
    _INSTALLED,
    _CHECKED_IN,
)
def _list_wrong_version(image: Path) -> None:
    edit_list(
        image,
        lambda lines: ["scipy 1.0.0" if line.startswith("scipy ") else line for line in lines],
    )


@DEFECTS.defect(
    "list-empty",
    "The package list is empty.",
    _READABLE,
    _INSTALLED,
    _CHECKED_IN,
    "packages-of-base",
    "files",
)
def _list_empty(image: Path) -> None:
    tree.write(image, listing.PATH, "")


@DEFECTS.defect(
    "list-missing",
    "There is no package list.",
    _READABLE,
    _INSTALLED,
    _CHECKED_IN,
    "files",
    "packages-of-base",
)
def _list_missing(image: Path) -> None:
    tree.remove(image, listing.PATH)


@DEFECTS.defect(
    "list-garbage",
    "A line of the package list is neither a package nor text in UTF-8.",
    _READABLE,
    "files",
)
def _list_garbage(image: Path) -> None:
    content = tree.at(image, listing.PATH).read_bytes()
    tree.write(image, listing.PATH, content + b"\xff\xfe\x00 what is this supposed to be\n")


@DEFECTS.defect(
    "list-fifo",
    "The package list is a FIFO.",
    _READABLE,
    _INSTALLED,
    _CHECKED_IN,
    "files",
    "packages-of-base",
)
def _list_fifo(image: Path) -> None:
    tree.remove(image, listing.PATH)
    os.mkfifo(tree.at(image, listing.PATH), 0o644)


@DEFECTS.defect(
    "list-link-outside",
    "The package list is a link to /etc/shadow, which this image does not have.",
    _READABLE,
    _INSTALLED,
    _CHECKED_IN,
    "files",
    "packages-of-base",
)
def _list_link_outside(image: Path) -> None:
    tree.symlink(image, listing.PATH, "/etc/shadow")


@DEFECTS.defect(
    "dist-info-unlisted",
    "The Python package sneaky was added by pip, and the package list does not tell of it.",
    _INSTALLED,
)
def _dist_info_unlisted(image: Path) -> None:
    _add_sneaky(image)


@DEFECTS.defect(
    "conda-record-unlisted",
    "The conda package sneaky was added, and the package list does not tell of it.",
    _INSTALLED,
)
def _conda_record_unlisted(image: Path) -> None:
    write_records(image, [CondaPackage("sneaky", "1.0", "h1234567_0")])


@DEFECTS.defect(
    "conda-record-version",
    "conda installed zlib 1.2.13; the package list tells of 1.3.1.",
    _INSTALLED,
    "conda-depends",
    images=(ML_PYROOT,),
)
def _conda_record_version(image: Path) -> None:
    path = record(image, "zlib")
    content = tree.at(image, path).read_text()
    tree.remove(image, path)
    for before in ("zlib-1.3.1", '"version": "1.3.1"'):
        content = content.replace(before, before.replace("1.3.1", "1.2.13"))
    tree.write(image, path.replace("1.3.1", "1.2.13"), content)


@DEFECTS.defect(
    "conda-record-broken",
    "conda's record of python_abi ends in the middle.",
    _INSTALLED,
    "conda-files-present",
)
def _conda_record_broken(image: Path) -> None:
    path = record(image, "python_abi")
    content = tree.at(image, path).read_text()
    tree.write(image, path, content[: len(content) // 2])


@DEFECTS.defect(
    "rpm-version", "rpm installed git 1.8.3.1; the package list tells of another.", _INSTALLED
)
def _rpm_version(image: Path) -> None:
    old = rpmdb.RpmPackage("git", "1.8.3.1", "25.el7_9", "Fast version control system", "GPLv2")
    _write_rpmdb(image, [old if package.name == "git" else package for package in PACKAGES])


@DEFECTS.defect(
    "rpm-missing", "The package list tells of which; rpm has not installed it.", _INSTALLED
)
def _rpm_missing(image: Path) -> None:
    _write_rpmdb(image, [package for package in PACKAGES if package.name != "which"])


@DEFECTS.defect(
    "unrecorded-package",
    "The package sneaky was added to image and list, but not to the checked-in copy of the list.",
    _CHECKED_IN,
)
def _unrecorded_package(image: Path) -> None:
    _add_sneaky(image)
    edit_list(image, lambda lines: [*lines, "sneaky 1.0"])


@DEFECTS.defect(
    "unrecorded-update",
    "six is another version in image and list than in the checked-in copy of the list.",
    _CHECKED_IN,
    "conda-files-unchanged",
)
def _unrecorded_update(image: Path) -> None:
    _change_version(image, "six", "1.0.0")


@DEFECTS.defect(
    "package-missing",
    "seaborn is promised, and nothing of it is there.",
    "packages-promised",
    _CHECKED_IN,
    "imports",
    "packages-of-base",
)
def _package_missing(image: Path) -> None:
    uninstall(image, "seaborn", ("seaborn", "seaborn-base"))


@DEFECTS.defect(
    "package-version",
    "root is 6.28.4 in conda's record and in the list; 6.30.4 is promised.",
    "conda-depends",
    "packages-promised",
    _CHECKED_IN,
    images=(ML_PYROOT,),
)
def _package_version(image: Path) -> None:
    _change_conda_version(image, "root", "6.30.4", "6.28.4")


@DEFECTS.defect(
    "package-replaced",
    "pip installed uproot 5.1.0 over conda's 5.0.13, whose record is left; the list has both.",
    "packages-promised",
    _CHECKED_IN,
    "conda-files-present",
    "python-requirements",
)
def _package_replaced(image: Path) -> None:
    old = dist_info.find(image, "uproot")
    new = f"{SITE}/uproot-5.1.0.dist-info"
    tree.at(image, old).rename(tree.at(image, new))
    tree.replace(image, f"{new}/METADATA", "\nVersion: 5.0.13\n", "\nVersion: 5.1.0\n")
    edit_list(image, lambda lines: [*lines, "uproot 5.1.0"])


@DEFECTS.defect(
    "pip-interrupted",
    "pip was interrupted as it removed numpy: ~umpy-1.26.4.dist-info is left.",
    _INSTALLED,
)
def _pip_interrupted(image: Path) -> None:
    metadata = "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n"
    tree.write(image, f"{SITE}/~umpy-1.26.4.dist-info/METADATA", metadata)


@DEFECTS.defect(
    "list-doubled-line", "The line of numpy stands twice in the package list.", _READABLE
)
def _list_doubled_line(image: Path) -> None:
    lines = tree.at(image, listing.PATH).read_text().splitlines()
    numpy = next(at for at, line in enumerate(lines) if line.startswith("numpy "))
    lines.insert(numpy, lines[numpy])
    tree.write(image, listing.PATH, "\n".join(lines) + "\n")


@DEFECTS.defect(
    "import-missing",
    "The files of seaborn are gone, its records are there.",
    "imports",
    "conda-files-present",
)
def _import_missing(image: Path) -> None:
    tree.remove(image, f"{SITE}/seaborn")


@DEFECTS.defect(
    "import-fails",
    "Importing seaborn ends with ImportError: libnowhere.so.1: cannot open shared object file.",
    "imports",
    "conda-files-unchanged",
)
def _import_fails(image: Path) -> None:
    _spoil_seaborn(image, 'raise ImportError("libnowhere.so.1: cannot open shared object file")\n')


@DEFECTS.defect(
    "import-crashes", "Importing seaborn kills the interpreter.", "imports", "conda-files-unchanged"
)
def _import_crashes(image: Path) -> None:
    _spoil_seaborn(image, "import os\n\nos.abort()\n")


@DEFECTS.defect(
    "import-exits",
    "Importing seaborn ends the interpreter with exit code 0.",
    "imports",
    "conda-files-unchanged",
)
def _import_exits(image: Path) -> None:
    _spoil_seaborn(image, "import os\n\nos._exit(0)\n")


def _spoil_seaborn(image: Path, code: str) -> None:
    tree.write(image, f"{SITE}/seaborn/__init__.py", code)


def _write_rpmdb(image: Path, packages: list[rpmdb.RpmPackage]) -> None:
    database = "/var/lib/rpm/rpmdb.sqlite"
    tree.remove(image, database)
    rpmdb.write(tree.at(image, database), packages, int(INSTALLED.timestamp()))
    tree.at(image, database).chmod(0o644)


def _add_sneaky(image: Path) -> None:
    info = f"{SITE}/sneaky-1.0.dist-info"
    tree.write(image, f"{SITE}/sneaky.py", "")
    tree.write(image, f"{info}/METADATA", "Metadata-Version: 2.1\nName: sneaky\nVersion: 1.0\n")
    tree.write(image, f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
    tree.write(image, f"{info}/RECORD", "sneaky.py,,\nsneaky-1.0.dist-info/RECORD,,\n")


def _change_version(image: Path, name: str, version: str) -> None:
    """Change the version of a Python package in its metadata, its conda record and the list."""
    info = dist_info.find(image, name)
    old = info.removesuffix(".dist-info").rpartition("-")[2]
    moved = info.replace(f"-{old}.", f"-{version}.")
    tree.at(image, info).rename(tree.at(image, moved))
    tree.replace(image, f"{moved}/METADATA", f"\nVersion: {old}\n", f"\nVersion: {version}\n")
    _change_conda_version(image, name, old, version)


def _change_conda_version(image: Path, name: str, old: str, version: str) -> None:
    """Change the version of a package in its conda record and the list."""
    path = record(image, name)
    content = tree.at(image, path).read_text()
    tree.remove(image, path)
    tree.write(image, path.replace(f"-{old}-", f"-{version}-"), content.replace(old, version))
    edit_list(
        image,
        lambda lines: [f"{name} {version}" if line == f"{name} {old}" else line for line in lines],
    )
