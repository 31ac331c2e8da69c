"""The kind of the promised environment, and other environments of the image."""

from __future__ import annotations

import re

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix.facts import (
    NAMES,
    CondaPrefix,
    Environments,
    PrefixKind,
    PrefixPath,
    PromisedPrefix,
    Python3,
)
from mlcheck.inspect.registry import fact
from mlcheck.model.errors import NotApplicable, Untried, needed
from mlcheck.profile.catalog import Profile

_CONDAS = ("condabin", "etc/conda", "bin/conda", "bin/mamba")
"""Files of conda's environments besides conda-meta, which a build may have deleted."""
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*")
_LIBRARY = re.compile(r"(?:python|pypy)3[0-9.]*")


@fact()
def promised_prefix(image: OpenImage, ask: Ask, profile: Profile) -> PromisedPrefix | None:
    """Examine the profile's prefix, or return None if it names none."""
    path = profile.expect.prefix
    return None if path is None else ask(probe, image.rootfs, path)


def filled(prefix: PromisedPrefix | None) -> str | None:
    """Return the path of the profile's prefix, or None if it names none.

    Raises:
        Untried: the image has nothing there.
    """
    if prefix is None:
        return None
    if not prefix.filled:
        raise Untried(missing(prefix))
    return prefix.path


def missing(prefix: PromisedPrefix) -> str:
    """Return why a rule about the contents of the prefix is skipped, if it is empty."""
    return f"{prefix.path} {prefix.problem} (see prefix-there)"


@fact()
def prefix_path(prefix: PromisedPrefix | None) -> PrefixPath:
    """Root of the profile's environment in the image, which is not empty."""
    return PrefixPath(needed(filled(prefix), "the profile names no prefix"))


@fact()
def environments(rootfs: RootFS, ask: Ask, prefix: PromisedPrefix | None) -> Environments:
    """The environments whose packages are examined: the profile's, or the system's Python."""
    return Environments(ask(prefixes.at, rootfs, filled(prefix)))


@fact()
def conda_prefix(image: OpenImage, path: PrefixPath, prefix: PromisedPrefix | None) -> CondaPrefix:
    """The prefix, if it is conda's."""
    kind = None if prefix is None else prefix.kind
    if prefix is None or kind is None:
        raise Untried("" if prefix is None else missing(prefix))
    variables = ("CONDA_PREFIX", "CONDA_DIR", "MAMBA_ROOT_PREFIX")
    said = {image.environment.env.get(name, "").rstrip("/") for name in variables}
    if kind != "conda" and (kind == "venv" or path not in said):
        raise NotApplicable(f"{path} is {NAMES[kind]}, not conda's")
    return CondaPrefix(path)


@fact()
def python3(prefix: PromisedPrefix | None) -> Python3:
    """The Python that has Jupyter: the prefix's, or that of PATH."""
    path = filled(prefix)
    return Python3(f"{path}/bin/python3" if path else "python3")


def probe(rootfs: RootFS, path: str) -> PromisedPrefix:
    """Examine `path`.

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
        return PromisedPrefix(
            path, kind, problem, others=() if kind else prefixes.find(rootfs).found
        )
    return PromisedPrefix(path, None, problem, filled=False, others=prefixes.find(rootfs).found)


def kind_of(rootfs: RootFS, path: str) -> PrefixKind | None:
    """Return the kind of the environment in the directory `path`, or None if there is none."""
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
