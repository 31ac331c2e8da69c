"""The configuration of the reference images, as `docker inspect` would show it."""

from __future__ import annotations

import json
from pathlib import Path

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
_OF_IMAGE = {
    "ml-tensorflow-cpu": _WITH_CUDA,
    "ml-tensorflow-gpu": _WITH_CUDA,
    "ml-torch-gpu": _WITH_CUDA,
}
ENTRYPOINT = ["/entrypoint.sh"]
CMD = ["/bin/bash"]
_ATLAS = {name: ENV[name] for name in ("PATH", "LANG", "LC_ALL")}


def labels(version: str) -> dict[str, str]:
    """The labels of an image whose tag is `version`."""
    return {"imageVersion": version, "imageRawSize": ""}


def env(image: str) -> dict[str, str]:
    """The variables of the reference image of that name."""
    return _ATLAS if image == "atlas-jupyter" else ENV | _OF_IMAGE.get(image, {})


def start(image: str) -> tuple[list[str], list[str]]:
    """ENTRYPOINT and CMD of the reference image of that name."""
    if image == "atlas-jupyter":  # made by apptainer, where a runscript is both
        return ["/.singularity.d/runscript"], []
    return ENTRYPOINT, CMD


def write_singularity(root: Path, version: str, image: str = "ml-base") -> None:
    """What apptainer keeps of a docker image's configuration in `/.singularity.d`."""
    lines = ["#!/bin/sh"]
    for name, value in env(image).items():
        # apptainer lets the user's environment win, but for PATH.
        shown = value if name == "PATH" else f'${{{name}:-"{value}"}}'
        lines.append(f'export {name}="{shown}"')
    path = "/.singularity.d/env/10-docker2singularity.sh"
    tree.write(root, path, "\n".join(lines) + "\n", 0o755)
    text = json.dumps(labels(version), indent="\t", sort_keys=True)
    tree.write(root, "/.singularity.d/labels.json", text + "\n")
    for link, target in (
        ("/singularity", "runscript"),
        ("/environment", "env/90-environment.sh"),
        ("/.exec", "actions/exec"),
        ("/.run", "actions/run"),
        ("/.shell", "actions/shell"),
        ("/.test", "actions/test"),
    ):
        tree.symlink(root, link, f".singularity.d/{target}")
