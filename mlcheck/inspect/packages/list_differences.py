"""Differences between a package list and the installed packages."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name

from mlcheck.inspect.packages import shown
from mlcheck.inspect.packages.facts import (
    SYSTEM_SOURCES,
    InstalledPackage,
    InstalledPackages,
    ListedPackage,
    PackageList,
)
from mlcheck.model.verdict import Finding, ShowFile
from mlcheck.profile.catalog import Profile

# Suffixes of names in rpm's and dpkg's lists (rpm --showrc; Debian's architectures).
_ARCHITECTURE = re.compile(r".+\.(x86_64|aarch64|ppc64le|s390x|i[3-6]86|noarch|amd64|arm64|all)")


@dataclass
class _Versions:
    """All known versions of one package, under its canonical name.

    `due` are the installed packages that the list must have a line for, `known` all installed ones.
    """

    listed: list[ListedPackage] = field(default_factory=list)
    due: list[InstalledPackage] = field(default_factory=list)
    known: list[InstalledPackage] = field(default_factory=list)


def differences(
    listed: PackageList, installed: InstalledPackages, profile: Profile
) -> list[Finding]:
    """Compare the list with conda's records, dist-info, the system's database and micromamba.

    Names are compared as PyPA and conda users write them: case, `-`, `_` and `.` alike. One name
    may have several versions (conda's xxhash is a C library, pip's a Python package). A
    dist-info that a conda record lists among its files is that package, and needs no line of its
    own.
    """
    packages: dict[str, _Versions] = defaultdict(_Versions)
    for entry in listed.entries:
        packages[canonicalize_name(entry.name)].listed.append(entry)
    wanted = set(profile.expect.packages.system)
    for package in installed.packages:
        name = package.name
        system = package.source in SYSTEM_SOURCES
        if system:
            name = f"{package.name}.{package.arch}"
        versions = packages[canonicalize_name(name)]
        versions.known.append(package)
        if (not system and not package.owner) or (system and package.name in wanted):
            versions.due.append(package)
    directories = shown.records(installed, profile)
    findings = [
        finding
        for name in sorted(packages)
        if name not in installed.unasked
        and (finding := _difference(packages[name], listed, installed, directories)) is not None
    ]
    findings += _system_findings(listed, installed, profile)
    findings += [
        Finding(p.path, p.what, "a readable record", show=ShowFile("cat -v", p.path))
        for p in installed.problems
    ]
    return findings


def _difference(
    versions: _Versions,
    listed: PackageList,
    installed: InstalledPackages,
    directories: Sequence[str],
) -> Finding | None:
    known = {package.version for package in versions.known}
    lines = {entry.version for entry in versions.listed}
    missing = [entry for entry in versions.listed if entry.version not in known]
    extra = [package for package in versions.due if package.version not in lines]
    if missing and _is_system(missing[0].name) and not installed.sources & SYSTEM_SOURCES:
        missing = []  # _system_findings says it once for all of them, or `unread` why not
    if not missing and not extra:
        return None
    subject = missing[0].name if missing else extra[0].name
    there = extra or versions.known
    found = " and ".join(sorted({f"{p.version} ({p.source})" for p in there})) or "not installed"
    if missing:
        expected = " and ".join(f"{entry.version} (line {entry.line})" for entry in missing)
    else:
        others = f" beside {', '.join(sorted(lines))}" if lines else ""
        expected = f"a line in {listed.path}{others}"
    if there:
        show = shown.version_of(there[0])
    elif _is_system(subject):
        show = shown.in_database(subject.rpartition(".")[0], installed)
    elif installed.packages:
        show = shown.not_there(subject, installed, directories)
    else:
        show = ShowFile(shown.lines_about(subject), listed.path)
    return Finding(subject, found, expected, show=show)


def _system_findings(
    listed: PackageList, installed: InstalledPackages, profile: Profile
) -> Iterator[Finding]:
    """Report the promised system packages that are not installed or cannot be looked up."""
    if installed.sources & SYSTEM_SOURCES:
        there = {p.name for p in installed.packages if p.source in SYSTEM_SOURCES}
        for index, name in enumerate(profile.expect.packages.system):
            if name not in there:
                source = profile.source("packages", "system", index)
                found = "not in the system's package database"
                yield Finding(name, found, "installed", source, shown.in_database(name, installed))
    elif not unread(installed) and any(_is_system(entry.name) for entry in listed.entries):
        yield Finding(
            "system packages",
            "the image has no database of rpm, dpkg or apk",
            "the packages that the list names with their architecture",
            show=ShowFile("ls -ld", "/var/lib/rpm", ("/usr/lib/sysimage/rpm", shown.DPKG)),
        )


def unread(installed: InstalledPackages) -> tuple[str, ...]:
    """Return why the system's packages are not known, if their database exists: what cannot be read
    is not empty."""
    if installed.sources & SYSTEM_SOURCES:
        return ()
    return tuple(installed.unread[name] for name in sorted(installed.unread))


def _is_system(name: str) -> bool:
    return _ARCHITECTURE.fullmatch(name) is not None
