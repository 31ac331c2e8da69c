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
ENTRYPOINT = ["/entrypoint.sh"]
CMD = ["/bin/bash"]


def labels(version: str) -> dict[str, str]:
    """The labels of an image whose tag is `version`."""
    return {"imageVersion": version, "imageRawSize": ""}


def write_singularity(root: Path, version: str) -> None:
    """What apptainer keeps of a docker image's configuration in `/.singularity.d`."""
    lines = ["#!/bin/sh"]
    for name, value in ENV.items():
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
