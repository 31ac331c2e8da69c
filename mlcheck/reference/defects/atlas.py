"""Faults of atlas-jupyter: mount points, tools, kernels with ROOT, the server that it starts."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.defects.base import Catalogue
from mlcheck.reference.python import PREFIX, SITE

DEFECTS = Catalogue()
_defect = functools.partial(DEFECTS.defect, images=("atlas-jupyter",))
_LAUNCH = "/usr/local/bin/launch-kernel"
_PYTHON2 = "/usr/bin/python2.7"
_RUNSCRIPT = "/.singularity.d/runscript"
_START = 'exec jupyter-lab --no-browser --ip=127.0.0.1 "$@"'
_SET = "PYTHON_VER=$1\n"
_SOURCE = '. "$HOME/notebooks/.user_setups"'


@_defect("mount-point-missing", "There is no /mycvmfs, on which ROOT is to be bound.", "files")
def _mount_point_missing(image: Path) -> None:
    tree.remove(image, "/mycvmfs")


@_defect("mount-point-file", "/cvmfs is a file, on which no directory can be bound.", "files")
def _mount_point_file(image: Path) -> None:
    tree.remove(image, "/cvmfs")
    tree.write(image, "/cvmfs", "")


@_defect("tool-missing", "There is no gdb.", "commands")
def _tool_missing(image: Path) -> None:
    tree.remove(image, "/usr/bin/gdb")


@_defect(
    "setup-not-sourced",
    "The script that starts the kernels with ROOT runs the user's setup file in a shell of its "
    "own, where what it sets is lost.",
    "kernel-setup",
)
def _setup_not_sourced(image: Path) -> None:
    tree.replace(image, _LAUNCH, _SOURCE, _SOURCE.replace(".", "PYTHON_VER=$1 bash", 1))


@_defect(
    "setup-python-ver-unset",
    "The kernels with ROOT do not set PYTHON_VER before they source the user's setup file.",
    "kernel-setup",
)
def _setup_python_ver_unset(image: Path) -> None:
    tree.replace(image, _LAUNCH, _SET, "")
    tree.replace(image, _LAUNCH, "python$PYTHON_VER", "python$1")


@_defect(
    "setup-python-ver-wrong",
    "The kernels with ROOT tell the user's setup file that they run Python 3.",
    "kernel-setup",
)
def _setup_python_ver_wrong(image: Path) -> None:
    tree.replace(image, _LAUNCH, _SET, "PYTHON_VER=3\n")
    tree.replace(image, _LAUNCH, "python$PYTHON_VER", "python$1")


@_defect(
    "setup-demanded",
    "The kernels with ROOT do not start where the user has no setup file.",
    "kernels-start",
)
def _setup_demanded(image: Path) -> None:
    tree.replace(image, _LAUNCH, _SET, f"{_SET}cat ~/notebooks/.user_setups >/dev/null || exit 1\n")


@_defect("uproot-in-one", "Python 2.7, and so one kernel, has no uproot.", "kernel-cells")
def _uproot_in_one(image: Path) -> None:
    tree.write(image, "/usr/libexec/python2/uproot.py", "raise ImportError('no uproot here')\n")
    start = f"exec {PREFIX}/bin/python3"
    tree.replace(image, _PYTHON2, start, f"PYTHONPATH=/usr/libexec/python2:$PYTHONPATH {start}")


def _module_missing(image: Path, name: str) -> None:
    shutil.rmtree(tree.at(image, f"{SITE}/{name}"))


for _name, _title in (("tensorflow", "TensorFlow"), ("keras", "Keras"), ("dask", "dask")):
    _defect(f"{_name}-missing", f"{_title} cannot be imported.", "kernel-cells")(
        functools.partial(_module_missing, name=_name)
    )


@_defect("keras-wrong", "Keras computes wrongly.", "kernel-cells")
def _keras_wrong(image: Path) -> None:
    tree.replace(image, f"{SITE}/keras/utils.py", "numpy.eye(", "2 * numpy.eye(")


@_defect("run-mute", "What the image starts prints nothing, so that nobody knows where.", "run-url")
def _run_mute(image: Path) -> None:
    tree.replace(image, _RUNSCRIPT, _START, f"{_START} >/dev/null 2>&1")


@_defect("run-without-token", "The address that the image prints has no token.", "run-url")
def _run_without_token(image: Path) -> None:
    tree.replace(image, _RUNSCRIPT, _START, f"{_START} --IdentityProvider.token=")


@_defect(
    "run-elsewhere", "The image prints an address with a token that is not its own.", "run-url"
)
def _run_elsewhere(image: Path) -> None:
    said = f"echo http://127.0.0.1:8888/?token={'5f' * 24}"
    tree.replace(image, _RUNSCRIPT, _START, f"{said}\n{_START}")


@_defect("run-open", "The image prints an address with a token, and wants none there.", "run-token")
def _run_open(image: Path) -> None:
    said = f"echo http://127.0.0.1:8888/?token={'5f' * 24}"
    tree.replace(image, _RUNSCRIPT, _START, f"{said}\n{_START} --IdentityProvider.token=")


@_defect("size-over-budget", "A file of 4 GB, a hole, was left in the image.", "image-size")
def _size_over_budget(image: Path) -> None:
    tree.write(image, "/var/cache/left-over", "")
    os.truncate(tree.at(image, "/var/cache/left-over"), 4 * 10**9)
