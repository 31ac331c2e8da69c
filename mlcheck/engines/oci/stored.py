"""The layers of an image in the store of docker or podman, each in a directory of its own.

This holds for the storage drivers overlay2 (docker) and overlay (podman), which report the
directories, and for containerd's overlayfs, whose directories are those of the container's mount.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlcheck.engines.oci.mounts import mounts, overlaid
from mlcheck.image.rootfs import DirectoryRootFS, StoredLayer
from mlcheck.model.errors import ProbeError


def directories(of: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the store's directories of an image's layers, or of those below a container: LowerDir,
    the uppermost first, and UpperDir."""
    data = (of.get("GraphDriver") or {}).get("Data") or {}
    found = (str(data.get(name) or "") for name in ("LowerDir", "UpperDir"))
    lower, upper = (text.split(":") if text else [] for text in found)
    return lower, upper


def below_container(state: Mapping[str, Any], pid: int) -> list[str]:
    """Return the store's directories below a running container, the uppermost first; empty if they
    are unknown.

    Args:
        state: the engine's description of it (`inspect`).
        pid: its first process.

    Raises:
        OSError: this user may not see its mounts, or it has ended.
    """
    if told := directories(state)[0]:
        return told
    root = next((mount for mount in mounts(str(pid)) if mount.point == "/"), None)
    return overlaid(root) if root is not None and root.type == "overlay" else []


def stored_layers(
    image: Mapping[str, Any], below_container: Sequence[str], *, names_tell: bool
) -> tuple[StoredLayer, ...]:
    """Return the layers that a container's files are merged from; empty if they are unknown.

    Args:
        image: the engine's description of it (`inspect`).
        below_container: the store's directories below the container, the uppermost first.
        names_tell: True if the digests are only the image's claims, and the directories are named
            after the digests that the engine has computed itself.
    """
    digests = [str(digest) for digest in (image.get("RootFS") or {}).get("Layers") or ()]
    lower, upper = directories(image)
    # Docker puts a layer of its own over them (/etc/hosts, /dev).
    from_top = [*upper, *lower] or list(below_container[1:])
    if len(digests) != len(from_top) or list(below_container[-len(from_top) :]) != from_top:
        return ()
    paths = from_top[::-1]
    if names_tell and [Path(path).parent.name for path in paths] != _names(digests):
        return ()
    try:
        # Across several file systems, overlayfs shows inode numbers of its own.
        found = [DirectoryRootFS(Path(path)) for path in paths]
        if len({os.fstat(rootfs.fileno()).st_dev for rootfs in found}) != 1:
            return ()
    except (OSError, ProbeError):
        return ()
    return tuple(StoredLayer(*one) for one in zip(digests, found, strict=True))


def _names(digests: Sequence[str]) -> list[str]:
    """Return podman's names of the layers with these digests, each on top of those before.

    https://github.com/containers/image/blob/main/storage/storage_dest.go (layerID)
    """
    names: list[str] = []
    for digest in digests:
        name = digest.partition(":")[2]
        if names:
            name = hashlib.sha256(f"{names[-1]}+{name}".encode()).hexdigest()
        names.append(name)
    return names
