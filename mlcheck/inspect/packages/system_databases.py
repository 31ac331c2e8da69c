"""The databases of Debian's and Alpine's package managers, which are text.

dpkg counts a package as installed also while triggers of it, or for it, are pending (dpkg(1),
"Package states"). apk has no states: what its database holds is installed
(https://wiki.alpinelinux.org/wiki/Apk_spec, "Installed Database V2").
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import shortened
from mlcheck.inspect.packages.facts import InstalledPackage, InstalledPackages, PackageSource
from mlcheck.model.files import Problem

LIMIT = 64 * 1024 * 1024
"""Bytes of a database; a full desktop's has 5 MB."""

DPKG = "/var/lib/dpkg/status"
DPKG_D = "/var/lib/dpkg/status.d"
APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")

_INSTALLED = ("installed", "triggers-awaited", "triggers-pending")


def dpkg(rootfs: RootFS) -> InstalledPackages:
    """Read dpkg's status file, and status.d of distroless images.

    Raises:
        ProbeError: this machine forbids reading it.
    """
    # status.d also holds lists of checksums.
    names = (name for name in rootfs.listdir(DPKG_D) if not name.endswith(".md5sums"))
    paths = [f"{DPKG_D}/{name}" for name in names]
    if rootfs.resolve(DPKG).file is not None:
        paths.append(DPKG)
    return _read(rootfs, "dpkg", paths)


def apk(rootfs: RootFS) -> InstalledPackages:
    """Read apk's database.

    Raises:
        ProbeError: this machine forbids reading it.
    """
    paths = [path for path in APK if rootfs.resolve(path).file is not None]
    found = _read(rootfs, "apk", paths[:1])
    # Hardly any image has it: its absence is not worth a note.
    return found if paths else InstalledPackages((), frozenset())


_KEYS = {"dpkg": ("Package", "Version", "Architecture"), "apk": ("P", "V", "A")}


def _read(rootfs: RootFS, manager: PackageSource, paths: list[str]) -> InstalledPackages:
    packages: list[InstalledPackage] = []
    problems: list[Problem] = []
    unread: dict[str, str] = {}
    is_read = False
    for path in paths:
        try:
            content = rootfs.read(path, LIMIT).decode("utf-8", "replace")
        except Unreadable as unreadable:
            problems.append(Problem(unreadable.path, unreadable.what))
            unread[manager] = str(unreadable)
            continue
        is_read = True
        for fields in stanzas(content):
            # "install ok installed"; without Status, as in status.d, every package is installed.
            status = fields.get("Status", "installed").split() or [""]
            if status[-1] not in _INSTALLED:
                continue
            name, version, arch = (fields.get(key, "") for key in _KEYS[manager])
            if not name or not version:
                what = f"has an entry without {' or '.join(_KEYS[manager][:2])}: "
                problems.append(Problem(path, what + shortened(str(fields))))
                continue
            if manager == "dpkg":
                version = version.partition(":")[2] or version
            packages.append(InstalledPackage(name, version, manager, path, arch))
    return InstalledPackages(
        tuple(packages),
        frozenset({manager} if is_read else ()),
        tuple(problems),
        () if paths else (f"There is no {manager} database.",),
        unread=unread,
    )


def stanzas(content: str) -> Iterator[dict[str, str]]:
    """Yield the stanzas of deb822(5), without continuation lines."""
    fields: dict[str, str] = {}
    for line in io.StringIO(content):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            key, _, value = line.partition(":")
            fields[key] = value.strip()
    if fields:
        yield fields
