"""How large an image is."""

from __future__ import annotations

from mlcheck.engines.base import RootFS
from mlcheck.facts import ImageSize


def probe(rootfs: RootFS) -> ImageSize:
    """Count all regular files, hard links of one file once.

    The same on every engine: not what a disk needs for them, nor a registry.

    Raises:
        ProbeError: this machine forbids looking at them.
    """
    sizes: dict[tuple[int, int], int] = {}
    others = 0
    for file in rootfs.walk("/"):
        if file.type == "file":
            if file.inode == (0, 0):
                others += file.size
            else:
                sizes[file.inode] = file.size
    return ImageSize(others + sum(sizes.values()))
