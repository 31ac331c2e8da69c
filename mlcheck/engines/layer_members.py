"""What the layers of an image add and hide, from their tar archives."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import BinaryIO, cast

from mlcheck.engines.archive_layers import NAMES_LIMIT, LayerIndex, LayerNode, unpacked
from mlcheck.engines.base import LAYER_START, Layer, LayerMember
from mlcheck.engines.byte_sources import Source, SourceFile
from mlcheck.errors import EngineError
from mlcheck.files import without_collection

Place = tuple[int, int]
"""Offset and size of a file's content in its layer."""

_PIECE = 256 * 1024


def members(index: LayerIndex) -> tuple[list[LayerMember], dict[int, Place]]:
    """What a layer adds and hides, and where the content of its regular files is, by inode.

    Raises:
        EngineError: a name in it leads out of the image, or its names are of absurd length.
    """
    found: list[LayerMember] = []
    names = 0
    places: dict[int, Place] = {}
    with without_collection():
        pending = [("", unpacked(index, 0, itertools.count(1)))]
        while pending:
            path, node = pending.pop()
            if node.opaque:
                found.append(LayerMember(path or "/", "opaque"))
            found += (LayerMember(f"{path}/{name}", "whiteout") for name in node.whiteouts or ())
            for name, child in sorted((node.children or {}).items()):
                names += len(path) + len(name)
                if names > NAMES_LIMIT:
                    raise EngineError(f"The layer {index.digest} has names of absurd length.")
                found.append(_member(f"{path}/{name}", child))
                if child.type == "directory":
                    pending.append((f"{path}/{name}", child))
                elif child.type == "file":
                    places[child.inode[1]] = (child.offset, child.size)
    # A whiteout hides only what is below, wherever it stands in its layer.
    found.sort(key=lambda member: member.type not in ("whiteout", "opaque"))
    return found, places


def _member(path: str, node: LayerNode) -> LayerMember:
    size = node.size if node.type == "file" else 0
    return LayerMember(path, node.type, node.mode, node.uid, node.gid, size, node.inode[1])


def sha256_of(content: BinaryIO) -> bytes:
    """SHA-256 of what is left of a file."""
    found = hashlib.sha256()
    while data := content.read(_PIECE):
        found.update(data)
    return found.digest()


class StoredLayers:
    """Layers that can be read anywhere, as in an archive; see `mlcheck.engines.base.ImageLayers`.

    Args:
        sources: their tar archives without compression, the lowest first.
        history: what made each; None: not known.
        indices: gives what is in them.
        image: for people.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        history: Sequence[str] | None,
        indices: Callable[[], Sequence[LayerIndex]],
        image: str,
    ) -> None:
        self._sources = sources
        self._history = history or [""] * len(sources)
        self._indices = indices
        self._image = image

    def read(self, wanted: Callable[[str], bool]) -> list[Layer]:
        """See `mlcheck.engines.base.ImageLayers.read`. Contents are read on demand."""
        whole = zip(self._sources, self._history, self._indices(), strict=True)
        return [self._layer(source, created_by, index) for source, created_by, index in whole]

    def _layer(self, source: Source, created_by: str, index: LayerIndex) -> Layer:
        found, places = members(index)

        def opened(member: LayerMember) -> BinaryIO:
            name = f"{self._image}: {member.path}"
            return cast(BinaryIO, SourceFile(source, *places[member.inode], b"", name))

        def sha256(member: LayerMember) -> bytes:
            return sha256_of(opened(member))

        def start(member: LayerMember) -> bytes:
            return opened(member).read(LAYER_START)

        return Layer(index.digest, created_by, found, sha256, start)
