"""The part of a cache key that identifies the code that found a fact."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from pathlib import Path

import mlcheck

_PACKAGE = Path(mlcheck.__file__).parent
_READERS = (
    "cache",
    "engines",
    "image",
    "inspect",
    "model/command.py",
    "model/environment.py",
    "model/errors.py",
    "model/files.py",
    "model/host_gpus.py",
    "model/units.py",
)
"""All code that takes part in reading an image. Rules (`tests/`) and reports may change freely."""

_LIBRARIES = ("lief", "pydantic")


@functools.cache
def version() -> str:
    """Return a value that changes with every change of a probe and of the code and libraries
    it uses.

    The sources themselves are hashed (under 1 MB, a few milliseconds): a number that somebody has
    to remember to increase would be forgotten.
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
    """Identify the code of a probe: return a hash of its source, or "" if `version` covers it.

    Args:
        file: file of the module that defines the probe.
    """
    path = Path(file)
    if path.is_relative_to(_PACKAGE):
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()
