"""Images in containerd's store, which docker uses if it was installed since version 29.

There, the Id of an image is the digest of its manifest, or of an index of manifests. Docker's API
shows neither the configuration nor its digest; root reads both from the store's files, which are
named after their digests and verified by them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.documents import DOCUMENT_LIMIT, Documents, documents_from
from mlcheck.engines.oci.errors import engine_errors

_CONTENT = "io.containerd.content.v1.content/blobs"
_SYSTEM = Path("/var/lib/containerd")
"""The directory of a containerd that docker did not start itself, containerd-config.toml(5)."""


def holds(image: Mapping[str, Any]) -> bool:
    """Return whether an image is in containerd's store.

    Args:
        image: docker's description of it.
    """
    descriptor = image.get("Descriptor")
    return isinstance(descriptor, dict) and descriptor.get("digest") == image.get("Id")


def documents(client: Client, image: Mapping[str, Any]) -> Documents | None:
    """Return the documents of an image in containerd's store, or None if this user or machine
    cannot read them.

    Args:
        image: docker's description of it.

    Raises:
        EngineError: docker did not answer.
    """
    digest = str(image["Id"])
    for place in _places(client):
        read = functools.partial(_read, place)
        with contextlib.suppress(OSError, _Broken):
            return documents_from(digest, read(digest), read, read, _Broken)
    return None


class _Broken(Exception):  # noqa: N818 - the store's, of no interest to anybody
    pass


def _places(client: Client) -> Iterator[Path]:
    with engine_errors(client.dialect, "say where it keeps its images"):
        root = client.info().get("DockerRootDir")
    if isinstance(root, str) and root.startswith("/"):
        yield Path(root, "containerd/daemon", _CONTENT)
    yield _SYSTEM / _CONTENT


def _read(place: Path, digest: str) -> bytes:
    algorithm, _, number = digest.partition(":")
    with (place / algorithm / number).open("rb") as file:
        return file.read(DOCUMENT_LIMIT)
