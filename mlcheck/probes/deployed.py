"""Where an image lies as a directory, and what of it others can read.

CVMFS' tool lays images out as `/cvmfs/REPOSITORY/.flat/ab/abcd...`, named after the digest of the
image's configuration, and points a symlink `REGISTRY/NAME:TAG` there: `GetSingularityPath` in
https://github.com/cvmfs/cvmfs/blob/devel/ducc/docker-api/util.go.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlcheck.engines.base import RootFS
from mlcheck.facts import Deployment, File, UnreadableFiles

_FLAT = "/.flat/"


def deployment(directory: Path) -> Deployment:
    """How a directory of this machine was reached. Links are read, nothing is opened."""
    path = os.path.abspath(directory)  # noqa: PTH100 -- Path keeps `..` behind a link
    final = os.path.realpath(path)
    _, found, flat = f"{final}/".partition(_FLAT)
    cvmfs = bool(found) or any(name.startswith("/cvmfs/") for name in (path, final))
    return Deployment(path, final, cvmfs, flat.rstrip("/") if found else None)


def unreadable(rootfs: RootFS, top: str = "/") -> UnreadableFiles:
    """What users other than the owner cannot read below `top`.

    Raises:
        ProbeError: this machine forbids looking into a directory that others can read.
    """
    found: list[File] = []
    looked_at = 0
    pending = [top]
    while pending:
        directory = pending.pop().rstrip("/")
        for name in rootfs.listdir(directory or "/"):
            file = rootfs.lstat(f"{directory}/{name}")
            if file is None or file.type == "symlink":
                continue
            looked_at += 1
            needed = 0o005 if file.type == "directory" else 0o004
            if file.mode & needed != needed:
                found.append(file)
            elif file.type == "directory":
                pending.append(file.path)
    return UnreadableFiles(looked_at, tuple(sorted(found, key=lambda file: file.path)))
