"""Commands that show packages to people: on a list, in a record, or nowhere."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mlcheck.inspect.packages.facts import InstalledPackage, InstalledPackages
from mlcheck.model.verdict import Show, ShowFile, ShowRun
from mlcheck.profile.catalog import Profile

DPKG = "/var/lib/dpkg/status"
"""The records of Debian's package manager."""

_MOST = 20
"""Directories in one command."""

_VERSION = shlex.join(["grep", "-oiE", '"?version"?: *"?[^",]*'])


def lines_about(name: str) -> str:
    """Return a command that shows the lines about a package, or that there is none."""
    return shlex.join(["grep", "-inF", "--", name])


def version_of(package: InstalledPackage) -> Show:
    """Return a command that shows the version in a package's record."""
    match package.source:
        case "conda":
            return ShowFile(_VERSION, package.record)
        case "dist-info" | "R":
            return ShowFile(_VERSION, package.record)
        case "micromamba":
            return ShowRun((package.record, "--version"))
        case "rpm":
            return ShowRun(("rpm", "-q", package.name))
        case "dpkg":
            words = ["grep", "-A9", "-Fx", f"Package: {package.name}"]
            return ShowFile(shlex.join(words), package.record or DPKG)
        case "apk":
            words = ["grep", "-A1", "-Fx", f"P:{package.name}"]
            return ShowFile(shlex.join(words), package.record)


def not_there(name: str, installed: InstalledPackages, directories: Sequence[str]) -> Show:
    """Return a command that shows that a package is not installed: the others of its kind.

    Args:
        directories: of the others (`records`).
    """
    if not directories:
        return in_database(name, installed)
    return ShowFile("ls", directories[0], tuple(directories[1:]))


def records(installed: InstalledPackages, profile: Profile) -> list[str]:
    """Return the first directories with records of conda and Python, those of the profile's prefix
    if it has any."""
    found = {p.record for p in installed.packages if p.source in ("conda", "dist-info")}
    prefix = f"{profile.expect.prefix or ''}/"
    own = {_directory(r) for r in found if r.startswith(prefix)}
    return sorted(own or {_directory(r) for r in found})[:_MOST]


def _directory(record: str) -> str:
    """Return the directory with the records of all packages: conda-meta, or site-packages."""
    parent = record.rpartition("/")[0]
    return parent.rpartition("/")[0] if parent.endswith("-info") else parent


def in_database(name: str, installed: InstalledPackages) -> Show:
    """Return a command that shows whether the system's package manager knows a package."""
    if "dpkg" in installed.sources:
        return ShowFile(shlex.join(["grep", "-A9", "-Fx", f"Package: {name}"]), DPKG)
    if "apk" in installed.sources:
        return ShowRun(("apk", "info", "-e", name))
    return ShowRun(
        ("rpm", "-q", name) if "rpm" in installed.sources else ("python3", "-m", "pip", "list")
    )
