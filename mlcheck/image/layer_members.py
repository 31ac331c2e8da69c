"""Entries that the layers of an image add and hide, from their tar archives."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import BinaryIO, cast

from mlcheck.image.api import Layer, LayerMember, Look, looked_at
from mlcheck.image.budget import Budget
from mlcheck.image.byte_sources import Source, SourceFile
from mlcheck.image.layers import LayerIndex, LayerNode, directory, refused, unpacked
from mlcheck.image.paths import without_collection
from mlcheck.model.layer_history import UNKNOWN, LayerHistory

Place = tuple[int, int]
"""Offset and size of a file's content in its layer."""

_PIECE = 256 * 1024


def members(index: LayerIndex, budget: Budget) -> tuple[list[LayerMember], dict[int, Place]]:
    """Return the entries that a layer adds and hides, and the places of the contents of its regular
    files, by inode.

    Args:
        budget: of the image.

    Raises:
        EngineError: a name in it leads out of the image, or the image has more than an image may
            have.
    """
    found: list[LayerMember] = []
    places: dict[int, Place] = {}
    with without_collection(), refused():
        pending = [("", unpacked(index, 0, itertools.count(1), budget))]
        while pending:
            path, node = pending.pop()
            if node.opaque:
                found.append(LayerMember(path or "/", "opaque"))
            found += (LayerMember(f"{path}/{name}", "whiteout") for name in node.whiteouts or ())
            for name, child in sorted((node.children or {}).items()):
                budget.entries(0, len(path) + len(name))
                found.append(member_of(f"{path}/{name}", child))
                if child.type == "directory":
                    pending.append((f"{path}/{name}", child))
                elif child.type == "file":
                    places[child.inode[1]] = (child.offset, child.size)
    # A whiteout hides only what is below its layer, whatever its position in the archive.
    found.sort(key=lambda member: member.type not in ("whiteout", "opaque"))
    return found, places


def tree_of(layer: Layer, number: int) -> LayerNode:
    """Arrange the members of a layer in a tree, to be put over the layers below.

    Args:
        number: number of the layer, which becomes part of the inodes of its files.
    """
    directories = {"": directory(implied=True)}
    for path, kind, mode, uid, gid, size, inode in layer.members:
        if kind == "whiteout" or kind == "opaque":
            continue
        above, _, name = path.rpartition("/")
        node = LayerNode(kind, mode, uid, gid, size, None, (number, inode))
        if kind == "directory":
            node.children = {}
            directories[path] = node
        # A directory comes before its entries.
        siblings = directories[above].children
        assert siblings is not None
        siblings[name] = node
    for member in layer.members:
        if member.type == "opaque":
            directories[member.path.rstrip("/")].opaque = True
        elif member.type == "whiteout":
            above, _, name = member.path.rpartition("/")
            parent = directories[above]
            parent.whiteouts = (parent.whiteouts or set()) | {name}
    return directories[""]


def member_of(path: str, node: LayerNode) -> LayerMember:
    """Return the entry that a layer adds at a path."""
    size = node.size if node.type == "file" else 0
    return LayerMember(path, node.type, node.mode, node.uid, node.gid, size, node.inode[1])


def sha256_of(content: BinaryIO) -> bytes:
    """Return the SHA-256 of the rest of a file."""
    found = hashlib.sha256()
    while data := content.read(_PIECE):
        found.update(data)
    return found.digest()


class StoredLayers:
    """Layers that can be read at any offset, as in an archive; see `mlcheck.image.api.ImageLayers`.

    Args:
        sources: their tar archives without compression, the lowest first.
        history: the instructions that made each layer; None if unknown.
        indices: returns the index of each layer.
        image: name of the image, for people.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        history: Sequence[LayerHistory] | None,
        indices: Callable[[], Sequence[LayerIndex]],
        image: str,
    ) -> None:
        self._sources = sources
        self._history = history or [UNKNOWN] * len(sources)
        self._indices = indices
        self._image = image

    def read(self, wanted: Callable[[str], bool], look: Look) -> list[Layer]:
        """See `mlcheck.image.api.ImageLayers.read`. Contents are read on demand."""
        whole = zip(self._sources, self._history, self._indices(), strict=True)
        budget = Budget()
        return [self._layer(*one, budget, look) for one in whole]

    def _layer(
        self,
        source: Source,
        history: LayerHistory,
        index: LayerIndex,
        budget: Budget,
        look: Look,
    ) -> Layer:
        found, places = members(index, budget)

        def opened(member: LayerMember) -> BinaryIO:
            name = f"{self._image}: {member.path}"
            return cast(BinaryIO, SourceFile(source, *places[member.inode], b"", name))

        def sha256(member: LayerMember) -> bytes:
            return sha256_of(opened(member))

        def looked(member: LayerMember) -> str | None:
            return looked_at(member.path, opened(member), look)

        return Layer(index.digest, history.created_by, found, sha256, looked, history.instructions)
