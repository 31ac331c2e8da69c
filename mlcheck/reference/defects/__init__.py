"""Faults to plant: each alone makes an otherwise good reference image bad."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from mlcheck.model.errors import UsageError
from mlcheck.reference.defects.base import Defect

__all__ = ["DEFECTS", "Defect", "find"]


def _all() -> dict[str, Defect]:
    """The defects of every module here but `base`: a subject registers itself."""
    found: dict[str, Defect] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            found |= importlib.import_module(f"{__name__}.{module.name}").DEFECTS
    return dict(sorted(found.items()))


DEFECTS: Mapping[str, Defect] = MappingProxyType(_all())


def find(name: str, image: str) -> Defect:
    """Return the fault `name` for the image `image`.

    Raises:
        UsageError: there is no such fault, or not for this image.
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
