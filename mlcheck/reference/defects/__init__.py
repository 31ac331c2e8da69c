"""Defects: faults of which each is planted alone in an otherwise good reference image."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mlcheck.errors import UsageError
from mlcheck.reference.defects import (
    atlas,
    elves,
    files,
    gpus,
    integrity,
    jupyter,
    jupyter_running,
    layered,
    newenv,
    on_host,
    packages,
    parity,
    programs,
    root,
    serving,
)
from mlcheck.reference.defects.base import Defect

__all__ = ["DEFECTS", "Defect", "find"]

DEFECTS: Mapping[str, Defect] = MappingProxyType(
    dict(
        sorted(
            (
                atlas.DEFECTS
                | elves.DEFECTS
                | files.DEFECTS
                | gpus.DEFECTS
                | integrity.DEFECTS
                | jupyter.DEFECTS
                | jupyter_running.DEFECTS
                | layered.DEFECTS
                | newenv.DEFECTS
                | on_host.DEFECTS
                | packages.DEFECTS
                | parity.DEFECTS
                | programs.DEFECTS
                | root.DEFECTS
                | serving.DEFECTS
            ).items()
        )
    )
)


def find(name: str, image: str) -> Defect:
    """The defect `name`, for the image `image`.

    Raises:
        UsageError: there is none of that name, or not in that image.
    """
    fitting = [defect.name for defect in DEFECTS.values() if image in defect.images]
    if name in fitting:
        return DEFECTS[name]
    if name in DEFECTS:
        where = ", ".join(sorted(DEFECTS[name].images))
        raise UsageError(f"The defect {name} can be planted in {where}, not in {image}.")
    raise UsageError(
        f"There is no defect {name!r}.", f"There are, for {image}: {', '.join(fitting)}."
    )
