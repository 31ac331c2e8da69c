"""Images of docker-stacks' kind: the user jovyan, who may write the prefix, and a server.

They are built on the same packages as ml-base, and share their files by hard links.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcheck.reference import (
    aaw,
    condameta,
    config,
    consistency,
    debian,
    notebooks,
    python,
    system,
    tree,
)
from mlcheck.reference.cache import Job
from mlcheck.reference.condameta import CondaPackage, build_string
from mlcheck.reference.python import PREFIX, VERSION

HOME = "/home/jovyan"
TAG = "v1"
"""The tag of these reference images."""

WRITABLE = (PREFIX, HOME)
"""Directories that jovyan and the group `users` may write."""

_ROOTFS = Path(__file__).parent / "rootfs"
_OF_APPTAINER = (
    *("actions/exec", "actions/run", "actions/shell", "actions/start", "actions/test"),
    *("env/01-base.sh", "env/90-environment.sh", "env/95-apps.sh", "env/99-base.sh"),
    *("env/99-runtimevars.sh", "startscript"),
)
_REQUESTED = """
    beautifulsoup4 ipykernel ipywidgets jupyterhub jupyterlab matplotlib nbconvert numpy pandas
    pip pyyaml scikit-learn scipy seaborn
"""


@dataclass(frozen=True, slots=True)
class Stack:
    """The additions of an image to the image below it.


    Args:
        title: the addition, in a word.
        below: name of the image below; None for the packages.
        add: extends a copy of the image below, with real packages or not.
    """

    title: str
    below: str | None
    add: Callable[[Path, Job, bool], None]


def add_jovyan(root: Path, job: Job, real: bool) -> None:
    """Add the system, the user, the scripts that start the server, and conda's records; with
    `real`, Debian's tini."""
    system.lay_out(root, job)
    for path in _OF_APPTAINER:
        content = (_ROOTFS / "ml-base/.singularity.d" / path).read_bytes()
        mode = 0o755 if content.startswith(b"#!") else 0o644
        tree.write(root, f"/.singularity.d/{path}", content, mode)
    tree.remove(root, f"{PREFIX}/share/jupyter/kernels/python3-usersite")
    tree.overlay(root, _ROOTFS / "jovyan", VERSION)
    if real:
        debian.add_programs(root, job, ["tini"])
    tree.symlink(root, "/etc/os-release", "../usr/lib/os-release")
    system.write_loader_cache(root, job)
    consistency.drop_missing_parts(root, "scikit_hep")
    condameta.write(root, _records(root))


def _records(root: Path) -> list[CondaPackage]:
    packages = condameta.python_packages(root, _REQUESTED.split())
    owned = {path for package in packages for path in package.files}
    programs = (f"{PREFIX}/bin/{name}" for name in ("python", "python3", f"python{VERSION}"))
    interpreter = condameta.files_below(root, f"{PREFIX}/lib", *programs)
    return [
        *packages,
        CondaPackage(
            "python",
            python.full_version(),
            build_string("python", python=False) + "_cpython",
            "Python-2.0",
            files=tuple(path for path in interpreter if path not in owned),
            requested=f"python={VERSION}",
        ),
    ]


IMAGES: Mapping[str, Stack] = {
    "jupyterlab-cpu": Stack("R and tools", "jovyan", aaw.add_jupyterlab_cpu),
    "jupyterlab-tensorflow": Stack("TensorFlow", "jupyterlab-cpu", aaw.add_tensorflow),
    "jupyterlab-pytorch": Stack("torch", "jupyterlab-cpu", aaw.add_torch),
    "rstudio": Stack("RStudio", "jupyterlab-cpu", aaw.add_rstudio),
    "sas": Stack("SAS", "jupyterlab-cpu", aaw.add_sas),
    "remote-desktop": Stack("the desktop", "jupyterlab-cpu", aaw.add_remote_desktop),
    "machine-learning-notebook-cpu": Stack("for CPUs", "jovyan", notebooks.add_cpu),
    "machine-learning-notebook-gpu": Stack("for GPUs", "jovyan", notebooks.add_gpu),
}
"""Images that can be requested."""

ALL: Mapping[str, Stack] = {"jovyan": Stack("jovyan", None, add_jovyan), **IMAGES}
"""These images, and the base that several of them share."""


def lineage(name: str) -> list[str]:
    """Return the image, the image below it, and so on."""
    below = ALL[name].below
    return [name, *(lineage(below) if below else ())]


def finish(root: Path, name: str, below: Path) -> None:
    """Write the configuration, and set owners and write permissions.

    Args:
        below: the finished tree with which this one shares files.
    """
    config.write_singularity(root, TAG, name)
    config.write_runscript(root, name)
    tree.tidy_modes(root, below, WRITABLE)
