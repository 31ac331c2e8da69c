"""The names by which requested packages are loaded."""

from __future__ import annotations

import fnmatch

from mlcheck.inspect.packages.facts import Requested
from mlcheck.profile.catalog import Profile


def names_to_load(requested: Requested, profile: Profile) -> tuple[dict[str, str], dict[str, str]]:
    """Map packages to the names to import in Python, and to load in R."""
    known = profile.expect.packages.requested or {}
    python, r = {}, {}
    for package in requested.names:
        key = key_of(package, profile)
        name = known[key] if key is not None else None
        if name is False:
            continue
        if package.startswith("r-"):
            r[package] = name or package.removeprefix("r-")
        else:
            python[package] = name or package.replace("-", "_")
    return python, r


def key_of(package: str, profile: Profile) -> str | None:
    """Return the key of packages.requested that is about a package, or None."""
    known = profile.expect.packages.requested or {}
    if package in known:
        return package
    return next((key for key in known if fnmatch.fnmatchcase(package, key)), None)
