"""Hashes of files of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import opened

LIMIT = 16 * 1024**3
"""Bytes of a file that is read; the largest known library has 1.6 GB."""

_CHUNK = 1024 * 1024


def sha256(rootfs: RootFS, path: str) -> str:
    """Return the SHA-256 in hex of the file to which a path leads.

    Raises:
        Unreadable: there is no such file, or it is too large.
        ProbeError: this machine forbids reading it.
    """
    digest, size = hashlib.sha256(), 0
    with opened(rootfs, path) as content:
        while chunk := content.read(_CHUNK):
            size += len(chunk)
            if size > LIMIT:
                raise Unreadable(path, "is too large to be read")
            digest.update(chunk)
    return digest.hexdigest()


def of_files(rootfs: RootFS, paths: Sequence[str]) -> Mapping[str, str]:
    """Return the SHA-256 of each of the files that can be read.

    Raises:
        ProbeError: this machine forbids reading one.
    """
    found = {}
    for path in paths:
        try:
            found[path] = sha256(rootfs, path)
        except Unreadable:
            continue
    return found
