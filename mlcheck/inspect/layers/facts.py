"""The layers of an image, and unneeded files in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WasteKind = Literal["metadata", "same", "deleted", "overwritten"]
"""Reason why bytes of a layer are wasted: "metadata": a layer below has the same content, with
another owner or mode; "same": with the same owner and mode; "deleted", "overwritten": a later layer
deletes the file, or replaces it by another."""


@dataclass(frozen=True, slots=True)
class Waste:
    """Wasted bytes of a layer.

    Args:
        kind: the reason.
        by: number of the layer that caused it; for "metadata" and "same" the layer itself.
        size: bytes, hard links of one file counted once.
        files: number of files with these bytes.
        largest: paths and sizes of the largest of these.
    """

    kind: WasteKind
    by: int
    size: int
    files: int
    largest: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Files that a package manager keeps for itself, left in a layer.

    Args:
        cache: the package manager ("apt").
        size: bytes of its files.
        largest: as in `Waste`.
        deleted_by: number of a later layer that hides all of it, or None if some is in the image.
    """

    cache: str
    size: int
    files: int
    largest: tuple[tuple[str, int], ...]
    deleted_by: int | None


@dataclass(frozen=True, slots=True)
class Secret:
    """A file whose name or content is that of a secret.

    Args:
        what: "private key", "credentials of AWS".
        deleted_by: number of the later layer that hides it, or None if it is in the image.
        sha256: of the file's content, in hexadecimal.
        owned: True if a package brought it as it is, False if its package's record does not have
            it so, None if no record says anything.
    """

    path: str
    what: str
    deleted_by: int | None
    sha256: str = ""
    owned: bool | None = None


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One layer.

    Args:
        number: from 1, the lowest first.
        digest: of its tar archive.
        created_by: the line of the image's history, or "" if there is none; `***` stands for
            secrets in it.
        size: bytes of its regular files, hard links counted once.
        files: number of these files.
        told: secrets in the instructions of this layer, and of those behind it that made none:
            the instruction's first word, and the kind of secret.
    """

    number: int
    digest: str
    created_by: str
    size: int
    files: int
    waste: tuple[Waste, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    secrets: tuple[Secret, ...] = ()
    told: tuple[tuple[str, str], ...] = ()

    @property
    def wasted(self) -> int:
        """Wasted bytes."""
        return sum(waste.size for waste in self.waste)


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of an image, the lowest first.

    Args:
        untold: number of secrets that are left out because there are too many.
    """

    layers: tuple[ImageLayer, ...]
    untold: int = 0

    @property
    def size(self) -> int:
        """Bytes of all regular files in all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def wasted(self) -> int:
        """Wasted bytes."""
        return sum(layer.wasted for layer in self.layers)
