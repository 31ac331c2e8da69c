"""Packages: listed, installed, requested, imported, and required by each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

from mlcheck.model.files import Problem


@dataclass(frozen=True, slots=True)
class ListedPackage:
    """One line of a package list: name and version as written, and the line number from 1."""

    name: str
    version: str
    line: int


@dataclass(frozen=True, slots=True)
class PackageList:
    """A package list: `/list-of-pkgs-inside.txt` or its checked-in copy.

    Args:
        path: path from which it was read.
        entries: in the order of the file; one name may rightly occur with two versions.
        problems: lines that are neither package, header nor ruler; or the reason why nothing was
            read.
    """

    path: str
    entries: tuple[ListedPackage, ...]
    problems: tuple[Problem, ...] = ()


ListedPackages = NewType("ListedPackages", PackageList)
"""The package list in the image."""

CheckedInPackages = NewType("CheckedInPackages", PackageList)
"""The checked-in copy of the package list."""

BasePackages = NewType("BasePackages", PackageList)
"""The package list of the image that this one extends."""


PackageSource = Literal["conda", "dist-info", "rpm", "dpkg", "apk", "micromamba", "R"]

SYSTEM_SOURCES: frozenset[PackageSource] = frozenset({"rpm", "dpkg", "apk"})
"""The managers of the system's packages."""


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """One installed package.

    Args:
        version: for rpm, dpkg and apk with the release ("1.0.8-8.el9"), without an epoch.
        source: the database or record that lists it.
        record: path of that record in the image.
        arch: architecture of a package of the system, else "".
        owner: for a dist-info and a package of R, name of the conda record that lists it among its
            files, else "".
        prefix: root of its environment, or "" if it is the system's.
        replaced: of a Python package of conda's, the version that Python finds in its place, and
            where; else "".
    """

    name: str
    version: str
    source: PackageSource
    record: str
    arch: str = ""
    owner: str = ""
    prefix: str = ""
    replaced: str = ""


@dataclass(frozen=True, slots=True)
class HiddenPackage:
    """A Python package that is there, and that Python does not find.

    Args:
        path: of its metadata.
        why: the reason, in words.
    """

    name: str
    version: str
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class InstalledPackages:
    """All packages found, sorted by source and name.

    Args:
        sources: the sources that could be read at all; a missing database of system packages was
            looked for and could not be read (`notes` says why).
        notes: sources that were not read, and reasons, for people.
        unasked: packages that exist, but whose versions only a program of the image reports, which
            was not run.
        unread: "rpm", "dpkg" or another manager of packages to the reason why its existing database
            could not be read: its packages are unknown.
        hidden: Python packages that do not count, because Python does not find them.
    """

    packages: tuple[InstalledPackage, ...]
    sources: frozenset[PackageSource]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    unasked: frozenset[str] = frozenset()
    unread: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[HiddenPackage, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportResult:
    """One import in a fresh interpreter.

    Args:
        error: last line of the traceback, or how the interpreter ended; None if imported.
        seconds: wall time.
        version: of its package, as this interpreter finds it; "" if it finds none or was not asked.
    """

    module: str
    error: str | None
    seconds: float
    version: str = ""


@dataclass(frozen=True, slots=True)
class Imports:
    """The requested imports, in the order of the request."""

    results: tuple[ImportResult, ...]


ModuleImports = NewType("ModuleImports", Imports)
"""The promised modules, each imported in a fresh interpreter."""


@dataclass(frozen=True, slots=True)
class Tellers:
    """Programs of the image without which some packages cannot be listed.

    Args:
        rpm_database: path of a database in a format that only rpm reads, or None.
        rpm: path of the image's rpm, or None.
        micromamba: path of its micromamba, or None.
    """

    rpm_database: str | None
    rpm: str | None
    micromamba: str | None


@dataclass(frozen=True, slots=True)
class AskedPackage:
    """An installed package that somebody requested by name.

    Args:
        source: the records that say so: "conda" or "dist-info".
        modules: names that Python can import of it; empty if there are none.
    """

    name: str
    version: str
    source: PackageSource
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskedFor:
    """The packages that were requested by name, as far as conda and pip record it.

    Args:
        how: place of that record, in words.
        leaves: True if there is no record, and these are the packages that no other one needs.
    """

    packages: tuple[AskedPackage, ...]
    how: str
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class Distribution:
    """A Python package, as its metadata describes it.

    Args:
        requires: its Requires-Dist lines as written.
        path: of the metadata.
    """

    name: str
    version: str
    requires: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Distributions:
    """All Python packages of the prefix.

    Args:
        python: leading parts of the version of the prefix's Python ("3.11"), "" without one.
        doubled: packages of which one directory has several versions.
    """

    python: str
    distributions: tuple[Distribution, ...]
    problems: tuple[Problem, ...] = ()
    doubled: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Requested:
    """The packages that were requested by name, as `conda env export --from-history` lists them."""

    names: tuple[str, ...]
    source: str
    problems: tuple[Problem, ...] = ()
