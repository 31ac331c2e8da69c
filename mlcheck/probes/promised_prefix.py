"""Whether a prefix holds an environment, of which kind, and where else the image has some."""

from __future__ import annotations

import re

from mlcheck.engines.base import RootFS
from mlcheck.facts import PrefixKind, PromisedPrefix
from mlcheck.probes.prefixes import find

_CONDAS = ("condabin", "etc/conda", "bin/conda", "bin/mamba")
"""What conda's environments have besides conda-meta, which a build may have deleted."""
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*")
_LIBRARY = re.compile(r"(?:python|pypy)3[0-9.]*")


def probe(rootfs: RootFS, path: str) -> PromisedPrefix:
    """What is at `path`.

    Raises:
        ProbeError: this machine forbids looking.
    """
    there = rootfs.resolve(path)
    if there.final is None:
        problem = there.problem or "is not there"
    elif there.final.type != "directory":
        problem = f"is no directory but a {there.final.type}"
    elif not rootfs.listdir(path):
        problem = "is an empty directory"
    else:
        kind = kind_of(rootfs, path)
        problem = "" if kind else "has neither conda-meta nor pyvenv.cfg nor a Python in bin/"
        return PromisedPrefix(path, kind, problem, others=() if kind else find(rootfs).found)
    return PromisedPrefix(path, None, problem, filled=False, others=find(rootfs).found)


def kind_of(rootfs: RootFS, path: str) -> PrefixKind | None:
    """The kind of the environment in the directory `path`; None: there is none."""
    if _is(rootfs, f"{path}/conda-meta", "directory"):
        return "conda"
    if _is(rootfs, f"{path}/pyvenv.cfg", "file"):
        return "venv"
    if any(rootfs.resolve(f"{path}/{name}").final is not None for name in _CONDAS):
        return "conda"
    if any(_PYTHON.fullmatch(name) for name in rootfs.listdir(f"{path}/bin")):
        return "python"
    for name in rootfs.listdir(f"{path}/lib"):
        packages = (f"{path}/lib/{name}/{last}" for last in ("site-packages", "dist-packages"))
        if _LIBRARY.fullmatch(name) and any(_is(rootfs, one, "directory") for one in packages):
            return "python"
    return None


def _is(rootfs: RootFS, path: str, kind: str) -> bool:
    final = rootfs.resolve(path).final
    return final is not None and final.type == kind
