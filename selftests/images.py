"""Small images made by hand, for the tests of probes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from mlcheck.engines.base import OpenImage
from mlcheck.engines.sandbox.engine import Sandbox
from mlcheck.model.image_ref import ImageRef

PROGRAMS = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Where this machine's programs are: an ordinary user's PATH leaves out what is for root."""


@contextmanager
def opened(root: Path) -> Iterator[OpenImage]:
    """The image in the directory `root`, opened by the embedded engine."""
    ref = ImageRef.parse(f"{root}/")
    with Sandbox().prepare(ref) as prepared, Sandbox().open(prepared) as image:
        yield image


def write(root: Path, path: str, content: str | bytes, mode: int = 0o644) -> Path:
    """Put a file at `path` in the image."""
    # Behind a slash Path would forget the root, and write to this machine.
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    target.chmod(mode)
    return target


def each_engine(*ways: str) -> list[ParameterSet]:
    """Parameters for a test that runs on each of them; "apptainer-sif" needs apptainer."""
    return [
        pytest.param(way, marks=pytest.mark.engine(way.partition("-")[0]), id=way) for way in ways
    ]


def copy_programs(root: Path, names: Iterable[str]) -> None:
    """Put programs of this machine, with the libraries that they need, into the image."""
    for name in names:
        program = shutil.which(name, path=PROGRAMS)
        assert program is not None, f"{name} is needed for this test"
        shutil.copy(program, root / "usr/bin" / name)
        needs = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for library in re.findall(r"(/\S+) \(0x", needs.stdout):
            target = root / library.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(library, target)


def build_sif(source: Path | str, sif: Path, *options: str) -> Path:
    """Have apptainer build a SIF file.

    Skips the test of an ordinary user who may not mount it, as on machines without udev.
    """
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user may not use /dev/fuse, by which SIF files are mounted")
    subprocess.run(
        ["apptainer", "build", *options, str(sif), str(source)], check=True, capture_output=True
    )
    return sif


def script(root: Path, path: str, text: str) -> None:
    """Put a shell script at `path` in the image."""
    write(root, path, f"#!/bin/sh\n{text}\n", 0o755)
