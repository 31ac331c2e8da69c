"""The size of an image."""

from __future__ import annotations

from pathlib import Path

from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS
from mlcheck.inspect.facts import Session
from mlcheck.inspect.files.facts import ImageSize, SifSize
from mlcheck.inspect.registry import fact
from mlcheck.profile.catalog import Profile


@fact()
def image_size(rootfs: RootFS, ask: Ask, profile: Profile) -> ImageSize | None:
    """Measure the image, or return None if the profile sets no budget."""
    budget = profile.expect.size
    return ask(probe, rootfs) if budget and budget.unpacked else None


@fact()
def sif_size(session: Session) -> SifSize | None:
    """Bytes of the image's SIF file, or None if it is not one."""
    if session.prepared.ref.kind != "sif":
        return None
    return SifSize(Path(session.prepared.location).stat().st_size)


def probe(rootfs: RootFS) -> ImageSize:
    """Count all regular files, hard links of one file once.

    The result is the same on every engine: it is not the space on a disk or in a registry.

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
