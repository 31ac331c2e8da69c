"""OCI's documents: index, manifest and configuration of an image, parsed strictly.

https://github.com/opencontainers/image-spec/blob/main/spec.md; docker's forms have the same keys.
They come from untrusted registries and files: a value of the wrong type is a ValueError, or is left
out if its key is only for people.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlcheck.model.architecture import OCI_NAMES
from mlcheck.model.layer_history import LayerHistory

DOCUMENT_LIMIT = 4 * 1024 * 1024
"""Most bytes of one document: the size of a manifest that the distribution spec requires a registry
to accept."""

HISTORY_LIMIT = 4096
"""Characters kept of the history entry that made a layer, to be shown."""

INSTRUCTION_LIMIT = 64 * 1024
"""Characters kept of every history entry, to be searched; a RUN may hold a whole script."""

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The configuration of an image; None if a value is not recorded.

    Args:
        created: as it is written, RFC 3339.
        architecture, os: by OCI's names ("amd64", "linux").
        env: NAME=VALUE, in order.
        exposed: the ports that it names, such as "8888/tcp".
        layers: the number of layers.
        diff_ids: the digests of their tar archives, as the image claims them.
        history: the instructions that made each layer; None if the history does not fit the layers.
    """

    created: str | None = None
    architecture: str | None = None
    os: str | None = None
    labels: Mapping[str, str] | None = field(default=None, hash=False)
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    user: str | None = None
    workdir: str | None = None
    exposed: tuple[str, ...] | None = None
    layers: int | None = None
    diff_ids: tuple[str, ...] | None = None
    history: tuple[LayerHistory, ...] | None = None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A document's reference to another blob: digest, size in bytes, and platform as "os/arch"."""

    digest: str
    size: int
    media_type: str
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Return the bytes of all layers as they are stored: compressed, in a registry."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """Images for several platforms under one name."""

    manifests: tuple[Descriptor, ...]

    @property
    def platforms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(m.platform for m in self.manifests if m.platform))

    def for_machine(self) -> Descriptor:
        """Return the image for this machine, else the first."""
        here = f"linux/{OCI_NAMES.get(platform.machine(), platform.machine())}"
        fitting = [
            m for m in self.manifests if m.platform and f"{m.platform}/".startswith(f"{here}/")
        ]
        return (fitting or self.manifests)[0]


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of an image, chosen for this machine if there are images for several.

    Args:
        index_digest, platforms: of the index; None and () if there is none.
    """

    index_digest: str | None
    platforms: tuple[str, ...]
    manifest_digest: str
    manifest: Manifest
    config: ImageConfig


def documents_from(
    digest: str,
    content: bytes,
    manifest: Callable[[str], bytes],
    blob: Callable[[str], bytes],
    broken: Callable[[str], Exception],
) -> Documents:
    """Collect all documents of an image, from its manifest or index on.

    Args:
        digest: digest of the manifest or index.
        content: content of the manifest or index.
        manifest, blob: return the content for a digest.
        broken: makes the error from a clause that names the trouble.
    """

    def parsed() -> Manifest | Index:
        if not matches(content, digest):
            raise broken(f"the manifest is not that of the digest {digest[:100]}")
        try:
            return parse_manifest(content)
        except ValueError as error:
            raise broken(f"the manifest {error}") from None

    index_digest, platforms = None, tuple[str, ...]()
    found = parsed()
    if isinstance(found, Index):
        index_digest, platforms = digest, found.platforms
        digest = found.for_machine().digest
        content = manifest(digest)
        found = parsed()
        if isinstance(found, Index):
            raise broken(f"{digest} is an index in an index")
    content = blob(found.config.digest)
    if not matches(content, found.config.digest):
        raise broken(f"the configuration is not that of the digest {found.config.digest}")
    try:
        config = parse_config(content)
    except ValueError as error:
        raise broken(f"the configuration {error}") from None
    return Documents(index_digest, platforms, digest, found, config)


def matches(content: bytes, digest: str) -> bool:
    """Return whether `content` has that digest."""
    algorithm, _, number = digest.partition(":")
    return is_digest(digest) and hashlib.new(algorithm, content).hexdigest() == number


def sha256(content: bytes) -> str:
    """Return the usual digest of some content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse_manifest(content: bytes) -> Manifest | Index:
    """Read a manifest or an index.

    Raises:
        ValueError: it is neither; the message completes a sentence whose subject is the document.
    """
    document = _object(content)
    if isinstance(document.get("manifests"), list):
        found = [_descriptor(entry) for entry in document["manifests"]]
        # Attestations of a build are listed beside the images, for the platform unknown/unknown.
        images = tuple(entry for entry in found if entry.platform != "unknown/unknown")
        if not images:
            raise ValueError("is an index without an image")
        return Index(images)
    layers = document.get("layers")
    if not isinstance(layers, list) or "config" not in document:
        kind = document.get("mediaType") or f"schema version {document.get('schemaVersion')}"
        raise ValueError(f"is no manifest of an image ({str(kind)[:100]})")
    return Manifest(_descriptor(document["config"]), tuple(map(_descriptor, layers)))


def parse_config(content: bytes) -> ImageConfig:
    """Read the configuration of an image.

    Raises:
        ValueError: it is not a configuration; the message as of `parse_manifest`.
    """
    return config_of(_object(content))


def config_of(document: Mapping[str, Any]) -> ImageConfig:
    """Read the configuration from parsed JSON data."""
    inner = document.get("config")
    inner = inner if isinstance(inner, dict) else {}
    rootfs = document.get("rootfs")
    layers = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    labels, ports = inner.get("Labels"), inner.get("ExposedPorts")
    return ImageConfig(
        created=_text(document.get("created")),
        architecture=_text(document.get("architecture")),
        os=_text(document.get("os")),
        # Go writes an image without labels as null, or omits the key.
        labels={k: v for k, v in labels.items() if isinstance(v, str)}
        if isinstance(labels, dict)
        else {},
        env=_texts(inner.get("Env")),
        entrypoint=_texts(inner.get("Entrypoint")),
        cmd=_texts(inner.get("Cmd")),
        user=_text(inner.get("User")),
        workdir=_text(inner.get("WorkingDir")),
        exposed=_texts(sorted(ports)) if isinstance(ports, dict) else (),
        layers=len(layers) if isinstance(layers, list) else None,
        diff_ids=_texts(layers),
        history=history_of(document.get("history"), len(layers))
        if isinstance(layers, list)
        else None,
    )


def history_of(entries: Any, layers: int) -> tuple[LayerHistory, ...] | None:
    """Return the instructions of each layer, from history entries, some of which made none.

    https://github.com/opencontainers/image-spec/blob/main/config.md#properties
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    found: list[tuple[str, list[str]]] = []
    before: list[str] = []
    for entry in entries:
        line = (_text(entry.get("created_by")) or "")[:INSTRUCTION_LIMIT]
        if not entry.get("empty_layer"):
            found.append((line[:HISTORY_LIMIT], [*before, line]))
            before = []
        else:
            (found[-1][1] if found else before).append(line)
    if len(found) != layers:
        return None
    return tuple(LayerHistory(line, tuple(lines)) for line, lines in found)


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    if not isinstance(document, dict):
        raise ValueError("is no JSON object")
    return document


def _descriptor(entry: Any) -> Descriptor:
    if not isinstance(entry, dict):
        raise ValueError("has a descriptor that is no object")
    digest, size = entry.get("digest"), entry.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ValueError(f"has a descriptor with no valid digest ({str(digest)[:80]!r})")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"has a descriptor with no valid size ({str(size)[:80]})")
    return Descriptor(digest, size, str(entry.get("mediaType", "")), _platform(entry))


def _platform(entry: Mapping[str, Any]) -> str | None:
    found = entry.get("platform")
    if not isinstance(found, dict):
        return None
    parts = [found.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(part for part in parts if isinstance(part, str) and part) or None


def is_digest(text: str) -> bool:
    """Return whether a text is a digest, and so safe as a part of a URL."""
    return _DIGEST.fullmatch(text) is not None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
