"""Environments of conda and Python in small images."""

from __future__ import annotations

import json
from pathlib import Path

from selftests.images import write

PYTHON = "python3.12"


def package(root: Path, site: str, name: str, version: str) -> None:
    """A package of Python's as pip installs it."""
    write(root, f"{site}/{name}/__init__.py", f"__version__ = '{version}'\n")
    info = f"{site}/{name}-{version}.dist-info"
    write(root, f"{info}/METADATA", f"Name: {name}\nVersion: {version}\n\n")
    own = [f"{name}-{version}.dist-info/{file}" for file in ("METADATA", "RECORD")]
    write(root, f"{info}/RECORD", "".join(f"{path},,\n" for path in (f"{name}/__init__.py", *own)))


def environment(root: Path, prefix: str, **versions: str) -> None:
    """A virtual environment with packages."""
    write(root, f"{prefix}/pyvenv.cfg", "home = /usr/bin\n")
    (root / prefix.lstrip("/") / "bin").mkdir()
    (root / prefix.lstrip("/") / "lib" / PYTHON / "site-packages").mkdir(parents=True)
    for name, version in versions.items():
        package(root, f"{prefix}/lib/{PYTHON}/site-packages", name, version)


def conda(root: Path, prefix: str, **versions: str) -> None:
    """An environment of conda's."""
    write(root, f"{prefix}/conda-meta/history", "")
    for name, version in versions.items():
        record = {"name": name, "version": version, "files": []}
        write(root, f"{prefix}/conda-meta/{name}-{version}-0.json", json.dumps(record))
