"""`newEnv-base.tgz`, from which environments are made: read on this machine, never unpacked."""

from __future__ import annotations

import gzip
import posixpath
import tarfile
import zlib
from typing import BinaryIO, cast

from mlcheck.engines.base import RootFS, Unreadable
from mlcheck.facts import ArchiveLink, EnvArchive, Problem
from mlcheck.probes.reading import opened, shortened

MOST_MEMBERS = 500_000
"""Members of one archive; those of the published images are tens of thousands of links."""

MOST_BYTES = 512 * 1024**2
"""Bytes that are unpacked while it is read: headers and the few files."""

MOST_PROBLEMS = 100

BASE = "baseEnv_dir"
"""Name, in an environment, of the link to the prefix of the image."""


class _Bounded:
    """A file that refuses to give more than `left` bytes."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError(f"it holds more than {MOST_BYTES >> 20} MiB")
        return data


def probe(rootfs: RootFS, path: str, prefix: str) -> EnvArchive:
    """Read the archive's members, and see where its links lead.

    Args:
        prefix: the image's own, to which `baseEnv_dir` leads in an environment.

    Raises:
        ProbeError: this machine forbids reading it.
    """
    found = _Members(path)
    try:
        with opened(rootfs, path) as packed:
            _read(packed, found)
    except Unreadable as unreadable:
        found.problems.append(Problem(unreadable.path, unreadable.what))
    found.refuse_below_links()
    links = (_link(rootfs, prefix, name, to, found.seen) for name, to in found.links.items())
    return EnvArchive(path, found.files, tuple(links), found.directories, tuple(found.problems))


def _read(packed: BinaryIO, found: _Members) -> None:
    """Take in all members up to the first that cannot be read."""
    try:
        with gzip.GzipFile(fileobj=packed) as unzipped:
            stream = cast("BinaryIO", _Bounded(cast("BinaryIO", unzipped), MOST_BYTES))
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for number, member in enumerate(archive):
                    if number >= MOST_MEMBERS:
                        raise tarfile.ReadError(f"it has more than {MOST_MEMBERS} members")
                    # It would keep them all.
                    archive.members.clear()  # type: ignore[attr-defined]
                    found.take(member)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        found.problems.append(Problem(found.path, f"cannot be read as a .tgz: {error}"))


class _Members:
    """What is in an archive, by name."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self.directories = 0
        self.seen: set[str] = set()
        self.problems: list[Problem] = []

    def take(self, member: tarfile.TarInfo) -> None:
        name = posixpath.normpath(member.name)
        if _outside(member.name):
            self._refuse(member.name, "is a path out of it")
            return
        if name in self.seen and not member.isdir():
            self._refuse(name, "stands in it twice")
        elif member.issym():
            self.links[name] = member.linkname
        elif member.isreg():
            self.files[name] = member.size
        elif member.isdir():
            self.directories += 1
        else:
            self._refuse(name, "is a hard link, a device or a FIFO")
        self.seen.add(name)

    def refuse_below_links(self) -> None:
        """What lies below a link would be unpacked where the link leads: into the image."""
        for name in sorted(self.seen):
            above = posixpath.dirname(name)
            while above and above not in self.links:
                above = posixpath.dirname(above)
            if above:
                self._refuse(name, f"lies below the link {shortened(above)}")

    def _refuse(self, name: str, what: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(self.path, f"its member {shortened(name)} {what}"))


def _outside(name: str) -> bool:
    return name.startswith("/") or posixpath.normpath(name).split("/")[0] == ".."


def _link(rootfs: RootFS, prefix: str, name: str, target: str, members: set[str]) -> ArchiveLink:
    within = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if target.startswith("/") or not target or _outside(within):
        return ArchiveLink(name, target, None, False)
    if within == BASE or within.startswith(f"{BASE}/"):
        # Followed inside the image, as it will be in an environment.
        there = rootfs.resolve(prefix + within.removeprefix(BASE)).final is not None
        return ArchiveLink(name, target, within, there)
    return ArchiveLink(name, target, within, within in members)
