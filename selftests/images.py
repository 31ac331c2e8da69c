"""Small images made by hand, for the tests of probes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlcheck.engines.base import OpenImage
from mlcheck.engines.sandbox import Sandbox
from mlcheck.image import ImageRef


@contextmanager
def opened(root: Path) -> Iterator[OpenImage]:
    """The image in the directory `root`, opened by the embedded engine."""
    with Sandbox().open(ImageRef.parse(f"{root}/")) as image:
        yield image


def write(root: Path, path: str, content: str | bytes, mode: int = 0o644) -> Path:
    """Put a file at `path` in the image."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    target.chmod(mode)
    return target


def script(root: Path, path: str, text: str) -> None:
    """Put a shell script at `path` in the image."""
    write(root, path, f"#!/bin/sh\n{text}\n", 0o755)
