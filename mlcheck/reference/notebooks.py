"""The older kubeflow notebooks: the same software for CPUs and, with CUDA, for GPUs."""

from __future__ import annotations

from pathlib import Path

from mlcheck.reference import condameta, frameworks, system, tree
from mlcheck.reference.cache import Job

TENSORFLOW = "2.3.1"
TORCH = "1.6.0"
_WITH_TORCH = {"torchtext": "0.7.0", "torchvision": "0.7.0"}
_CUDA: frameworks.CudaPackages = {
    "cudatoolkit": ("11.0.221", ("libcudart.so.11.0", "libcublas.so.11")),
    "cudnn": ("8.0.5.39", ("libcudnn.so.8",)),
}
_OS_RELEASE = "/usr/lib/os-release"


def add_cpu(root: Path, job: Job, real: bool) -> None:
    """Add TensorFlow and torch without CUDA: stand-ins, or with `real` TensorFlow from PyPI."""
    if real:
        condameta.write(root, frameworks.add_real_tensorflow(root, job))
        frameworks.add_plain_torch(root, job, TORCH, _WITH_TORCH, None)
        system.write_loader_cache(root, job)
    else:
        frameworks.add_two(root, job, TENSORFLOW, TORCH, _WITH_TORCH, None, ())
    _set_ubuntu(root, "20.04", "Focal Fossa")


def add_gpu(root: Path, job: Job, _: bool) -> None:
    """Add the same for CUDA, on an older Ubuntu; everything, CUDA's libraries too, is a
    stand-in."""
    cuda = frameworks.add_cuda(root, job, _CUDA)
    needs = [soname for _, sonames in _CUDA.values() for soname in sonames]
    frameworks.add_two(root, job, TENSORFLOW, TORCH, _WITH_TORCH, "11.0", needs)
    condameta.write(root, cuda)
    tool = (
        '#!/bin/sh\n# Stand-in for nvcc in a reference image.\necho "Cuda compiler, release 11.0"\n'
    )
    tree.write(root, "/usr/local/cuda/bin/nvcc", tool, 0o755)
    system.write_loader_cache(root, job)
    _set_ubuntu(root, "18.04", "Bionic Beaver")


def _set_ubuntu(root: Path, version: str, name: str) -> None:
    """Set the release in /etc/os-release; the programs are this machine's."""
    lines = tree.at(root, _OS_RELEASE).read_text().splitlines()
    told = {
        "PRETTY_NAME": f'"Ubuntu {version} LTS"',
        "VERSION_ID": f'"{version}"',
        "VERSION": f'"{version} LTS ({name})"',
        "VERSION_CODENAME": name.split()[0].lower(),
    }
    kept = [line for line in lines if line.partition("=")[0] not in told]
    text = "\n".join([*kept, *(f"{key}={value}" for key, value in told.items())]) + "\n"
    tree.write(root, _OS_RELEASE, text)
