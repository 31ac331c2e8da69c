"""Facts of files that are found once for each layer, whichever images share it.

A probe that asks the same of many files says what it asks of one layer, and how the answers for an
image's layers become the answer for the image:

    BY_LAYER[probe] = ByLayer(of_layer, where, joined)

The image's own files stay the truth: what they are is asked of the image, and what is known of a
file counts only if it is the very file of that layer. The rest is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlcheck.engines.base import RootFS
from mlcheck.facts import File
from mlcheck.files import in_order, once

T = TypeVar("T")

Parts = Sequence[tuple[RootFS, T]]
"""Layers of an image, the lowest first, each as it is alone, with what was found in it."""


@dataclass(frozen=True, slots=True)
class ByLayer:
    """How a probe is asked layer by layer.

    Args:
        of_layer: (files of a layer, directory) -> what is to be kept of the layer.
        where: (the probe's arguments) -> the directory, an absolute path.
        joined: (parts, the probe's arguments) -> exactly what the probe answers.
    """

    of_layer: Callable[[RootFS, str], object]
    where: Callable[..., str]
    joined: Callable[..., Any]


BY_LAYER: dict[Callable[..., Any], ByLayer] = {}
"""By probe."""


class Known(Generic[T]):
    """What layers tell of files.

    Args:
        layers: of an image, each with what was found in it by path.
    """

    def __init__(self, layers: Sequence[tuple[RootFS, Mapping[str, T]]]) -> None:
        self._layers = layers

    def of(self, file: File) -> T | None:
        """What is known of a regular file of the image; None: nothing.

        It is a layer's file of that name if it has its inode, which overlayfs shows unchanged
        (https://docs.kernel.org/filesystems/overlayfs.html, "Inode properties").
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
        """Files of which some layer tells something under their name, as `RootFS.each` finds them
        below `top`; and how many regular files there are, hard links of one counted once."""
        paths = set().union(*(facts for _, facts in self._layers))
        files = [file for file in rootfs.walk(top) if file.type == "file"]
        told = sorted((file for file in files if file.path in paths), key=in_order)
        return list(once(told, set())), len({file.inode for file in files})


def _identity(file: File) -> tuple[object, ...]:
    # The numbers of the devices differ: overlayfs has its own.
    return file.type, file.size, file.inode[1]
