"""Where the parts of an image are in an archive or OCI layout: its documents and its layers.

The forms: https://github.com/opencontainers/image-spec/blob/main/image-layout.md and what
`docker save` writes: of old, a directory for each layer, some of which are symlinks to others;
since Docker 25, an OCI layout with a manifest.json.
"""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from mlcheck.engines.apptainer_oci import Contents, read_contents
from mlcheck.engines.archive_layers import LayerEntry, index_layer
from mlcheck.engines.byte_sources import (
    FileBytes,
    Part,
    Source,
    SourceFile,
    compression,
    plain,
)
from mlcheck.engines.tar_headers import HEADER_LIMIT, BrokenArchive, next_member
from mlcheck.errors import EngineError, UsageError
from mlcheck.files import LINK_LIMIT, components
from mlcheck.image import ImageRef

_TAR_OPTIONS = {"gzip": "-z", "zstd": "--zstd"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image.

    Args:
        digest: of its tar archive, as the configuration claims it; not verified.
        source: that archive.
        show: the shell command that writes it, up to where a tar option or a name of a file can
            follow, for people.
    """

    digest: str
    source: Source
    show: str


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image in an archive."""

    contents: Contents
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        """Of its manifest (of its index, where that is for several platforms), or for docker's
        archives of its configuration (the image ID)."""
        found = self.contents
        return found.index_digest or found.manifest_digest or found.config_digest


def read_image(ref: ImageRef) -> ArchivedImage:
    """Look into an archive; of its layers, nothing is read.

    Raises:
        UsageError: there is none, or it holds no image, several, or a damaged one.
        EngineError: this machine cannot read it.
    """
    path = Path(ref.location).expanduser().absolute()
    try:
        find = _in_directory(path) if ref.kind == "oci" else _in_archive(path)
        contents = read_contents(ref.kind, lambda name: _open(find(name)))
        layers = []
        digests = contents.config.diff_ids or ()
        if len(digests) != len(contents.layer_files):
            raise ValueError(
                f"is damaged: it has {len(contents.layer_files)} layers, and its configuration "
                f"tells of {len(digests)}"
            )
        for name, digest in zip(contents.layer_files, digests, strict=True):
            stored = find(name)
            option = _TAR_OPTIONS.get(compression(stored.pread(0, 4)) or "", "")
            blob = path / name
            if ref.kind == "oci":
                show = shlex.join(["tar", *filter(None, [option]), "-xOf", str(blob)])
            else:
                outer = shlex.join(["tar", "-xOf", str(path), name])
                show = f"{outer} | {shlex.join(['tar', *filter(None, [option]), '-xOf', '-'])}"
            layers.append(Layer(digest, plain(stored), show))
    except BrokenArchive as error:
        raise _no_image(ref, path, str(error)) from None
    except OSError as error:
        raise _no_image(ref, path, f"cannot be read: {error.strerror or error}") from None
    except KeyError as error:
        raise _no_image(ref, path, f"is damaged: it has no {error.args[0]!r}") from None
    except ValueError as error:
        raise _no_image(ref, path, str(error)) from None
    return ArchivedImage(contents, tuple(layers))


def _no_image(ref: ImageRef, path: Path, why: str) -> UsageError:
    return UsageError(
        f"{ref.text}: {path} {why}.",
        "Give an archive of one image: docker save -o FILE NAME:TAG (docker-archive:FILE), or "
        "skopeo copy ... oci-archive:FILE.",
    )


Find = Callable[[str], Part]
"""The file of that name in an archive or directory; raises KeyError or OSError."""


def _open(part: Part) -> IO[bytes]:
    return cast(IO[bytes], io.BufferedReader(SourceFile(part, 0, part.size, b"", "the archive")))


def _in_directory(path: Path) -> Find:
    def find(name: str) -> Part:
        # Names are "index.json" and blobs by valid digests. No link, which could lead out.
        file = FileBytes(path / name, os.O_NOFOLLOW)
        return Part(file, 0, file.size)

    return find


def _in_archive(path: Path) -> Find:
    source = plain(FileBytes(path))
    try:
        first = io.BytesIO(source.pread(0, 2 * HEADER_LIMIT))
        next_member(lambda count: first.read(count).ljust(count))
    except BrokenArchive:
        raise ValueError("is no tar archive") from None
    entries: dict[str, LayerEntry] = {}
    for entry in index_layer(source, "").entries:
        entries["/".join(reversed(components(entry.path)))] = entry

    def find(name: str) -> Part:
        wanted = name
        for _ in range(LINK_LIMIT):
            entry = entries["/".join(_plain_path(wanted))]
            if entry.type == "file":
                return Part(source, entry.offset, entry.size)
            if entry.target is None:
                raise KeyError(name)
            # Of a hard link, the whole name is told; of a symlink, from its directory on.
            above = "" if entry.type == "hard link" else wanted.rpartition("/")[0]
            wanted = f"{above}/{entry.target}"
        raise KeyError(name)

    return find


def _plain_path(path: str) -> list[str]:
    """Without `..`, which leads up and not out."""
    found: list[str] = []
    for part in reversed(components(path)):
        if part == "..":
            found = found[:-1]
        else:
            found.append(part)
    return found


def check_unchanged(image: ArchivedImage, digest: str | None, path: str) -> None:
    """That an archive is still the one that was made ready.

    Raises:
        EngineError: it is another one.
    """
    if image.digest != digest:
        raise EngineError(f"{path} has changed since this run began.", "Start again.")
