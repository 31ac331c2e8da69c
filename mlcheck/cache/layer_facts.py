"""Facts of files that are found once for each layer, however many images share it.

A probe that asks the same of many files defines what it asks of one layer, and how the answers for
an image's layers become the answer for the image:

    BY_LAYER[probe] = ByLayer(of_layer, where, joined)

The image's own files decide: their facts are read from the image, and something known of a file
counts only if it is the very file of that layer. All other files are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlcheck.image.api import RootFS
from mlcheck.image.paths import in_order, once
from mlcheck.model.files import File

T = TypeVar("T")

Parts = Sequence[tuple[RootFS, T]]
"""Layers of an image, the lowest first, each on its own, with what was found in it."""


@dataclass(frozen=True, slots=True)
class ByLayer:
    """The way to ask a probe layer by layer.

    Args:
        of_layer: (files of a layer, directory) -> what is kept of the layer.
        where: (the probe's arguments) -> the directory, an absolute path.
        joined: (parts, the probe's arguments) -> exactly the answer of the probe.
    """

    of_layer: Callable[[RootFS, str], object]
    where: Callable[..., str]
    joined: Callable[..., Any]


BY_LAYER: dict[Callable[..., Any], ByLayer] = {}
"""By probe."""


class Known(Generic[T]):
    """Facts of files that are known from layers.

    Args:
        layers: layers of an image, each with what was found in it by path.
    """

    def __init__(self, layers: Sequence[tuple[RootFS, Mapping[str, T]]]) -> None:
        self._layers = layers

    def of(self, file: File) -> T | None:
        """Return what is known of a regular file of the image, or None.

        It is a layer's file of that name if it has the same inode, which overlayfs passes through
        unchanged (https://docs.kernel.org/filesystems/overlayfs.html, "Inode properties").
        """
        if file.type != "file":
            return None
        for rootfs, facts in reversed(self._layers):
            if (fact := facts.get(file.path)) is not None:
                there = rootfs.lstat(file.path)
                if there is not None and _identity(there) == _identity(file):
                    return fact
        return None

    def below(self, rootfs: RootFS, top: str) -> tuple[list[File], int]:
        """Return the files that some layer knows under their name, as `RootFS.each` finds them
        below `top`, and the number of regular files, hard links of one file counted once."""
        paths = set().union(*(facts for _, facts in self._layers))
        files = [file for file in rootfs.walk(top) if file.type == "file"]
        told = sorted((file for file in files if file.path in paths), key=in_order)
        return list(once(told, set())), len({file.inode for file in files})


def _identity(file: File) -> tuple[object, ...]:
    # The device numbers differ: overlayfs has its own.
    return file.type, file.size, file.inode[1]
