"""Mounts as the kernel reports them: proc_pid_mountinfo(5).

Where an engine does not tell the directories of a container's files, as docker with containerd's
store, the mount of the container's root does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mount.

    Attributes:
        device: of its file system.
        root: the directory of that file system that is mounted.
        point: where it is mounted, as the process sees it.
        options: those of the file system.
    """

    device: int
    root: str
    point: str
    type: str
    options: tuple[str, ...]


def mounts(process: str = "self") -> Iterator[Mount]:
    """Iterate over the mounts that a process sees.

    Args:
        process: its ID.

    Raises:
        OSError: this user may not see them, or the process has ended.
    """
    content = Path(f"/proc/{process}/mountinfo").read_bytes()
    for line in os.fsdecode(content).splitlines():
        before, _, after = line.partition(" - ")
        _, _, numbers, root, point, *_ = before.split(" ")
        kind, _, options = after.split(" ")[:3]
        major, _, minor = numbers.partition(":")
        device = os.makedev(int(major), int(minor))
        yield Mount(device, _plain(root), _plain(point), kind, tuple(options.split(",")))


def overlaid(mount: Mount) -> list[str]:
    """Return the read-only directories that an overlay is merged from, the uppermost first; empty
    if they cannot be told."""
    options = [option.partition("=") for option in mount.options]
    lower: list[str] = []
    for name, _, value in options:
        if name == "lowerdir+":  # one each: of Linux 6.5 and newer
            lower.append(_plain(value))
        elif name == "lowerdir":
            lower += map(_plain, value.split(":"))
    # containerd shortens a long list: names from the directory of all snapshots.
    upper = next((Path(_plain(value)) for name, _, value in options if name == "upperdir"), None)
    if upper is not None and upper.is_absolute():
        lower = [str(upper.parent.parent / path) for path in lower]
    # A name with a colon or comma in it is written with a backslash.
    return [] if any("\\" in path or not path.startswith("/") for path in lower) else lower


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
