"""OCI's documents: index, manifest and configuration of an image, parsed strictly.

https://github.com/opencontainers/image-spec/blob/main/spec.md; docker's forms have the same keys.
They come from registries and files that nobody vouches for: what does not have the right types is
a ValueError, and a key that only people read is then left out.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DOCUMENT_LIMIT = 4 * 1024 * 1024
"""Bytes of one document: what a registry must accept of a manifest, by the distribution spec."""

HISTORY_LIMIT = 4096
"""Characters kept of a history entry."""

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}
"""What uname(2) calls a machine, and OCI; others have one name."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The configuration of an image; None: it does not tell.

    Args:
        created: as it is written, RFC 3339.
        architecture, os: by OCI's names ("amd64", "linux").
        env: NAME=VALUE, in order.
        exposed: the ports that it names, such as "8888/tcp".
        layers: how many it is made of.
        diff_ids: the digests of their tar archives, as it claims them.
        history: what made each of them; None where the history does not fit the layers.
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
    history: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a document says of another blob: digest, size in bytes, and platform as "os/arch"."""

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
        """Bytes of all layers as they are stored: compressed, in a registry."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """Images for several platforms under one name."""

    manifests: tuple[Descriptor, ...]

    @property
    def platforms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(m.platform for m in self.manifests if m.platform))

    def for_machine(self) -> Descriptor:
        """The one for this machine, else the first."""
        here = f"linux/{ARCHITECTURES.get(platform.machine(), platform.machine())}"
        fitting = [
            m for m in self.manifests if m.platform and f"{m.platform}/".startswith(f"{here}/")
        ]
        return (fitting or self.manifests)[0]


def matches(content: bytes, digest: str) -> bool:
    """Whether `content` is what a digest pins."""
    algorithm, _, number = digest.partition(":")
    return _is_digest(digest) and hashlib.new(algorithm, content).hexdigest() == number


def sha256(content: bytes) -> str:
    """The usual digest of some content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse_manifest(content: bytes) -> Manifest | Index:
    """Read a manifest or an index.

    Raises:
        ValueError: it is neither; the message ends a sentence that begins with what it is.
    """
    document = _object(content)
    if isinstance(document.get("manifests"), list):
        found = [_descriptor(entry) for entry in document["manifests"]]
        # Attestations of a build stand beside the images, for the platform unknown/unknown.
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
        ValueError: it is none; the message as of `parse_manifest`.
    """
    return config_of(_object(content))


def config_of(document: Mapping[str, Any]) -> ImageConfig:
    """The same, of JSON data that was read already."""
    inner = document.get("config")
    inner = inner if isinstance(inner, dict) else {}
    rootfs = document.get("rootfs")
    layers = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    labels, ports = inner.get("Labels"), inner.get("ExposedPorts")
    return ImageConfig(
        created=_text(document.get("created")),
        architecture=_text(document.get("architecture")),
        os=_text(document.get("os")),
        # Go writes an image without labels as null, or not at all.
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


def history_of(entries: Any, layers: int) -> tuple[str, ...] | None:
    """What made each layer, by a list of history entries, of which some made none.

    https://github.com/opencontainers/image-spec/blob/main/config.md#properties
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    made = [entry for entry in entries if not entry.get("empty_layer")]
    if len(made) != layers:
        return None
    return tuple((_text(entry.get("created_by")) or "")[:HISTORY_LIMIT] for entry in made)


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
    if not isinstance(digest, str) or not _is_digest(digest):
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


def _is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
