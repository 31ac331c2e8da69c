"""/etc/ld.so.conf: directories from which ldconfig(8) makes the cache, as some engines have it do
in a container that starts. The loader itself does not read it."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator

from mlcheck.image.api import RootFS, Unreadable

PATH = "/etc/ld.so.conf"
FILE_LIMIT = 1000
"""Files that are read, with those that are included."""

_SIZE_LIMIT = 64 * 1024


def directories(rootfs: RootFS) -> tuple[str, ...]:
    """Return the directories that it and the files included in it name; () if it is not there.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    found: dict[str, None] = {}
    seen: set[str] = set()
    pending = [PATH]
    while pending and len(seen) < FILE_LIMIT:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            text = rootfs.read(path, _SIZE_LIMIT).decode("utf-8", "surrogateescape")
        except Unreadable:
            continue
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["include"]:
                for pattern in words[1:]:
                    pending += _matching(rootfs, posixpath.join("/etc", pattern))
            elif words and words[0] != "hwcap":
                directory = " ".join(words).partition("=")[0].strip()
                if directory.startswith("/"):
                    found[directory.rstrip("/") or "/"] = None
    return tuple(found)


def _matching(rootfs: RootFS, pattern: str) -> Iterator[str]:
    """Yield the files of a pattern, of which only the last part may have wildcards."""
    directory, _, last = pattern.rpartition("/")
    names = fnmatch.filter(rootfs.listdir(directory or "/"), last)
    yield from (f"{directory}/{name}" for name in names if name[0] != "." or last[0] == ".")
