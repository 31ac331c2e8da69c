"""Faults of TensorFlow and torch, of CUDA's libraries, and of the hint about the GPU driver."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path

from mlcheck.reference import condameta, elf, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.defects.base import Catalogue
from mlcheck.reference.dist_info import record_hash, record_rows
from mlcheck.reference.python import PREFIX, SITE

DEFECTS = Catalogue()
_CPU = ("ml-tensorflow-cpu",)
_TENSORFLOW = ("ml-tensorflow-gpu",)
_TORCH = ("ml-torch-gpu",)
_BUILD = f"{SITE}/tensorflow/_build.py"


@DEFECTS.defect(
    "framework-cpu-build",
    "TensorFlow of the GPU image is the build for CPUs.",
    "framework-build",
    images=_TENSORFLOW,
)
def _framework_cpu_build(image: Path) -> None:
    _edit(image, _BUILD, "CUDA_VERSION = '11.8'", "CUDA_VERSION = None")


@DEFECTS.defect(
    "framework-cuda-build",
    "TensorFlow of the CPU image is a build for CUDA.",
    "framework-build",
    images=_CPU,
)
def _framework_cuda_build(image: Path) -> None:
    _edit(image, _BUILD, "CUDA_VERSION = None", "CUDA_VERSION = '11.8'")


@DEFECTS.defect(
    "framework-cuda-version",
    "torch was built for CUDA 11.8, and the libraries are those of 12.4.",
    "framework-build",
    images=_TORCH,
)
def _framework_cuda_version(image: Path) -> None:
    _edit(image, f"{SITE}/torch/_build.py", "CUDA_VERSION = '12.4'", "CUDA_VERSION = '11.8'")


@DEFECTS.defect(
    "framework-broken",
    "TensorFlow imports, and its products are wrong.",
    "framework-computes",
    images=_CPU,
)
def _framework_broken(image: Path) -> None:
    path = f"{SITE}/tensorflow/__init__.py"
    _edit(image, path, "_Eager(a.data @ b.data,", "_Eager(a.data @ b.data + 0.5,")


@DEFECTS.defect(
    "framework-script-fails",
    "The image's own test of TensorFlow uses what TensorFlow 2 does not have.",
    "framework-script",
    images=_CPU,
)
def _framework_script_fails(image: Path) -> None:
    old, new = "with tf.device(", "with tf.Session(), tf.device("
    tree.replace(image, "/test-tensorflow-with-cpu.py", old, new)


@DEFECTS.defect(
    "framework-script-lies",
    "The image's own check of torch says True of a build for GPUs, also where there is none.",
    "framework-script",
    images=_TORCH,
)
def _framework_script_lies(image: Path) -> None:
    tree.replace(
        image,
        "/check-gpu-in-torch.py",
        "torch.cuda.is_available()",
        "torch.version.cuda is not None",
    )


@DEFECTS.defect(
    "cuda-library-missing",
    "torch needs libcusparse.so.12, which is nowhere.",
    *(
        "cuda-libraries",
        "framework-build",
        "framework-computes",
        "framework-script",
        "imports",
        "newenv-archive",
    ),
    images=_TORCH,
)
def _cuda_library_missing(image: Path) -> None:
    _remove(image, f"{PREFIX}/lib/libcusparse.so.12")


@DEFECTS.defect(
    "cuda-library-not-opened",
    "TensorFlow opens libcudnn.so.8 when it looks for GPUs, and it is nowhere.",
    *("cuda-libraries", "newenv-archive"),
    images=_TENSORFLOW,
)
def _cuda_library_not_opened(image: Path) -> None:
    library = f"{SITE}/tensorflow/libtensorflow_framework.so.2"
    elf.patchelf(Job(), "--remove-needed", "libcudnn.so.8", tree.own(image, library))
    _record(image, library)
    _remove(image, f"{PREFIX}/lib/libcudnn.so.8")


@DEFECTS.defect(
    "cuda-library-other-version",
    "libcudart.so.11.0 is the library of CUDA 12, as its own name says.",
    *("cuda-libraries", "conda-files-unchanged"),
    images=_TENSORFLOW,
)
def _cuda_library_other_version(image: Path) -> None:
    library = tree.at(image, f"{PREFIX}/lib/libcudart.so.11.0")
    elf.library(Job(), library, "libcudart.so.12", "reference_libcudart", "stand-in")


@DEFECTS.defect(
    "cuda-driver-for-some-cpus",
    "libcuda.so.1 lies in glibc-hwcaps/x86-64-v2 of /usr/lib64, where the loader looks first.",
    "cuda-driver-in-image",
    images=_TENSORFLOW,
)
def _cuda_driver_for_some_cpus(image: Path) -> None:
    library = tree.at(image, "/usr/lib64/glibc-hwcaps/x86-64-v2/libcuda.so.1")
    elf.library(Job(), library, "libcuda.so.1", "cuInit", "no driver")


@DEFECTS.defect(
    "cuda-driver-in-image",
    "cuda-compat's libcuda.so.1 is linked into the prefix's lib/, as an earlier recipe of "
    "upstream's did.",
    "cuda-driver-in-image",
    images=_TENSORFLOW,
)
def _cuda_driver_in_image(image: Path) -> None:
    library = tree.at(image, f"{PREFIX}/cuda-compat/libcuda.so.520.61.05")
    elf.library(Job(), library, "libcuda.so.1", "cuInit", "no driver")
    tree.symlink(image, f"{PREFIX}/lib/libcuda.so.1", "../cuda-compat/libcuda.so.520.61.05")


@DEFECTS.defect(
    "gpu-hint-unversioned",
    "The hint looks for a file libcuda.so in two directories, as upstream's does, and so speaks "
    "although the driver's library can be loaded.",
    "gpu-hint",
    images=_TORCH,
)
def _gpu_hint_unversioned(image: Path) -> None:
    old = "! python3 -I -c 'import ctypes; ctypes.CDLL(\"libcuda.so.1\")' 2>/dev/null"
    new = "! ls /usr/local/nvidia/lib64/libcuda.so /usr/local/cuda/lib64/libcuda.so >/dev/null 2>&1"
    tree.replace(image, "/printme.sh", old, new)


@DEFECTS.defect(
    "gpu-hint-missing",
    "The banner is that of an image without GPU.",
    "gpu-hint",
    images=_TORCH,
)
def _gpu_hint_missing(image: Path) -> None:
    banner = tree.at(image, "/printme.sh").read_text().partition("\n# A GPU is of use")[0]
    tree.write(image, "/printme.sh", f"{banner}\n", 0o755)


@DEFECTS.defect(
    "env-no-cuda",
    "LD_LIBRARY_PATH has not the directories into which engines put NVIDIA's driver.",
    "environment",
    images=(*_TENSORFLOW, *_TORCH),
)
def _env_no_cuda(image: Path) -> None:
    path = "/.singularity.d/env/10-docker2singularity.sh"
    tree.replace(image, path, ":/usr/local/nvidia/lib64:/usr/local/cuda/lib64", "")


def _edit(image: Path, path: str, old: str, new: str) -> None:
    tree.replace(image, path, old, new)
    _record(image, path)


def _remove(image: Path, path: str) -> None:
    tree.remove(image, path)
    _record(image, path)


def _record(image: Path, path: str) -> None:
    """Update or remove a file's entries in conda's record and in RECORD.

    The fault is that the package is like this; the package itself must not look damaged.
    """
    file = tree.at(image, path)
    content = file.read_bytes() if file.exists() else None
    inside = os.path.relpath(path, PREFIX)
    for record in sorted(tree.at(image, condameta.META).glob("*.json")):
        data = json.loads(record.read_text())
        if inside not in data["files"]:
            continue
        entries = data["paths_data"]["paths"]
        if content is None:
            data["files"].remove(inside)
            entries[:] = [entry for entry in entries if entry["_path"] != inside]
        for entry in entries:
            if entry["_path"] == inside and content is not None:
                known = hashlib.sha256(content).hexdigest()
                entry.update(sha256=known, sha256_in_prefix=known, size_in_bytes=len(content))
        text = json.dumps(data, indent=2, sort_keys=True) + "\n"
        tree.write(image, f"{condameta.META}/{record.name}", text)
    site = tree.at(image, SITE)
    inside = os.path.relpath(path, SITE)
    for listing in sorted(site.glob("*.dist-info/RECORD")):
        if inside not in listing.read_text():
            continue
        rows = [row for row in record_rows(listing) if row[0] != inside]
        if content is not None:
            rows.append([inside, record_hash(content), str(len(content))])
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        tree.write(image, f"{SITE}/{listing.relative_to(site)}", out.getvalue())
