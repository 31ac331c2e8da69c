"""`newEnv-base.tgz`, from which environments are made: read on this machine, never unpacked."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterator
from typing import BinaryIO

from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.image.budget import Budget
from mlcheck.image.byte_sources import Inflated, Passing, compression
from mlcheck.image.tar_headers import BrokenArchive, Member
from mlcheck.image.tar_reader import TarReader
from mlcheck.inspect.answers import opened, shortened
from mlcheck.inspect.environments.facts import ArchiveLink, EnvArchive
from mlcheck.inspect.files.contents import shell_problem
from mlcheck.inspect.listing import Listing
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.machine import shell_syntax
from mlcheck.machine.shell_syntax import NotRead
from mlcheck.model.errors import needed
from mlcheck.model.files import Problem
from mlcheck.model.units import binary
from mlcheck.profile.catalog import Profile

MOST_MEMBERS = 500_000
"""Members of one archive; those of the published images are tens of thousands of links."""

MOST_BYTES = 512 * 1024**2
"""Bytes that are unpacked while it is read: headers and the few files."""

MOST_NAMES = 64 * 1024**2
"""Characters of the names and targets of all members; those of the published images have 5 MB."""

MOST_PROBLEMS = 100

MOST_SCRIPTS = 100
SCRIPT_LIMIT = 64 * 1024
"""Bytes of a script that is read."""

_PIECE = 64 * 1024

BASE = "baseEnv_dir"
"""Name, in an environment, of the link to the prefix of the image."""


@fact()
def environment_archive(
    rootfs: RootFS, ask: Ask, profile: Profile, prefix: PrefixPath
) -> EnvArchive:
    """Read the archive of links from which environments are made."""
    expected = profile.expect.new_env
    path = None if expected is None else expected.archive
    why = "the profile promises no archive of links"
    archive = ask(probe, rootfs, needed(path, why), prefix)
    problems, unread, shells = list(archive.problems), [], shell_syntax.here()
    for name, text in archive.scripts.items():
        try:
            what = shell_problem(text.encode(), "bash", shells)
        except NotRead as why:
            unread.append(f"its member {shortened(name)} {why}")
        else:
            if what:
                problems.append(Problem(archive.path, f"its member {shortened(name)} {what}"))
    return dataclasses.replace(archive, problems=tuple(problems), unread=tuple(unread))


def probe(rootfs: RootFS, path: str, prefix: str) -> EnvArchive:
    """Read the archive's members, and resolve its links.

    Args:
        prefix: the image's own, the target of `baseEnv_dir` in an environment.

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
    listing = Listing(rootfs, prefix)
    links = (_link(listing, prefix, name, to, found.seen) for name, to in found.links.items())
    problems = tuple(found.problems)
    return EnvArchive(path, found.files, tuple(links), found.directories, problems, found.scripts)


def _read(packed: BinaryIO, found: _Members) -> None:
    """Add all members up to the first that cannot be read."""
    reader = TarReader(Passing(_unpacked(packed)), end_may_be_unmarked=True)
    try:
        for number, member in enumerate(iter(reader.next, None)):
            if number >= MOST_MEMBERS:
                raise BrokenArchive(f"has more than {MOST_MEMBERS} members")
            found.take(member)
            if member.type == "file" and member.name.endswith(".sh"):
                found.read(member, reader)
    except BrokenArchive as error:
        found.problems.append(Problem(found.path, f"cannot be read as a .tgz: it {error}"))


def _unpacked(packed: BinaryIO) -> Iterator[bytes]:
    """Decompress a file, a piece at a time, up to MOST_BYTES."""
    source = _Packed(packed)
    if compression(source.pread(0, 4)) != "gzip":
        raise BrokenArchive("is not compressed by gzip")
    unpacked = Inflated(source, "gzip", Budget())
    count = 0
    while piece := unpacked.pread(count, _PIECE):
        count += len(piece)
        if count > MOST_BYTES:
            raise BrokenArchive(f"holds more than {binary(MOST_BYTES)}")
        yield piece


class _Packed:
    """The bytes of an open file by their offset."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def pread(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        pieces = []
        while count > 0 and (piece := self._file.read(count)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


class _Members:
    """The members of an archive, by name."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self.directories = 0
        self.scripts: dict[str, str] = {}
        self.seen: set[str] = set()
        self.problems: list[Problem] = []
        self._length = 0

    def take(self, member: Member) -> None:
        self._length += len(member.name) + len(member.target or "")
        if self._length > MOST_NAMES:
            raise BrokenArchive(f"has names of more than {binary(MOST_NAMES)}")
        name = posixpath.normpath(member.name)
        if _outside(member.name):
            self._refuse(member.name, "is a path out of it")
            return
        if name in self.seen and member.type != "directory":
            self._refuse(name, "stands in it twice")
        elif member.target is not None and member.type == "symlink":
            self.links[name] = member.target
        elif member.type == "file":
            self.files[name] = member.size
        elif member.type == "directory":
            self.directories += 1
        else:
            self._refuse(name, "is a hard link, a device or a FIFO")
        self.seen.add(name)

    def read(self, member: Member, reader: TarReader) -> None:
        """Keep the text of a script."""
        name = posixpath.normpath(member.name)
        if len(self.scripts) < MOST_SCRIPTS and 0 < member.size <= SCRIPT_LIMIT:
            pieces = iter(lambda: reader.read(SCRIPT_LIMIT), b"")
            self.scripts[name] = b"".join(pieces).decode("utf-8", "replace")

    def refuse_below_links(self) -> None:
        """Refuse members below a link: they would be unpacked at its target, inside the image."""
        above = None
        # In this order, all that lies below a link comes behind it.
        for name in sorted(self.seen, key=lambda name: name.replace("/", "\0")):
            if above is not None and name.startswith(f"{above}/"):
                self._refuse(name, f"lies below the link {shortened(above)}")
            elif name in self.links:
                above = name

    def _refuse(self, name: str, what: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(self.path, f"its member {shortened(name)} {what}"))


def _outside(name: str) -> bool:
    return name.startswith("/") or posixpath.normpath(name).split("/")[0] == ".."


def _link(listing: Listing, prefix: str, name: str, target: str, members: set[str]) -> ArchiveLink:
    within = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if target.startswith("/") or not target or _outside(within):
        return ArchiveLink(name, target, None, False)
    if within == BASE or within.startswith(f"{BASE}/"):
        # Followed inside the image, as it will be in an environment.
        below = within.removeprefix(BASE)
        return ArchiveLink(name, target, within, not below or listing.leads(prefix + below))
    return ArchiveLink(name, target, within, within in members)
