"""What pins the content of an image, so that a fact of it holds as long as that stays.

A digest does, where the engine has compared it with the content. Nothing pins a directory: its
fingerprint is taken from one look at every file, without reading any.

Whoever changes a file's content can set its size and its times of reading and writing back; the
time of its last change (ctime) is the kernel's alone. Only a change within the same tick of the
kernel's clock leaves no trace, hence a tree in which something changed just now has no
fingerprint (as git's index knows "racy" files:
https://git-scm.com/docs/racy-git).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcheck.engines.base import OpenImage, RootFS
from mlcheck.files import without_collection
from mlcheck.listing import AHEAD, Packed, look
from mlcheck.rootfs import DirectoryRootFS

SETTLED_NS = 2_000_000_000
"""How long nothing may have changed. The kernel's clock ticks every 1 to 10 ms; a file server may
count whole seconds."""

Seen = Callable[[Callable[[], Sequence[Packed]]], object]

_CVMFS_FLAT = re.compile(r"/cvmfs/[^/]+/\.flat/[0-9a-f]{2}/([0-9a-f]{64})")
"""CVMFS names the directory of an image after the digest of its configuration, and makes it
read-only for everybody but its publisher: `mlcheck.probes.deployed`."""

_STORES = ("docker", "podman")
"""Engines that compare every layer with the digests of the image's configuration."""


@dataclass(frozen=True, slots=True)
class Content:
    """Something whose content is pinned.

    Args:
        kind: "image" or "layer".
        name: for people.
        key: equal for two contents only if they are the same.
    """

    kind: str
    name: str
    key: str


def of_image(image: OpenImage, since_ns: int) -> Content | None:
    """What pins an open image; None: nothing does.

    Args:
        since_ns: a moment (`time.time_ns`) before anything was read from it. What has changed
            after that may have been read before the change, or after.
    """
    key = _key(image, since_ns)
    if key is None:
        return None
    # Engines differ in what they tell of a file (numbers of inodes, owners as users see them).
    return Content("image", image.ref.text, f"{image.engine} {os.geteuid()} {key}")


def _key(image: OpenImage, since_ns: int) -> str | None:
    ref, rootfs = image.ref, image.rootfs
    if image.digest is None:
        if not isinstance(rootfs, DirectoryRootFS):
            return None
        path = Path(
            f"/proc/self/fd/{rootfs.fileno()}"
        )  # the directory itself, wherever it is by now
        return _on_cvmfs(path) or fingerprint(path, since_ns, rootfs.remember)
    if image.engine in _STORES and ref.kind in ("oci", "oci-archive"):
        # The digest is that of a configuration, and podman does not compare the layers with it.
        told = isinstance(rootfs, DirectoryRootFS) and rootfs.stored
        return f"digest {image.digest}" if told else None
    if image.engine in _STORES or ref.kind == "sif":
        return f"digest {image.digest}"
    if ref.kind in ("docker-archive", "oci-archive", "oci"):
        if isinstance(rootfs, DirectoryRootFS):
            return None  # unpacked by apptainer for this run, in its own way
        # The digest is what the archive claims: whether its layers fit it was not computed.
        own = fingerprint(Path(ref.location).expanduser(), since_ns)
        return own and f"archive {image.digest} {own}"
    return None


def _on_cvmfs(path: Path) -> str | None:
    flat = _CVMFS_FLAT.fullmatch(str(path.resolve()))
    return f"cvmfs {flat[1]} {path.stat().st_mtime_ns}" if flat else None


def fingerprint(path: Path, since_ns: int, seen: Seen = lambda *_: None) -> str | None:
    """What stands for a file or tree as it is; None where something in it changed after
    `since_ns` or just before, or where something cannot be looked at.

    Takes about 5 microseconds for each file.

    Args:
        seen: told where it is to be learnt what is in each directory
            (`DirectoryRootFS.remember`).
    """
    try:
        status = path.stat()
        newest = status.st_ctime_ns
        found = repr((status[:7], status.st_mtime_ns, newest))
        if stat.S_ISDIR(status.st_mode):
            below, hashed = _tree(path, status, seen)
            newest, found = max(newest, below), f"{found} {hashed}"
    except (OSError, ValueError):
        return None
    if newest > since_ns - SETTLED_NS:
        return None
    return f"files {hashlib.sha256(found.encode()).hexdigest()}"


def already_looked_at(rootfs: RootFS) -> None:
    """Let what was seen for a fingerprint that nobody wants spare the probes a look."""
    if not isinstance(rootfs, DirectoryRootFS):
        return
    status = os.fstat(rootfs.fileno())
    if ahead := AHEAD.pop((status.st_dev, status.st_ino), None):
        rootfs.remember(lambda: ahead.directories() if ahead.found(status) else ())


def _tree(top: Path, status: os.stat_result, seen: Seen) -> tuple[int, str]:
    """The newest ctime below a directory, and a hash of all that lies there."""
    ahead = AHEAD.pop((status.st_dev, status.st_ino), None)
    if ahead is not None and (found := ahead.found(status)) is not None:
        seen(ahead.directories)
        return found
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with without_collection():
            newest, hashed, directories = look(root)
    finally:
        os.close(root)
    seen(lambda: directories)
    return newest, hashed
