"""Fixtures for tests that need a reference image, which takes half a minute to build at first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from mlcheck import reference
from mlcheck.engines.sandbox.engine import Sandbox
from mlcheck.model.image_ref import ImageRef


class Answer(NamedTuple):
    """What a command in the image answered."""

    returncode: int | None
    stdout: str
    stderr: str


RunInside = Callable[[Sequence[str]], Answer]


@pytest.fixture(scope="session")
def reference_image() -> Path:
    """The good ml-pyroot image, from the user's cache or built."""
    return reference.build("ml-pyroot")


@pytest.fixture(scope="session")
def run_inside(reference_image: Path) -> Iterator[RunInside]:
    """Runs a command in the good ml-pyroot image."""
    engine = Sandbox()
    reason = engine.unusable()
    if reason is not None:
        pytest.skip(str(reason))
    ref = ImageRef.parse(str(reference_image))
    with engine.prepare(ref) as prepared, engine.open(prepared) as image:

        def run(argv: Sequence[str]) -> Answer:
            done = image.run(argv)
            return Answer(done.exit_code, done.stdout.decode(), done.stderr.decode())

        yield run
