"""The work that reading one image may take: one budget for its layers and all readers.

A few kilobytes of compressed data can stand for terabytes, a million files, or a layer that is
named a thousand times. What an archive can multiply is counted here, in bytes and steps and never
in seconds, so that an image ends the same way on every machine. docs/engines.md has the figures.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from mlcheck.image.tar_headers import BrokenArchive
from mlcheck.model.units import binary, shown

ENTRY_LIMIT = 600_000
"""Most files of all layers, about 1.3 kB of memory each; large images have 150,000. A layer that
is named twice counts twice, and a directory counts that is only implied."""

NAMES_LIMIT = 128 * 1024 * 1024
"""Most characters of all their names and targets; large images have 15 million."""

STARTS_LIMIT = 64 * 1024 * 1024
"""Most bytes kept of the beginnings of all files."""

STEP_LIMIT = 30_000_000
"""Most components of paths that are followed while layers are merged, or by links afterwards; large
images take 2 million."""

LAYER_LIMIT = 500
"""Most layers: as many directories as overlayfs stacks (OVL_MAX_STACK, fs/overlayfs/params.h);
docker makes 127."""

INFLATED_LIMIT = 64 * 1024**3
"""Most bytes that an image may have when it is decompressed; real ones have up to 20 GB."""

INFLATED_FREE = 8 * 1024**3
INFLATED_RATIO = 32
"""So many bytes of them for any archive, and so many more for each byte that is stored; of real
layers 2 to 10."""

MEMBER_COST = 32 * 1024
"""Bytes for which a member of gzip or a frame of zstd counts, however small or empty it is:
beginning one takes as long as decompressing these."""

BLOCKS = 320
"""Blocks of decompressed data that are kept of all layers: 80 MiB."""

CURSORS = 6
"""Decompressors of all layers that are kept at their positions, each with a window of up to
32 MiB."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class OverBudget(BrokenArchive):
    """The image takes more than mlcheck spends on one."""


class Kept(Generic[K, V]):
    """The values that were used last. Safe for use from several threads.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return a value, or None if it is not kept any more."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, the one that was used last."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._limit:
                self._values.popitem(last=False)

    def items(self) -> list[tuple[K, V]]:
        """Return what is kept."""
        with self._lock:
            return list(self._values.items())


class Budget:
    """Counters of one pass over an image.

    Args:
        stored: bytes of the image as it is stored.

    Attributes:
        starts: bytes kept of the beginnings of files.
        blocks, cursors: what decompressors keep; see `byte_sources.Inflated`.

    Raises:
        OverBudget: from `entries`, `steps` and `inflate`, when a limit is passed.
    """

    def __init__(self, stored: int = 0) -> None:
        self.stored = stored
        self.starts = 0
        self.blocks: Kept[tuple[object, int], bytes] = Kept(BLOCKS)
        self.cursors: Kept[tuple[object, int], object] = Kept(CURSORS)
        self._entries = self._names = self._steps = self._inflated = 0

    def entries(self, count: int, names: int = 0) -> None:
        """Count files, with so many characters of names."""
        self._entries += count
        self._names += names
        if self._entries > ENTRY_LIMIT:
            raise OverBudget(f"has more than {ENTRY_LIMIT} files, the most that an image may have")
        if self._names > NAMES_LIMIT:
            raise OverBudget(
                f"has more than {NAMES_LIMIT} characters of names, the most that an image may have"
            )

    def steps(self, count: int) -> None:
        """Count components of paths that are followed."""
        self._steps += count
        if self._steps > STEP_LIMIT:
            raise OverBudget(
                f"has paths and links of more than {STEP_LIMIT} steps, the most that an image may "
                "take"
            )

    def inflate(self, count: int) -> None:
        """Count bytes that were decompressed for the first time."""
        self._inflated += count
        limit = min(INFLATED_LIMIT, INFLATED_FREE + INFLATED_RATIO * self.stored)
        if self._inflated > limit:
            raise OverBudget(
                f"has more than {shown(limit)} when decompressed, where each member or frame "
                f"counts for {binary(MEMBER_COST)}: the most for an image of {shown(self.stored)}"
            )


NOT_JUDGED = "It is not judged: no image for use has as much. docs/engines.md has the limits."
