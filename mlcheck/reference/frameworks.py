"""Additions of the TensorFlow and torch images: stand-ins for the frameworks and for CUDA.

The frameworks can be imported, know their versions and compute with numpy. The dynamic loader sees
real files: ELF files that need the CUDA libraries of TensorFlow and torch, found by an RPATH as in
conda's packages. Names and versions are those of the published alma9 images.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlcheck.reference import (
    condameta,
    consistency,
    dist_info,
    elf,
    python,
    rpmdb,
    system,
    tree,
    wheels,
)
from mlcheck.reference.cache import Job
from mlcheck.reference.condameta import CondaPackage, build_string
from mlcheck.reference.python import PREFIX, SITE
from mlcheck.reference.rpmdb import RpmPackage

_HERE = Path(__file__).parent
_ROOTFS = _HERE / "rootfs"

PCIUTILS = RpmPackage("pciutils", "3.7.0", "5.el9", "Programs for PCI devices", "GPLv2+")

CudaPackages = Mapping[str, tuple[str, tuple[str, ...]]]
"""conda's name to the version and the sonames of its libraries."""

CUDA_11: CudaPackages = {
    "cudatoolkit": (
        "11.8.0",
        (
            *("libcudart.so.11.0", "libcublas.so.11", "libcublasLt.so.11", "libcufft.so.10"),
            *("libcurand.so.10", "libcusolver.so.11", "libcusparse.so.11"),
        ),
    ),
    "cudnn": ("8.9.7.29", ("libcudnn.so.8",)),
    "nccl": ("2.26.2.1", ("libnccl.so.2",)),
    "cuda-version": ("11.8", ()),
}
CUDA_12: CudaPackages = {
    "cuda-cudart": ("12.4.127", ("libcudart.so.12",)),
    "libcublas": ("12.4.5.8", ("libcublas.so.12", "libcublasLt.so.12")),
    "libcufft": ("11.2.1.3", ("libcufft.so.11",)),
    "libcurand": ("10.3.9.90", ("libcurand.so.10",)),
    "libcusolver": ("11.6.1.9", ("libcusolver.so.11",)),
    "libcusparse": ("12.3.1.170", ("libcusparse.so.12",)),
    "pytorch-cuda": ("12.4", ()),
}

_WITH_CUDA_12: CudaPackages = {
    "cudnn": ("9.8.0.87", ("libcudnn.so.9",)),
    "nccl": ("2.25.1.1", ("libnccl.so.2",)),
}

_WITH_TENSORFLOW = {
    "keras": "keras",
    "keras-cv": "keras_cv",
    "keras-nlp": "keras_nlp",
    "keras-tuner": "keras_tuner",
    "tensorboard": "tensorboard",
    "tensorflow-datasets": "tensorflow_datasets",
    "tensorflow-estimator": "tensorflow_estimator",
    "tensorflow-text": "tensorflow_text",
    "tf-keras": "tf_keras",
}
"""Distribution to the package that it installs."""

_FOR_TENSORFLOW_2_15 = {
    "keras": "2.15.0",
    "keras-cv": "0.9.0",
    "keras-nlp": "0.18.1",
    "keras-tuner": "1.4.7",
    "tensorboard": "2.15.2",
    "tensorflow-datasets": "4.8.3",
    "tensorflow-estimator": "2.15.0",
    "tensorflow-text": "2.15.0",
    "tf-keras": "2.15.0",
}
_FOR_TENSORFLOW_2_14 = {
    "keras": "2.14.0",
    "keras-cv": "0.9.0",
    "keras-nlp": "0.18.1",
    "keras-tuner": "1.4.7",
    "tensorboard": "2.14.1",
    "tensorflow-datasets": "4.8.3",
    "tensorflow-estimator": "2.14.0",
    "tensorflow-text": "2.14.0",
    "tf-keras": "2.14.1",
}
_WITH_TORCH = {
    "captum": "0.8.0",
    "skorch": "1.1.0",
    "torchaudio": "2.5.1",
    "torchtext": "0.6.0",
    "torchvision": "0.20.1",
}


def add_tensorflow_cpu(root: Path, job: Job, real: bool) -> list[CondaPackage]:
    """Add TensorFlow without CUDA; with `real`, its wheel from PyPI and all dependencies.

    Among the AlmaLinux images, only this one keeps conda's own OpenSSL.

    Returns: the records of what was added.
    """
    consistency.undo_openssl(root)
    if real:
        records = add_real_tensorflow(root, job)
        there = {record.name for record in records}
        others = {
            name: version for name, version in _FOR_TENSORFLOW_2_15.items() if name not in there
        }
        return [*records, *_stand_ins(root, others, [])]
    _add_tensorflow(root, job, "2.15.0", None, [])
    return _stand_ins(root, _FOR_TENSORFLOW_2_15, ["tensorflow"])


def add_tensorflow_gpu(root: Path, job: Job, _: bool) -> list[CondaPackage]:
    """Add a stand-in for TensorFlow with CUDA 11.8; there is no real one."""
    cuda = add_cuda(root, job, CUDA_11)
    needs = [soname for _, sonames in CUDA_11.values() for soname in sonames]
    _add_tensorflow(root, job, "2.14.0", "11.8", needs)
    _add_lspci(root)
    built = CondaPackage(
        "tensorflow-gpu",
        "2.14.0",
        build_string("tensorflow-gpu"),
        "Apache-2.0",
        ("tensorflow 2.14.0",),
        requested="tensorflow-gpu",
    )
    return [*cuda, built, *_stand_ins(root, _FOR_TENSORFLOW_2_14, ["tensorflow"])]


def add_tensorflow_with(root: Path, job: Job, version: str, cuda: str) -> list[CondaPackage]:
    """Add only a stand-in for TensorFlow with CUDA 12; returns its record."""
    records = add_cuda(root, job, {**CUDA_12, **_WITH_CUDA_12})
    libraries = {**CUDA_12, **_WITH_CUDA_12}
    needs = [soname for _, sonames in libraries.values() for soname in sonames]
    _add_tensorflow(root, job, version, cuda, needs)
    return [*records, *_stand_ins(root, {}, ["tensorflow"])]


def add_torch_gpu(root: Path, job: Job, _: bool) -> list[CondaPackage]:
    """Add a stand-in for torch with CUDA 12.4; there is no real one."""
    records = add_torch(root, job)
    _add_lspci(root)
    # After the banner; upstream has removed it from the image with TensorFlow.
    banner = tree.at(root, "/printme.sh").read_text()
    tree.write(root, "/printme.sh", banner + (_ROOTFS / "hint-gpu.sh").read_text(), 0o755)
    return records


def add_torch(root: Path, job: Job) -> list[CondaPackage]:
    """Add only a stand-in for torch with CUDA 12.4; returns its record and its companions'."""
    cuda = add_cuda(root, job, CUDA_12)
    package = _add_framework(root, "torch", "2.5.1", "12.4")
    # cuDNN is part of torch's own package.
    _add_cuda_library(job, package / "lib", "libcudnn.so.9")
    elf.library(job, package / "lib/libtorch_cpu.so", "libtorch_cpu.so", "reference_cpu", "2.5.1")
    library = package / "lib/libtorch_cuda.so"
    elf.library(job, library, library.name, "reference_torch_cuda", "2.5.1")
    needs = [soname for _, sonames in CUDA_12.values() for soname in sonames]
    _need(job, library, ["libtorch_cpu.so", "libcudnn.so.9", *needs])
    elf.set_rpath(job, library, "$ORIGIN:$ORIGIN/../../../..")
    dist_info.add_distribution(root, "torch", "2.5.1", "torch")
    return [*cuda, *_stand_ins(root, _WITH_TORCH, ["torch"])]


def add_two(
    root: Path,
    job: Job,
    tensorflow: str,
    torch: str,
    others: Mapping[str, str],
    cuda: str | None,
    needs: Sequence[str],
) -> None:
    """Add stand-ins for TensorFlow and torch to one image, as installed by pip.

    Args:
        tensorflow, torch: their versions.
        others: packages that come with torch, to their versions.
        cuda: the CUDA version that they were built for.
        needs: sonames of CUDA libraries that TensorFlow needs.
    """
    _add_tensorflow(root, job, tensorflow, cuda, [*needs])
    add_plain_torch(root, job, torch, others, cuda)


def add_plain_torch(
    root: Path, job: Job, version: str, others: Mapping[str, str], cuda: str | None
) -> None:
    """Add a stand-in for torch, as installed by pip; the arguments are those of `add_two`."""
    package = _add_framework(root, "torch", version, cuda)
    for kind in ("cpu", *(("cuda",) if cuda else ())):
        library = package / f"lib/libtorch_{kind}.so"
        elf.library(job, library, library.name, f"reference_torch_{kind}", version)
    dist_info.add_distribution(root, "torch", version, "torch")
    _stand_ins(root, others, [])


def add_plain_tensorflow(root: Path, job: Job, version: str) -> None:
    """Add a stand-in for TensorFlow without CUDA to an image without conda records."""
    _add_tensorflow(root, job, version, None, [])


def _add_framework(root: Path, name: str, version: str, cuda: str | None) -> Path:
    """Add the Python files of a stand-in; returns its package's directory."""
    package = tree.at(root, f"{SITE}/{name}")
    shutil.copytree(
        _ROOTFS / "frameworks" / name, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    tree.copy(root, f"{SITE}/{name}/_standin.py", _ROOTFS / "frameworks/standin.py", 0o644)
    build = f'VERSION = "{version}"\nCUDA_VERSION = {cuda!r}\n'
    tree.write(root, f"{SITE}/{name}/_build.py", build)
    return package


def _add_tensorflow(root: Path, job: Job, version: str, cuda: str | None, needs: list[str]) -> None:
    package = _add_framework(root, "tensorflow", version, cuda)
    library = package / "libtensorflow_framework.so.2"
    elf.library(job, library, library.name, "reference_tensorflow", version)
    _need(job, library, needs)
    elf.set_rpath(job, library, "$ORIGIN:$ORIGIN/../../..")
    dist_info.add_distribution(root, "tensorflow", version, "tensorflow")


def _need(job: Job, library: Path, sonames: list[str]) -> None:
    for soname in sonames:
        elf.patchelf(job, "--add-needed", soname, library)


def add_cuda(root: Path, job: Job, packages: CudaPackages) -> list[CondaPackage]:
    lib = tree.at(root, f"{PREFIX}/lib")
    records = []
    for name, (version, sonames) in packages.items():
        for soname in sonames:
            _add_cuda_library(job, lib, soname)
        files = tuple(f"lib/{soname}" for soname in sonames)
        built = build_string(name, python=False)
        records.append(CondaPackage(name, version, built, "LicenseRef-stand-in", files=files))
    return records


def _add_cuda_library(job: Job, directory: Path, soname: str) -> None:
    function = "reference_" + soname.partition(".")[0]
    elf.library(job, directory / soname, soname, function, "stand-in")


def _stand_ins(root: Path, versions: Mapping[str, str], above: Iterable[str]) -> list[CondaPackage]:
    """Add packages that can only be imported; returns records of them and of `above`."""
    site = tree.at(root, SITE)
    infos = [info for name in above for info in site.glob(f"{name}-*.dist-info")]
    for name, version in versions.items():
        package = _WITH_TENSORFLOW.get(name, name)
        text = f'"""Stand-in for {name} in a reference image."""\n\n__version__ = "{version}"\n'
        tree.write(root, f"{SITE}/{package}/__init__.py", text)
        dist_info.add_distribution(root, name, version, package)
        infos.append(site / f"{name.replace('-', '_')}-{version}.dist-info")
    return condameta.python_packages(root, versions, infos)


def add_real_tensorflow(root: Path, job: Job) -> list[CondaPackage]:
    """Add TensorFlow for CPUs from PyPI with its dependencies, and before Python 3.12 also its
    companions.

    Returns: the records of what was added. Records of other versions are removed.

    Raises:
        EngineError: packages could not be fetched from PyPI.
    """
    job.progress("TensorFlow: fetching 350 MB from PyPI, where they are not in uv's cache ...")
    # One package has no wheel; it is pure Python.
    words = ["--no-deps", "--no-binary", "promise", "-r", str(_HERE / "packages-tensorflow.lock")]
    added = wheels.install_more(root, job, words)
    site = tree.at(root, SITE)
    # Its wheel has "$ORIGIN/../lib:", whose empty end conda-build would remove.
    libclang = f"{SITE}/clang/native/libclang.so"
    elf.set_rpath(job, tree.at(root, libclang), "$ORIGIN/../lib")
    dist_info.mend_record(
        root, tree.at(root, dist_info.find(root, "libclang")) / "RECORD", {libclang}
    )
    records = condameta.python_packages(root, (), [site / info for info in added])
    new = {record.name for record in records}
    for file in list(tree.at(root, condameta.META).glob("*.json")):
        if json.loads(file.read_text())["name"] in new:
            file.unlink()
    return records


def _add_lspci(root: Path) -> None:
    tree.overlay(root, _ROOTFS / "gpu", python.VERSION)
    database = "/var/lib/rpm/rpmdb.sqlite"
    tree.remove(root, database)
    installed = int(condameta.INSTALLED.timestamp())
    rpmdb.write(tree.at(root, database), [*system.PACKAGES, PCIUTILS], installed)
