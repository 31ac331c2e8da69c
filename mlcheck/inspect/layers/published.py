"""Files that packages brought: their content is published, so that it is no secret.

The records of pip (RECORD, https://packaging.python.org/en/latest/specifications/
recording-installed-packages/), conda (conda-meta), dpkg and rpm say which files are a package's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.layers.places import SITE
from mlcheck.inspect.packages import rpm_database

RECORD_LIMIT = 16 * 1024 * 1024
"""Bytes of one record; the largest of conda has 5 MB."""

FILES_LIMIT = 1000
"""Most files whose packages are looked for."""

_DPKG = "/var/lib/dpkg"
_RPM = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")


@dataclass(frozen=True, slots=True)
class Owned:
    """Files, and whether they are as a package brought them.

    Args:
        files: digest and path to True, or to False if a record of its package does not have it so.
            Files of which no record says anything are left out.
    """

    files: Mapping[str, bool]

    def __call__(self, path: str, digest: str) -> bool | None:
        """Return whether a file is as a package brought it, or None if no record says anything."""
        return self.files.get(f"{digest} {path}")


def owned(rootfs: RootFS, files: Sequence[tuple[str, str]]) -> Owned:
    """Look for files in the records of packages.

    Args:
        files: paths and SHA-256 of their contents, in hexadecimal.

    Raises:
        ProbeError: this machine forbids reading a record.
    """
    files = files[:FILES_LIMIT]
    records = _Records(rootfs)
    of_rpm = _of_rpm(rootfs, [path for path, _ in files])
    found: dict[str, bool] = {}
    for path, digest in files:
        told = (
            *(records.pip(path, digest), records.conda(path, digest)),
            *(records.dpkg(path, digest), of_rpm.get(path)),
        )
        said = [one for one in told if one is not None]
        if said:
            found[f"{digest} {path}"] = any(said)
    return Owned(found)


class _Records:
    """The records of an image, each read once."""

    def __init__(self, rootfs: RootFS) -> None:
        self._rootfs = rootfs
        self._read: dict[tuple[str, str], list[bytes]] = {}

    def _all(self, directory: str, ending: str) -> list[bytes]:
        """Return the records in a directory."""
        key = directory, ending
        if key not in self._read:
            self._read[key] = []
            for name in self._rootfs.listdir(directory):
                path = f"{directory}/{name}"
                if ending == "RECORD" and name.endswith(".dist-info"):
                    path += "/RECORD"
                elif not name.endswith(ending):
                    continue
                try:
                    self._read[key].append(b"\n" + self._rootfs.read(path, RECORD_LIMIT))
                except Unreadable:
                    continue
        return self._read[key]

    def pip(self, path: str, digest: str) -> bool | None:
        site = SITE.search(path)
        if site is None:
            return None
        name = path[site.end() :].encode("utf-8", "surrogateescape")
        wanted = base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=")
        package = b"\n" + name.partition(b"/")[0] + b"/"
        known = False
        for record in self._all(path[: site.end() - 1], "RECORD"):
            at = record.find(b"\n" + name + b",")
            if at >= 0:
                line = record[at + 1 :].partition(b"\n")[0]
                return line[len(name) + 1 :].partition(b",")[0] == b"sha256=" + wanted
            known = known or (b"/" in name and package in record)
        return False if known else None

    def conda(self, path: str, digest: str) -> bool | None:
        above = posixpath.dirname(path)
        while above not in ("/", ""):
            name = path[len(above) + 1 :]
            quoted = json.dumps(name).encode()
            for record in self._all(f"{above}/conda-meta", ".json"):
                if quoted in record:
                    return _of_conda(record, name, digest)
            above = posixpath.dirname(above)
        return None

    def dpkg(self, path: str, digest: str) -> bool | None:
        name = path.encode("utf-8", "surrogateescape")
        if path.startswith("/etc/"):
            # For others to edit: the checksum tells whether anybody did.
            for status in self._all(_DPKG, "status"):
                _, found, rest = status.partition(b"\n " + name + b" ")
                if found:
                    return rest.partition(b"\n")[0].split(b" ")[0] == self._md5(path, digest)
            return None
        line = b"\n" + name + b"\n"
        lists = self._all(f"{_DPKG}/info", ".list")
        return True if any(line in record for record in lists) else None

    def _md5(self, path: str, digest: str) -> bytes | None:
        """Return the checksum of dpkg's of a file of the image that has this digest."""
        try:
            content = self._rootfs.read(path, RECORD_LIMIT)
        except Unreadable:
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            return None
        return hashlib.md5(content, usedforsecurity=False).hexdigest().encode()


def _of_rpm(rootfs: RootFS, paths: Sequence[str]) -> Mapping[str, bool]:
    """Return those of some files that are a package's of rpm, but for settings."""
    wanted = [path for path in paths if not path.startswith("/etc/")]
    for database in _RPM if wanted else ():
        if rootfs.resolve(database).file is not None:
            try:
                return dict.fromkeys(rpm_database.owned(rootfs, database, wanted), True)
            except Unreadable:
                return {}
    return {}


def _of_conda(record: bytes, name: str, digest: str) -> bool | None:
    try:
        document = json.loads(record)
        paths = document["paths_data"]["paths"]
        entry = next(one for one in paths if one["_path"] == name)
        return digest in (entry.get("sha256_in_prefix"), entry.get("sha256"))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError, StopIteration):
        return None
