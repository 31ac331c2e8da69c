"""The one environment of an image in which its users work."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from mlcheck.image.api import RootFS
from mlcheck.inspect.prefix.facts import Prefix, Prefixes
from mlcheck.model.environment import Environment


def prefix_of(
    rootfs: RootFS,
    config: Environment,
    tools: Mapping[str, str],
    environments: Prefixes,
) -> str | None:
    """Return the root of the environment in which the image's users work.

    It is that of the first python3 on PATH, or the one named by variables of conda and virtual
    environments, or that of the program which the image starts. Without a python3 on PATH, it is
    the environment with the most packages. None if Python is the system's, or there is none.
    """
    own = {one.path: one for one in environments.found if one.kind not in ("system", "packages")}
    python = tools.get("python3")
    programs = [python, rootfs.resolve(python).final_path] if python else []
    starts = [_above_bin(program) for program in programs]
    starts += [
        config.env[name]
        for name in ("CONDA_PREFIX", "CONDA_DIR", "VIRTUAL_ENV")
        if config.env.get(name)
    ]
    starts += [_above_bin(words[0]) for words in (config.entrypoint, config.cmd) if words]
    for top in starts:
        if top.startswith("/") and rootfs.resolve(top).final_path in own:
            return top.rstrip("/")
    if python or not own:
        return None
    return max(own.values(), key=lambda one: _size(rootfs, one)).path


def _above_bin(program: str) -> str:
    return posixpath.dirname(posixpath.dirname(program))


def _size(rootfs: RootFS, prefix: Prefix) -> int:
    """Estimate how many packages an environment has."""
    return sum(
        len(rootfs.listdir(path)) for path in (*prefix.packages, f"{prefix.path}/conda-meta")
    )
