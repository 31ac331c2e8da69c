"""Information about an image without opening it: from its registry, a store, or its file.

A value is None if the source does not have it. Nothing is guessed, and nothing is fetched but a
registry's few documents.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlcheck.engines import select
from mlcheck.engines.apptainer.sif import digest, read_config
from mlcheck.engines.archive.contents import look_into, stored_sizes
from mlcheck.engines.base import Progress
from mlcheck.engines.oci import registry
from mlcheck.engines.oci.conversation import host_of
from mlcheck.engines.oci.documents import ImageConfig, config_of
from mlcheck.model.errors import MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.published import of_unpacked_path


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Information about an image.

    Args:
        image: its full reference, or the path of its file or directory.
        source: source of the information: "registry docker.io", "docker", "SIF file", ...
        index_digest: digest of the index, if a name has images for several platforms.
        manifest_digest: the digest of one image as a registry and `docker pull` show it.
        config_digest: the image ID of podman, and of docker with its classic store.
        file_digest: sha256 of a SIF file.
        compressed_size: bytes of the layers as a registry stores and sends them.
        unpacked_size: bytes of the layers' contents.
        created: creation time, as the image records it (RFC 3339).
        platforms: all platforms of the name, if it is an index.
        env: NAME=VALUE.
        here: store -> "same" or "another": the image of docker and podman under this name.
        notes: notes about these values for readers.
    """

    image: str
    source: str
    index_digest: str | None = None
    manifest_digest: str | None = None
    config_digest: str | None = None
    file_digest: str | None = None
    compressed_size: int | None = None
    unpacked_size: int | None = None
    created: str | None = None
    os: str | None = None
    architecture: str | None = None
    platforms: tuple[str, ...] = ()
    layers: int | None = None
    labels: dict[str, str] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    user: str | None = None
    workdir: str | None = None
    here: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def describe(ref: ImageRef, engine: str, progress: Progress) -> ImageInfo:
    """Collect information about an image.

    For an image of a registry, the registry is asked. If `engine` is docker or podman, or if the
    name has no registry and one of them has such an image, their image is described instead;
    likewise if the registry does not answer.

    Raises:
        UsageError: there is no such image, or the engine cannot open it.
        EngineError: the registry or the engine failed.
    """
    select.check_exists(ref)
    if engine != select.AUTO or ref.place in select.stores():
        ((engine, _),) = select.choose(ref, [engine])
    if ref.kind == "registry":
        stores = [engine] if engine in select.stores() else []
        if engine == select.AUTO and ref.place is None and "/" not in ref.location:
            stores = select.stores_with(ref)
        if stores:
            return _of_store(ref, stores[0])
        try:
            return _of_registry(ref)
        except MlcheckError as error:
            stores = select.stores_with(ref) if engine == select.AUTO else []
            if not stores:
                raise
            found = _of_store(ref, stores[0])
            note = f"The registry does not tell of it: {str(error).splitlines()[0]}"
            return dataclasses.replace(found, notes=(*found.notes, note))
    if ref.kind in ("directory", "reference"):
        return _of_directory(ref, progress)
    if ref.kind == "sif":
        return _of_sif(ref, progress)
    return _of_archive(ref)


def _of_registry(ref: ImageRef) -> ImageInfo:
    found = registry.describe(ref)
    same = {found.index_digest, found.manifest_digest, found.config_digest}
    here = {}
    for store in select.stores_with(ref):
        inspected = select.engine(store).store.inspect(ref)
        if inspected is not None:
            theirs = {inspected.index, inspected.manifest, inspected.config} - {None}
            here[store] = "same" if theirs & same else "another"
    return ImageInfo(
        image=found.reference,
        source=f"registry {host_of(ref)[0]}",
        index_digest=found.index_digest,
        manifest_digest=found.manifest_digest,
        config_digest=found.config_digest,
        compressed_size=found.compressed_size,
        platforms=found.platforms,
        here=here,
        **(_told(found.config) | {"layers": found.layers}),
    )


def _of_store(ref: ImageRef, store: str) -> ImageInfo:
    found = select.engine(store).store.inspect(ref)
    if found is None:
        raise UsageError(
            f"{store} has no image {ref.text}.",
            "Without --engine, its registry is asked; `mlcheck images` says what is here.",
        )
    image = found.image
    config = config_of(
        {
            "created": image.get("Created"),
            "architecture": image.get("Architecture"),
            "os": image.get("Os"),
            "config": image.get("Config"),
        }
    )
    rootfs = image.get("RootFS")
    layers = rootfs.get("Layers") if isinstance(rootfs, dict) else None
    return ImageInfo(
        image=ref.text,
        source=store,
        index_digest=found.index,
        manifest_digest=found.manifest,
        config_digest=found.config,
        compressed_size=found.compressed_size,
        unpacked_size=found.unpacked_size,
        notes=()
        if found.index or found.manifest
        else ("It has no manifest: it never was in a registry.",),
        **(_told(config) | {"layers": len(layers) if isinstance(layers, list) else None}),
    )


def _of_directory(ref: ImageRef, progress: Progress) -> ImageInfo:
    engine = select.reader(ref.kind) or select.preferred(ref.kind)[0]
    with select.open_image(ref, engine, progress=progress) as image:
        found = image.environment
    notes = [f"{problem.path} {problem.what}" for problem in found.problems]
    published = of_unpacked_path(ref.location)
    if published is not None:
        notes.append(f"`mlcheck info {published}` asks the registry about the published image.")
    return ImageInfo(
        image=ref.location if ref.kind == "directory" else ref.text,
        source="directory",
        labels=None if found.labels is None else dict(found.labels),
        env=tuple(f"{name}={value}" for name, value in found.env.items()),
        entrypoint=found.entrypoint,
        cmd=found.cmd,
        notes=(f"Read from {found.source}.", *notes),
    )


def _of_sif(ref: ImageRef, progress: Progress) -> ImageInfo:
    path = Path(ref.location).expanduser().absolute()
    config, made = read_config(ref.text, path)
    return ImageInfo(
        image=str(path),
        source="SIF file",
        file_digest=digest(path, progress),
        notes=_made_at(made),
        **_told(config),
    )


def _made_at(seconds: int) -> tuple[str, ...]:
    """Say when a SIF file was made; nothing if it says no time that a calendar has."""
    try:
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return ()
    return (f"The SIF file was made at {when:%Y-%m-%dT%H:%M:%SZ}.",) if seconds > 0 else ()


def _of_archive(ref: ImageRef) -> ImageInfo:
    path = Path(ref.location).expanduser().absolute()
    try:
        found, layers = look_into(ref.kind, path)
    except ValueError as error:
        raise UsageError(f"{ref.text}: {path} {error}.", "Check the file and its kind.") from None
    compressed, unpacked = stored_sizes(layers)
    return ImageInfo(
        image=str(path),
        source=ref.kind,
        index_digest=found.index_digest,
        manifest_digest=found.manifest_digest,
        config_digest=found.config_digest,
        compressed_size=compressed,
        unpacked_size=unpacked,
        **(_told(found.config) | {"layers": len(layers)}),
    )


def _told(config: ImageConfig) -> dict[str, Any]:
    """Return the configuration as arguments of ImageInfo."""
    names: Sequence[str] = (
        *("created", "os", "architecture", "layers", "env", "entrypoint", "cmd", "user"),
        "workdir",
    )
    told = {name: getattr(config, name) for name in names}
    return {**told, "labels": None if config.labels is None else dict(config.labels)}
