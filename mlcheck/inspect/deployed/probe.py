"""Find the directory of a deployed image, and its files that others cannot read.

CVMFS' tool lays images out as `/cvmfs/REPOSITORY/.flat/ab/abcd...`, named after the digest of the
image's configuration, and points a symlink `REGISTRY/NAME:TAG` there: `GetSingularityPath` in
https://github.com/cvmfs/cvmfs/blob/devel/ducc/docker-api/util.go.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS
from mlcheck.inspect.deployed.facts import (
    NO_DIRECTORY,
    SINGULARITY_FILES,
    SINGULARITY_LIBS,
    SINGULARITY_LINKS,
    Deployment,
    PublishedDigest,
    SingularityFiles,
    UnreadableFiles,
)
from mlcheck.inspect.facts import Session
from mlcheck.inspect.registry import fact
from mlcheck.inspect.system import probe as system
from mlcheck.model.errors import NotApplicable, needed
from mlcheck.model.files import File

_FLAT = "/.flat/"


@fact()
def where_deployed(session: Session) -> Deployment | None:
    """Return the directory in which this machine has the image, or None if it has none."""
    if session.prepared.ref.kind not in ("directory", "reference"):
        return None
    directory = Path(session.prepared.location)
    return deployment(directory) if directory.is_absolute() and directory.is_dir() else None


@fact()
def published_digest(session: Session, place: Deployment | None) -> PublishedDigest:
    """Find the published image for a deployed one; a registry is queried only for one on CVMFS."""
    if place is None or place.flat is None or session.published_digest is None:
        return PublishedDigest(None, "the image is not on CVMFS")
    return session.published_digest(place.path)


@fact()
def singularity_files(rootfs: RootFS, ask: Ask, place: Deployment | None) -> SingularityFiles:
    """The paths by which apptainer starts an image that is deployed as a directory."""
    needed(place, NO_DIRECTORY)
    paths = [*SINGULARITY_FILES, SINGULARITY_LIBS, *SINGULARITY_LINKS]
    return SingularityFiles(ask(system.files, rootfs, paths))


@fact()
def unreadable_files(rootfs: RootFS, ask: Ask, place: Deployment | None) -> UnreadableFiles:
    """Find the files of a sandbox that others cannot read."""
    if needed(place, NO_DIRECTORY).cvmfs:
        raise NotApplicable("CVMFS publishes for everybody, and keeps no owners")
    return ask(unreadable, rootfs)


def deployment(directory: Path) -> Deployment:
    """Describe the way to a directory of this machine. Links are read, nothing is opened."""
    path = os.path.abspath(directory)  # noqa: PTH100 -- Path keeps `..` behind a link
    final = os.path.realpath(path)
    _, found, flat = f"{final}/".partition(_FLAT)
    cvmfs = bool(found) or any(name.startswith("/cvmfs/") for name in (path, final))
    return Deployment(path, final, cvmfs, flat.rstrip("/") if found else None)


def unreadable(rootfs: RootFS, top: str = "/") -> UnreadableFiles:
    """Find the files below `top` that users other than the owner cannot read.

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
