"""An image in an archive or OCI layout, ready to be read: its documents and its layers."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from mlcheck.engines.archive.contents import Contents, look_into
from mlcheck.image.budget import Budget
from mlcheck.image.byte_sources import Source, compression, plain
from mlcheck.model.errors import EngineError, UsageError
from mlcheck.model.image_ref import ImageRef

_TAR_OPTIONS = {"gzip": "-z", "zstd": "--zstd"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image.

    Args:
        digest: of its tar archive, as the configuration claims it; not verified.
        source: that archive.
        show: the shell command that writes the archive, up to the point where a tar option or a
            file name can follow, for people.
    """

    digest: str
    source: Source
    show: str


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image in an archive.

    Args:
        layers: the lowest first; one that is named twice has the same source.
        budget: what reading it may take.
    """

    contents: Contents
    layers: tuple[Layer, ...]
    budget: Budget


def read_image(ref: ImageRef) -> ArchivedImage:
    """Read the documents of an archive; its layers are not read.

    Raises:
        UsageError: there is no archive, or it holds no image, several, or a damaged one.
        EngineError: this machine cannot read it.
    """
    path = Path(ref.location).expanduser().absolute()
    try:
        budget = Budget()
        contents, stored = look_into(ref.kind, path, budget)
        digests = contents.diff_ids()
    except ValueError as error:
        raise UsageError(
            f"{ref.text}: {path} {error}.",
            "Give an archive of one image: docker save -o FILE NAME:TAG (docker-archive:FILE), or "
            "skopeo copy ... oci-archive:FILE.",
        ) from None
    layers = []
    sources = {part: plain(part, budget) for part in dict.fromkeys(stored)}
    for name, digest, part in zip(contents.layer_files, digests, stored, strict=True):
        option = _TAR_OPTIONS.get(compression(part.pread(0, 4)) or "")
        tar = ["tar", *([option] if option else []), "-xOf"]
        if ref.kind == "oci":
            show = shlex.join([*tar, str(path / name)])
        else:
            show = f"{shlex.join(['tar', '-xOf', str(path), name])} | {shlex.join([*tar, '-'])}"
        layers.append(Layer(digest, sources[part], show))
    return ArchivedImage(contents, tuple(layers), budget)


def check_unchanged(image: ArchivedImage, digest: str | None, path: str) -> None:
    """Verify that an archive has not been replaced since it was made ready.

    Raises:
        EngineError: it has been replaced.
    """
    if image.contents.digest != digest:
        raise EngineError(f"{path} has changed since this run began.", "Start again.")
