"""The configuration of the reference images, in the form of `docker inspect`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mlcheck.reference import tree

ENV = {
    "PATH": "/opt/conda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "MAMBA_EXE": "/bin/micromamba",
    "MAMBA_ROOT_PREFIX": "/opt/conda",
    "CONDA_PREFIX": "/opt/conda",
    "JUPYTER_PATH": "/opt/conda/share/jupyter",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "LD_LIBRARY_PATH": "/usr/lib64",
}
_WITH_CUDA = {"LD_LIBRARY_PATH": "/usr/lib64:/usr/local/nvidia/lib64:/usr/local/cuda/lib64"}
_JOVYAN_ENV = {
    "PATH": "/opt/conda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "CONDA_DIR": "/opt/conda",
    "SHELL": "/bin/bash",
    "NB_USER": "jovyan",
    "NB_UID": "1000",
    "NB_GID": "100",
    "HOME": "/home/jovyan",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
}
_AAW = {"CS_TEMP_HOME": "/etc/share/code-server", "DEFAULT_JUPYTER_URL": "/lab"}
_NVIDIA = {
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    "NVIDIA_REQUIRE_CUDA": "cuda>=12.4",
}

_WITH_NVCC = {
    "PATH": f"{_JOVYAN_ENV['PATH']}:/usr/local/cuda/bin",
    "NVIDIA_VISIBLE_DEVICES": "all",
}
_HEALTHCHECK = ("CMD-SHELL", "/etc/jupyter/docker_healthcheck.py || exit 1")
_ATLAS = {name: ENV[name] for name in ("PATH", "LANG", "LC_ALL")}


APPTAINER_LINKS = {
    "singularity": "runscript",
    "environment": "env/90-environment.sh",
    ".exec": "actions/exec",
    ".run": "actions/run",
    ".shell": "actions/shell",
    ".test": "actions/test",
}
"""Links at the root of an image that apptainer unpacked, with their targets below
`/.singularity.d`. Scripts use them to recognise such an image."""


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration that the build of an image sets.

    Args:
        user: USER; "" is root.
        exposed: EXPOSE ("8888/tcp").
        healthcheck: HEALTHCHECK in the form of the configuration (["CMD-SHELL", ...]).
        labels: labels other than those with the tag.
        owned: directories that, with everything below them, belong to `owner` instead of root.
        owner: numeric user and group.
    """

    env: Mapping[str, str]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    user: str = ""
    workdir: str = ""
    exposed: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    owned: tuple[str, ...] = ()
    owner: tuple[int, int] = (0, 0)


def jovyan(
    cmd: str,
    env: Mapping[str, str] = MappingProxyType({}),
    exposed: tuple[str, ...] = ("8888/tcp",),
    *,
    health: bool = True,
) -> Config:
    """Make the configuration of an image of docker-stacks, whose user is jovyan.

    Args:
        cmd: the script that starts it.
        env: additional variables.
        health: whether it has the HEALTHCHECK of docker-stacks.
    """
    return Config(
        {**_JOVYAN_ENV, **env},
        ("tini", "--"),
        (cmd,),
        user="jovyan",
        workdir="/home/jovyan",
        exposed=exposed,
        healthcheck=_HEALTHCHECK if health else (),
        labels={"maintainer": "Jupyter Project <jupyter@googlegroups.com>"},
        owned=("/home/jovyan", "/opt/conda"),
        owner=(1000, 100),
    )


def _ml(env: Mapping[str, str]) -> Config:
    return Config(env, ("/entrypoint.sh",), ("/bin/bash",))


_OF_IMAGE = {
    # Made by apptainer, which has one runscript for both.
    "atlas-jupyter": Config(_ATLAS, ("/.singularity.d/runscript",), ()),
    "ml-tensorflow-cpu": _ml(ENV | _WITH_CUDA),
    "ml-tensorflow-gpu": _ml(ENV | _WITH_CUDA),
    "ml-torch-gpu": _ml(ENV | _WITH_CUDA),
    "jovyan": jovyan("start-notebook.sh"),
    "jupyterlab-cpu": jovyan("start-custom.sh", _AAW),
    "machine-learning-notebook-cpu": jovyan("start-notebook.sh"),
    "machine-learning-notebook-gpu": jovyan("start-notebook.sh", _WITH_NVCC),
    "jupyterlab-tensorflow": jovyan("start-custom.sh", _AAW | _NVIDIA),
    "jupyterlab-pytorch": jovyan("start-custom.sh", _AAW | _NVIDIA),
    "rstudio": jovyan("start-custom.sh", _AAW | {"DEFAULT_JUPYTER_URL": "/rstudio"}, health=False),
    "sas": jovyan("start-custom.sh", _AAW, ("8888/tcp", "8561/tcp", "8591/tcp", "38080/tcp")),
    "remote-desktop": jovyan("start-remote-desktop.sh", {}, health=False),
}


def of(image: str) -> Config:
    """Return the configuration of the reference image with this name."""
    return _OF_IMAGE.get(image, _ml(ENV))


def labels(version: str, image: str = "ml-base") -> dict[str, str]:
    """Return the labels of an image with the tag `version`."""
    own = dict(of(image).labels)
    return own or {"imageVersion": version, "imageRawSize": ""}


def write_singularity(root: Path, version: str, image: str = "ml-base") -> None:
    """Write a docker image's configuration to `/.singularity.d`, as apptainer does."""
    lines = ["#!/bin/sh"]
    for name, value in of(image).env.items():
        # apptainer gives the user's environment precedence, except for PATH.
        shown = value if name == "PATH" else f'${{{name}:-"{value}"}}'
        lines.append(f'export {name}="{shown}"')
    path = "/.singularity.d/env/10-docker2singularity.sh"
    tree.write(root, path, "\n".join(lines) + "\n", 0o755)
    text = json.dumps(labels(version, image), indent="\t", sort_keys=True)
    tree.write(root, "/.singularity.d/labels.json", text + "\n")
    for link, target in APPTAINER_LINKS.items():
        tree.symlink(root, f"/{link}", f".singularity.d/{target}")


def write_runscript(root: Path, image: str) -> None:
    """Write apptainer's runscript: ENTRYPOINT, then CMD or the arguments given instead."""
    config = of(image)
    quoted = {
        "OCI_ENTRYPOINT": " ".join(f'"{word}"' for word in config.entrypoint),
        "OCI_CMD": " ".join(f'"{word}"' for word in config.cmd),
    }
    lines = ["#!/bin/sh", *(f"{name}={shlex.quote(value)}" for name, value in quoted.items())]
    lines += [
        "# Words given to run take the place of the command; the entrypoint gets them either way.",
        'if [ $# -eq 0 ]; then\n    eval "set -- $OCI_CMD"\nfi',
        'eval "exec $OCI_ENTRYPOINT \\"\\$@\\""',
    ]
    tree.write(root, "/.singularity.d/runscript", "\n".join(lines) + "\n", 0o755)
