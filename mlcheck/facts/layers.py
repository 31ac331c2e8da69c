"""The layers of an image, and what is in them that nobody needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WasteKind = Literal["metadata", "same", "deleted", "overwritten"]
"""Why bytes of a layer are stored in vain: "metadata": a layer below has the same content, with
another owner or mode; "same": with the same owner and mode; a later layer deletes the file, or
replaces it by another."""


@dataclass(frozen=True, slots=True)
class Waste:
    """Bytes of a layer that are stored in vain.

    Args:
        kind: why.
        by: number of the layer that made them so; of "metadata" and "same" the layer itself.
        size: bytes, hard links of one file counted once.
        files: how many they are of.
        largest: paths and sizes of the largest of these.
    """

    kind: WasteKind
    by: int
    size: int
    files: int
    largest: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a package manager keeps for itself, left in a layer.

    Args:
        cache: whose ("apt").
        size: bytes of its files.
        largest: as in `Waste`.
        deleted_by: number of a later layer that hides all of it; None: some is in the image.
    """

    cache: str
    size: int
    files: int
    largest: tuple[tuple[str, int], ...]
    deleted_by: int | None


@dataclass(frozen=True, slots=True)
class Secret:
    """A file whose name, or name and content, are those of a secret.

    Args:
        what: "private key", "credentials of AWS".
        deleted_by: number of the later layer that hides it; None: it is in the image.
    """

    path: str
    what: str
    deleted_by: int | None


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One layer.

    Args:
        number: from 1, the lowest first.
        digest: of its tar archive.
        created_by: the line of the image's history; "" where it does not tell.
        size: bytes of its regular files, hard links counted once.
        files: how many these are.
    """

    number: int
    digest: str
    created_by: str
    size: int
    files: int
    waste: tuple[Waste, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    secrets: tuple[Secret, ...] = ()

    @property
    def wasted(self) -> int:
        """Bytes stored in vain."""
        return sum(waste.size for waste in self.waste)


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of an image, the lowest first.

    Args:
        untold: secrets that are left out because there are too many.
    """

    layers: tuple[ImageLayer, ...]
    untold: int = 0

    @property
    def size(self) -> int:
        """Bytes of all regular files in all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def wasted(self) -> int:
        """Bytes stored in vain."""
        return sum(layer.wasted for layer in self.layers)
