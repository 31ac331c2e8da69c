"""A registry's information about an image, without fetching its layers.

Each document must match its digest.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlcheck.engines.oci.conversation import LIMIT_S, Conversation, converse
from mlcheck.engines.oci.documents import ImageConfig, documents_from, sha256
from mlcheck.model.image_ref import ImageRef


@dataclass(frozen=True, slots=True)
class RegistryImage:
    """An image as its registry describes it.

    Args:
        reference: its full name, "docker.io/library/NAME:TAG".
        index_digest: digest of the index, if the name has images for several platforms; docker
            shows it as the digest of such an image. None if the name is of one image.
        manifest_digest: digest of the image's manifest.
        config_digest: digest of its configuration: the image ID of docker and podman.
        compressed_size: size of its layers, in bytes.
        layers: number of layers.
        platforms: all platforms of the name, as "os/architecture"; () for one image.
        config: configuration of the image, chosen for this machine.
    """

    reference: str
    index_digest: str | None
    manifest_digest: str
    config_digest: str
    compressed_size: int
    layers: int
    platforms: tuple[str, ...]
    config: ImageConfig


def describe(ref: ImageRef, *, limit_s: float = LIMIT_S) -> RegistryImage:
    """Ask the registry about an image.

    Args:
        ref: of kind "registry".
        limit_s: seconds for all requests.

    Raises:
        UsageError: there is no such image.
        EngineError: the registry cannot be reached, refuses, or sends something that is not an
            intact image.
    """
    return converse(ref, described, limit_s)


def described(asking: Conversation) -> RegistryImage:
    """Return the description of the image that a conversation is about.

    Raises:
        MlcheckError: as of `describe`.
    """
    answer = asking.manifest(asking.wanted)
    told = answer.headers.get("Docker-Content-Digest")
    found = documents_from(
        asking.pinned or told or sha256(answer.content),
        answer.content,
        lambda digest: asking.manifest(digest).content,
        lambda digest: asking.blob(digest).content,
        asking.broken,
    )
    return RegistryImage(
        reference=asking.reference,
        index_digest=found.index_digest,
        manifest_digest=found.manifest_digest,
        config_digest=found.manifest.config.digest,
        compressed_size=found.manifest.size,
        layers=len(found.manifest.layers),
        platforms=found.platforms,
        config=found.config,
    )
