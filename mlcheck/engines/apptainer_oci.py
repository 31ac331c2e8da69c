"""What an archive or OCI layout says of its image: digest and architecture.

The forms: https://github.com/opencontainers/image-spec/blob/main/image-layout.md and what
`docker save` writes. Everything in them is somebody else's word and read within bounds.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIMIT = 4 * 1024 * 1024
"""Bytes of one JSON document; registries allow no larger manifest."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Read = Callable[[str], bytes]
"""The content of a file by its path in the archive or directory."""


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of an image; None: it does not tell.

    Args:
        digest: of its manifest, or for docker's archives of its configuration (the image ID).
        architecture: as OCI names it ("amd64").
    """

    digest: str | None = None
    architecture: str | None = None


def describe(kind: str, path: Path) -> Described:
    """Look into an image of kind docker-archive, oci or oci-archive.

    What cannot be understood is not told: the engine that unpacks the image judges that.
    """
    try:
        with _opened(kind, path) as read:
            return _docker(read) if kind == "docker-archive" else _layout(read)
    except (
        *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError),
        *(RecursionError, tarfile.TarError, zlib.error),
    ):
        return Described()


@contextmanager
def _opened(kind: str, path: Path) -> Iterator[Read]:
    if kind == "oci":

        def read_file(name: str) -> bytes:
            with (path / name).open("rb") as file:
                return file.read(_LIMIT)

        yield read_file
        return
    with tarfile.open(path) as archive:

        def read_member(name: str) -> bytes:
            file = archive.extractfile(archive.getmember(name))
            return file.read(_LIMIT) if file else b""

        yield read_member


def _docker(read: Read) -> Described:
    (first, *_) = json.loads(read("manifest.json"))
    config = read(first["Config"])
    return Described(_sha256(config), _architecture(config))


def _layout(read: Read) -> Described:
    manifests = json.loads(read("index.json"))["manifests"]
    if len({entry["digest"] for entry in manifests}) != 1:
        return Described()
    manifest = _blob(read, manifests[0]["digest"])
    found: dict[str, Any] = json.loads(manifest)
    config = found.get("config")
    architecture = _architecture(_blob(read, config["digest"])) if config else None
    return Described(_sha256(manifest), architecture)


def _blob(read: Read, digest: str) -> bytes:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(digest)
    return read(f"blobs/sha256/{digest.removeprefix('sha256:')}")


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _architecture(config: bytes) -> str | None:
    architecture = json.loads(config).get("architecture")
    return architecture if isinstance(architecture, str) else None
