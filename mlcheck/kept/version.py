"""What a kept fact depends on besides the image: the code that found it."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from pathlib import Path

import mlcheck

_PACKAGE = Path(mlcheck.__file__).parent
_READERS = (
    "rootfs.py",
    "entries.py",
    "directories.py",
    "listing.py",
    "files.py",
    "layered.py",
    "errors.py",
    "facts",
    "probes",
    "engines",
    "kept",
)
"""All that has a part in reading an image. What only judges or reports may change freely."""

_LIBRARIES = ("lief", "pydantic")


@functools.cache
def version() -> str:
    """Changes with every change of a probe, of what it reads through, or of what it is made with.

    The sources themselves are hashed (under 1 MB, a few milliseconds): a number that somebody has
    to remember to raise would be forgotten.
    """
    import importlib.metadata  # takes a while itself, and is not needed with the cache off

    told = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    told += [mlcheck.__version__, sys.version, platform.machine()]
    found = hashlib.sha256("\n".join(told).encode())
    for reader in _READERS:
        path = _PACKAGE / reader
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(f"\n{file.relative_to(_PACKAGE)}\n".encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def source_of(file: str) -> str:
    """What stands for the code of a probe: its text, where that is not ours and told by `version`.

    Args:
        file: of the module that has the probe.
    """
    path = Path(file)
    if path.is_relative_to(_PACKAGE):
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()
