"""Files that an image has in place of a conda package's: whether they are what they should be."""

from __future__ import annotations

import fnmatch
import posixpath
import re
import struct
from collections.abc import Sequence

from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import opened
from mlcheck.inspect.conda.facts import CondaRecords, Replacement, Replacements
from mlcheck.inspect.digests import sha256
from mlcheck.inspect.registry import fact
from mlcheck.profile.catalog import Profile

_LIBRARY = re.compile(r".*\.so(\.[0-9]+)*")
_HEADER_SIZE = 18
_SHARED = 3
"""e_type of a library, ET_DYN (elf(5))."""


@fact()
def replacements(
    rootfs: RootFS, ask: Ask, recorded: CondaRecords, profile: Profile
) -> Replacements:
    """Look at the files that the profile says are replaced."""
    wanted = profile.expect.integrity.replacements()
    pairs = {
        file.path: one.by or ""
        for glob, one in wanted.items()
        for file in recorded.files
        if fnmatch.fnmatchcase(file.path, glob)
    }
    return ask(probe, rootfs, list(pairs), list(pairs.values()))


def probe(rootfs: RootFS, paths: Sequence[str], by: Sequence[str]) -> Replacements:
    """Compare each of the files with that of `by`, or with its own kind where that is "".

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    return Replacements(
        tuple(_replacement(rootfs, path, other) for path, other in zip(paths, by, strict=True))
    )


def _replacement(rootfs: RootFS, path: str, by: str) -> Replacement:
    final = rootfs.resolve(by).final if by else None
    if final is not None and final.type == "directory":
        by = f"{by.rstrip('/')}/{posixpath.basename(path)}"
    try:
        if not by:
            return Replacement(path, by, _another_kind(rootfs, path))
        same = sha256(rootfs, path) == sha256(rootfs, by)
    except Unreadable as unreadable:
        return Replacement(path, by, f"{unreadable.path} {unreadable.what}")
    return Replacement(path, by, "" if same else "neither the package's nor that file")


def _another_kind(rootfs: RootFS, path: str) -> str:
    """Return what a file is that has the name of a library and is none, or ""."""
    if not _LIBRARY.fullmatch(posixpath.basename(path)):
        return ""
    with opened(rootfs, path) as content:
        head = content.read(_HEADER_SIZE)
    if len(head) < _HEADER_SIZE or not head.startswith(b"\x7fELF"):
        return "no ELF file, in place of a library"
    order = "<" if head[5] == 1 else ">"
    (kind,) = struct.unpack_from(f"{order}H", head, 16)
    return "" if kind == _SHARED else "an ELF file that is no library"
