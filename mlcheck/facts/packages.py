"""Packages: listed, installed, imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlcheck.facts.files import Problem


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
        path: where it was read.
        entries: in the order of the file; one name may rightly stand there with two versions.
        problems: lines that are neither package, header nor ruler; or why nothing was read.
    """

    path: str
    entries: tuple[ListedPackage, ...]
    problems: tuple[Problem, ...] = ()


PackageSource = Literal["conda", "dist-info", "rpm", "dpkg", "micromamba", "R"]


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """One package that is really there.

    Args:
        version: for rpm and dpkg with the release ("1.0.8-8.el9"), without an epoch.
        source: which database or record says so.
        record: path of that record in the image.
        arch: rpm's or dpkg's architecture, else "".
        owner: for a dist-info and a package of R, name of the conda record that lists it among its
            files, else "".
        prefix: root of the environment that it is in; "": it is the system's.
    """

    name: str
    version: str
    source: PackageSource
    record: str
    arch: str = ""
    owner: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class InstalledPackages:
    """All packages found, sorted by source and name.

    Args:
        sources: the sources that could be read at all; the database of system packages that is
            not among them was looked for and could not be read (`notes` says why).
        notes: what was not read and why, for people.
        unasked: packages whose versions only a program of the image tells, which was not run: they
            are there.
        unread: "rpm", "dpkg" or another manager of packages to why its database, which is there,
            could not be read: nobody knows which packages it has.
    """

    packages: tuple[InstalledPackage, ...]
    sources: frozenset[PackageSource]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    unasked: frozenset[str] = frozenset()
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportResult:
    """One import in a fresh interpreter.

    Args:
        error: last line of the traceback, or how the interpreter ended; None: imported.
        seconds: wall time.
    """

    module: str
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Imports:
    """All the asked-for imports, in the order asked."""

    results: tuple[ImportResult, ...]


@dataclass(frozen=True, slots=True)
class Tellers:
    """Programs of the image that alone can tell of some packages.

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
    """A package that somebody asked for by name, and that is installed.

    Args:
        source: "conda" or "dist-info": whose records say so.
        modules: names that Python can import of it; empty: none.
    """

    name: str
    version: str
    source: PackageSource
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskedFor:
    """The packages that were asked for by name, as far as conda and pip write it down.

    Args:
        how: where that stands, in words.
        leaves: whether nobody wrote it down, and these are the packages that no other one needs.
    """

    packages: tuple[AskedPackage, ...]
    how: str
    leaves: bool = False
