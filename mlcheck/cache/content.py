"""Cache keys: identify an image's content, so that kept facts hold while it is unchanged.

A digest identifies content if the engine has compared the two. A directory has no digest: its
fingerprint is computed from the status of every file, without reading any.

Anybody who changes a file's content can reset its size and its times of access and modification;
only the kernel sets the time of its last change (ctime). Only a change within the same tick of the
kernel's clock leaves no trace, hence a tree in which something has just changed has no fingerprint
(compare the "racy" files of git's index: https://git-scm.com/docs/racy-git).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcheck.engines import installed
from mlcheck.engines.base import OpenImage
from mlcheck.image.api import RootFS
from mlcheck.image.paths import without_collection
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.image.scan import AHEAD, Packed, look

SETTLED_NS = 2_000_000_000
"""Nanoseconds for which nothing may have changed. The kernel's clock ticks every 1 to 10 ms; a file
server may count whole seconds."""

Seen = Callable[[Callable[[], Sequence[Packed]]], object]

_CVMFS_FLAT = re.compile(r"/cvmfs/[^/]+/\.flat/[0-9a-f]{2}/([0-9a-f]{64})")
"""CVMFS names the directory of an image after the digest of its configuration, and makes it
read-only for everybody but its publisher: `mlcheck.inspect.deployed.probe`."""


@dataclass(frozen=True, slots=True)
class Content:
    """Content that a key identifies.

    Args:
        kind: "image" or "layer".
        name: its name for people.
        key: equal for two contents only if they are the same.
    """

    kind: str
    name: str
    key: str


def of_image(image: OpenImage, since_ns: int) -> Content | None:
    """Identify the content of an open image; return None if nothing identifies it.

    Args:
        since_ns: a time (`time.time_ns`) before anything was read from it. Whatever changed later
            may have been read either before the change or after it.
    """
    key = _key(image, since_ns)
    if key is None:
        return None
    # Engines report different facts of a file (inode numbers, owners as users see them).
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
    pinned = installed.declaration(image.engine).pins_layers
    if pinned and ref.kind in ("oci", "oci-archive"):
        # The digest is that of a configuration, and podman does not compare the layers with it.
        told = isinstance(rootfs, DirectoryRootFS) and rootfs.stored
        return f"digest {image.digest}" if told else None
    if pinned or ref.kind == "sif":
        return f"digest {image.digest}"
    if ref.kind in ("docker-archive", "oci-archive", "oci"):
        if isinstance(rootfs, DirectoryRootFS):
            return None  # unpacked by apptainer for this run, in its own way
        # The digest is what the archive claims; its layers have not been compared with it.
        own = fingerprint(Path(ref.location).expanduser(), since_ns)
        return own and f"archive {image.digest} {own}"
    return None


def _on_cvmfs(path: Path) -> str | None:
    flat = _CVMFS_FLAT.fullmatch(str(path.resolve()))
    return f"cvmfs {flat[1]} {path.stat().st_mtime_ns}" if flat else None


def fingerprint(path: Path, since_ns: int, seen: Seen = lambda *_: None) -> str | None:
    """Return the fingerprint of a file or tree as it is. Return None if something in it changed
    after `since_ns` or just before, or if the status of something cannot be read.

    Takes about 5 microseconds for each file.

    Args:
        seen: called with a function that returns what is in each
            directory (`DirectoryRootFS.remember`).
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
    """Reuse the scan made for a fingerprint that nobody needs, so that probes need not
    scan again."""
    if not isinstance(rootfs, DirectoryRootFS):
        return
    status = os.fstat(rootfs.fileno())
    if ahead := AHEAD.pop((status.st_dev, status.st_ino), None):
        rootfs.remember(lambda: ahead.directories() if ahead.found(status) else ())


def _tree(top: Path, status: os.stat_result, seen: Seen) -> tuple[int, str]:
    """Return the newest ctime below a directory, and a hash of everything in it."""
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
