"""From an image reference to an open image: choose the engine, build references, open."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlcheck import reference
from mlcheck.engines.base import Engine, OpenImage
from mlcheck.engines.sandbox import Sandbox
from mlcheck.errors import UsageError
from mlcheck.image import ImageRef

ENGINES = ("auto", "sandbox")


def choose_engine(ref: ImageRef, wanted: str = "auto") -> tuple[Engine, str]:
    """The engine for an image, and why it was chosen.

    Raises:
        UsageError: no engine of this version opens such an image.
    """
    if ref.kind in ("directory", "reference"):
        why = "asked for" if wanted != "auto" else "a directory needs no container engine"
        return Sandbox(), why
    hint = ""
    if ref.kind == "registry" and Path(ref.text).is_dir():
        hint = f" For the directory of that name, write ./{ref.text}."
    raise UsageError(
        f"{ref.text!r} is an image of kind {ref.kind}; this version judges directories and "
        f"reference images.{hint}",
        "Unpack it into a directory, for instance with `apptainer build --sandbox DIR IMAGE`.",
    )


def with_default_tag(ref: ImageRef) -> ImageRef:
    """A reference image without a tag gets the tag of this machine's Python."""
    if ref.kind == "reference" and ref.tag is None:
        return dataclasses.replace(ref, tag=reference.default_tag())
    return ref


def check_exists(ref: ImageRef) -> None:
    """Find the user's mistakes before anything starts.

    Raises:
        UsageError: the directory does not exist, or there is no such reference image.
    """
    if ref.kind == "reference":
        if ref.name not in reference.NAMES:
            raise UsageError(
                f"there is no reference image {ref.name!r}.",
                f"There are: {', '.join(reference.NAMES)}.",
            )
    elif ref.kind == "directory":
        with Sandbox().open(ref):
            pass


@contextmanager
def open_image(
    ref: ImageRef,
    engine: Engine,
    *,
    network: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[OpenImage]:
    """Open an image; a reference image is built first if it is not in the cache.

    Args:
        progress: told a line for each step of building.

    Raises:
        UsageError, EngineError: as the engine's own `open`.
    """
    if ref.kind == "reference":
        directory = reference.build(ref.name, tag=ref.tag, progress=progress)
        ref = dataclasses.replace(ref, kind="directory", location=str(directory))
    with engine.open(ref, network=network) as image:
        yield image
