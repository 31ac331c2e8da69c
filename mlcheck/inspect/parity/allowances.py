"""Differences between two images that a profile allows."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from mlcheck.inspect.parity import differences, file_differences
from mlcheck.inspect.parity.differences import Aspect, Compared, Difference
from mlcheck.inspect.parity.facts import ImageFiles, Side
from mlcheck.profile.catalog import Profile

_OF_SYSTEM = (
    *("/etc/os-release", "/usr/lib/os-release", "/etc/lsb-release", "/etc/debian_version"),
    *("/etc/issue", "/etc/issue.net", "/etc/redhat-release", "/etc/system-release"),
)
"""Files that state the version of the operating system."""


def reason(difference: Difference, profile: Profile) -> str | None:
    """Return the reason for which the profile allows a difference, or None if it does not."""
    parity = profile.expect.parity
    if parity.os is not None and difference.version_of_system:
        return parity.os
    return _entry(difference.aspect, difference.names, profile)


def compare_files(
    a: Side, b: Side, files_a: ImageFiles, files_b: ImageFiles, profile: Profile
) -> Compared:
    """Compare the files of two images, without differences that are allowed."""

    def may(names: Sequence[str]) -> bool:
        if profile.expect.parity.os is not None and names[0] in _OF_SYSTEM:
            return True
        return _entry("files", names, profile) is not None

    changed = differences.changed_packages(a, b)
    owners = a.owns and b.owns
    return file_differences.compare(files_a, files_b, changed, may, owners=owners)


def _entry(aspect: Aspect, names: Sequence[str], profile: Profile) -> str | None:
    if aspect == "os":
        return None
    entries: dict[str, str] = getattr(profile.expect.parity, aspect)
    for glob, why in entries.items():
        if any(fnmatch.fnmatchcase(name, glob) for name in names):
            return why
    return None
