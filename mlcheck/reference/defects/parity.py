"""Faults of parity: differences of the image for GPUs from the image for CPUs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mlcheck.reference import dist_info, tree
from mlcheck.reference.defects.base import Catalogue
from mlcheck.reference.notebooks import TENSORFLOW, TORCH
from mlcheck.reference.python import PREFIX, SITE

DEFECTS = Catalogue()
_GPU = ("machine-learning-notebook-gpu",)
_KERNEL = f"{PREFIX}/share/jupyter/kernels/python3/kernel.json"


@DEFECTS.defect(
    "parity-tensorflow",
    "TensorFlow for GPUs is 2.1.0, that for CPUs 2.3.1.",
    "parity-packages",
    images=_GPU,
)
def _tensorflow(image: Path) -> None:
    _other_version(image, "tensorflow", TENSORFLOW, "2.1.0")


@DEFECTS.defect(
    "parity-torch", "torch for GPUs is 1.3.1, that for CPUs 1.6.0.", "parity-packages", images=_GPU
)
def _torch(image: Path) -> None:
    _other_version(image, "torch", TORCH, "1.3.1")


@DEFECTS.defect(
    "parity-torchtext", "The image for GPUs has no torchtext.", "parity-packages", images=_GPU
)
def _torchtext(image: Path) -> None:
    for path in (dist_info.find(image, "torchtext"), f"{SITE}/torchtext"):
        shutil.rmtree(tree.at(image, path))


@DEFECTS.defect(
    "parity-kernel",
    "The kernel for GPUs sets a variable that the one for CPUs does not.",
    "parity-kernels",
    "parity-files",
    images=_GPU,
)
def _kernel(image: Path) -> None:
    spec = json.loads(tree.at(image, _KERNEL).read_text())
    spec["env"] = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    tree.write(image, _KERNEL, json.dumps(spec, indent=1) + "\n", 0o664)


@DEFECTS.defect(
    "parity-kernel-more",
    "The image for GPUs has a kernel of its own.",
    "parity-kernels",
    "parity-files",
    "kernelspecs-promised",
    images=_GPU,
)
def _kernel_more(image: Path) -> None:
    content = tree.at(image, _KERNEL).read_bytes()
    tree.write(image, _KERNEL.replace("/python3/", "/python3-gpu/"), content, 0o664)
    tree.at(image, _KERNEL.replace("/python3/kernel.json", "/python3-gpu")).chmod(0o2775)


@DEFECTS.defect(
    "parity-tool",
    "A program is on the PATH of the image for CPUs alone.",
    "parity-tools",
    "parity-files",
    images=_GPU,
)
def _tool(image: Path) -> None:
    tree.remove(image, "/usr/bin/which")


@DEFECTS.defect(
    "parity-variable",
    "The image for GPUs sets another LANG.",
    "parity-environment",
    images=_GPU,
)
def _variable(image: Path) -> None:
    path = "/.singularity.d/env/10-docker2singularity.sh"
    tree.replace(image, path, 'LANG="${LANG:-"C.UTF-8"}"', 'LANG="${LANG:-"en_US.UTF-8"}"')


@DEFECTS.defect(
    "parity-file",
    "The script that starts the server is another in the image for GPUs.",
    "parity-files",
    images=_GPU,
)
def _file(image: Path) -> None:
    tree.replace(image, "/usr/local/bin/start-notebook.sh", "exec jupyter", "exec  jupyter")


@DEFECTS.defect(
    "parity-os",
    "The image for GPUs is of another distribution.",
    "parity-os",
    "os-release",
    images=_GPU,
)
def _os(image: Path) -> None:
    tree.replace(image, "/usr/lib/os-release", "ID=ubuntu", "ID=debian")


def _other_version(image: Path, name: str, old: str, new: str) -> None:
    shutil.rmtree(tree.at(image, f"{SITE}/{name}-{old}.dist-info"))
    tree.replace(image, f"{SITE}/{name}/_build.py", f'"{old}"', f'"{new}"')
    dist_info.add_distribution(image, name, new, name)
    info = tree.at(image, f"{SITE}/{name}-{new}.dist-info")
    info.chmod(0o2775)
    for file in info.iterdir():
        file.chmod(0o664)
