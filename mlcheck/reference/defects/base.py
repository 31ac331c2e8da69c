"""The class of a fault, and helpers for planting."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

from mlcheck.reference import dist_info, listing, tree
from mlcheck.reference.condameta import META
from mlcheck.reference.python import SITE

ML_BASE = "ml-base"
ML_PYROOT = "ml-pyroot"


@dataclass(frozen=True, slots=True)
class AddedFile:
    """A file of a layer, owned by root.

    Args:
        content: bytes, or a file of this machine.
    """

    path: str
    content: bytes | Path
    mode: int = 0o644

    @classmethod
    def deleted(cls, path: str) -> AddedFile:
        """Make the whiteout that hides a file of a layer below."""
        parent, _, name = path.rpartition("/")
        return cls(f"{parent}/.wh.{name}", b"")


@dataclass(frozen=True, slots=True)
class AddedLayer:
    """A layer on top of the image, with its line in the image's history."""

    created_by: str
    files: tuple[AddedFile, ...]


@dataclass(frozen=True, slots=True)
class Defect:
    """A fault that can be planted.

    Args:
        name: its name ("rpath").
        images: the reference images in which it can be planted.
        plants: the resulting fault, in one sentence.
        caught_by: ids of the rules that fail; all others pass as before. This includes a rule that
            compares with a checked-in package list, as if that were the good image's.
        apply: plants it in the image at a directory, which may share its other files with good
            images by hard links.
        layers: for a fault that shows only in layers: makes the layers to put on top of the good
            image in a directory, which is not changed.
    """

    name: str
    images: frozenset[str]
    plants: str
    caught_by: frozenset[str]
    apply: Callable[[Path], None]
    layers: Callable[[Path], Sequence[AddedLayer]] | None = None

    @property
    def judged_in(self) -> str:
        """The image in which the fault is proven: ml-pyroot, which has the most, if possible."""
        return ML_PYROOT if ML_PYROOT in self.images else min(self.images)


Plant = Callable[[Path], None]
PlantLayers = Callable[[Path], Sequence[AddedLayer]]


class Catalogue(dict[str, Defect]):
    """The faults of one theme by name; its decorators add them."""

    def defect(
        self, name: str, plants: str, *caught_by: str, images: Iterable[str] = (ML_BASE, ML_PYROOT)
    ) -> Callable[[Plant], Plant]:
        """Add the decorated function as the fault `name`."""

        def add(plant: Plant) -> Plant:
            self[name] = Defect(name, frozenset(images), plants, frozenset(caught_by), plant)
            return plant

        return add

    def layers(
        self, name: str, plants: str, *caught_by: str
    ) -> Callable[[PlantLayers], PlantLayers]:
        """Add the decorated function as a fault that shows only in layers."""

        def add(plant: PlantLayers) -> PlantLayers:
            images = frozenset((ML_BASE, ML_PYROOT))
            self[name] = Defect(name, images, plants, frozenset(caught_by), _nothing, plant)
            return plant

        return add


def _nothing(_: Path) -> None:
    """Plant nothing in the directory."""


def edit_list(image: Path, edit: Callable[[list[str]], Iterable[str]]) -> None:
    """Replace the lines of the image's package list by `edit(lines)`, in order."""
    lines = tree.at(image, listing.PATH).read_text().splitlines()
    tree.write(image, listing.PATH, "\n".join(listing.in_order(edit(lines))) + "\n")


def record(image: Path, name: str) -> str:
    """Return the path of the conda record of the package `name`."""
    for file in sorted(tree.at(image, META).glob(f"{name}-*.json")):
        if json.loads(file.read_text())["name"] == name:
            return f"{META}/{file.name}"
    raise LookupError(f"no conda record of {name}")


def uninstall(image: Path, distribution: str, conda: tuple[str, ...]) -> None:
    """Remove a Python package with all its records."""
    info = dist_info.find(image, distribution)
    for row in list(dist_info.record_rows(tree.at(image, f"{info}/RECORD"))):
        file = tree.at(image, os.path.normpath(f"{SITE}/{row[0]}"))
        file.unlink(missing_ok=True)
        Path(cache_from_source(str(file))).unlink(missing_ok=True)
    for directory in (f"{SITE}/{distribution}", info):
        shutil.rmtree(tree.at(image, directory), ignore_errors=True)
    for name in conda:
        tree.remove(image, record(image, name))
    names = {distribution, *conda}
    edit_list(image, lambda lines: [line for line in lines if line.split()[0] not in names])
