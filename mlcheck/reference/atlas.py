"""The image atlas-jupyter: JupyterLab with kernels for ROOT, which is bound from the host."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlcheck.reference import debian, dist_info, frameworks, system, tree, wheels
from mlcheck.reference.cache import Job
from mlcheck.reference.python import PREFIX, SITE, VERSION

_HERE = Path(__file__).parent
_ROOTFS = _HERE / "rootfs"

ROOT_STAND_IN = _ROOTFS / "mycvmfs"
"""Directory to bind on /mycvmfs: a stand-in for a compiled ROOT."""

MOUNT_POINTS = ("/mycvmfs", "/cvmfs")

_COPIED = ("make", "curl", "ssh")
"""Programs copied from this machine; if it lacks one, a stand-in as for the larger ones."""
_SAID = {
    "gcc": "gcc (GCC) 4.8.5",
    "g++": "g++ (GCC) 4.8.5",
    "gdb": "GNU gdb (GDB) 7.6.1",
    "cmake3": "cmake3 version 3.13.5",
    "xrdcp": "v4.8.5",
    "xrdfs": "Usage: xrdfs [--no-cwd] host[:port] [command [args]]",
    "vi": "VIM - Vi IMproved 7.4",
    "make": "GNU Make 3.82",
    "curl": "curl 7.29.0",
    "ssh": "OpenSSH_7.4p1",
}
_REAL = (
    "cmake",
    "cmake-data",
    "curl",
    "gdb",
    "make",
    "openssh-client",
    "vim-tiny",
    "xrootd-client",
)
"""Debian's packages of these programs; gcc and g++ are added with their headers."""
_LINKS = {"cmake3": "cmake", "vi": "vim.tiny"}
"""Names in the image for Debian's programs."""
_KERAS = '''\
"""Stand-in for Keras in a reference image."""

from . import utils

__version__ = "2.2.4"
'''
_KERAS_UTILS = """\
import numpy


def to_categorical(y, num_classes=None):
    return numpy.eye(num_classes or max(y) + 1)[list(y)]
"""


def add(root: Path, job: Job, real: bool) -> None:
    """Add the system, kernels, tools and packages to the Python packages that all images share.

    Args:
        real: take tools from Debian's packages instead of stand-ins.
    """
    system.lay_out(root, job)
    for name in ("passwd", "group", "hosts", "nsswitch.conf", "resolv.conf"):
        tree.copy(root, f"/etc/{name}", _ROOTFS / "ml-base/etc" / name, 0o644)
    tree.overlay(tree.at(root, "/.singularity.d"), _ROOTFS / "ml-base/.singularity.d", VERSION)
    tree.remove(root, "/.singularity.d/env/99-printme.sh")
    for path in MOUNT_POINTS:
        tree.at(root, path).mkdir()
    if real:
        _add_real_tools(root, job)
    else:
        _add_tools(root, job)
    wheels.install_more(root, job, ["--no-deps", "-r", str(_HERE / "packages-dask.lock")])
    frameworks.add_plain_tensorflow(root, job, "1.13.1")
    tree.write(root, f"{SITE}/keras/__init__.py", _KERAS)
    tree.write(root, f"{SITE}/keras/utils.py", _KERAS_UTILS)
    dist_info.add_distribution(root, "keras", "2.2.4", "keras")
    # The same as in ml-base.
    shutil.rmtree(tree.at(root, f"{PREFIX}/share/jupyter/kernels"))
    tree.overlay(root, _ROOTFS / "atlas-jupyter", VERSION)


def _add_real_tools(root: Path, job: Job) -> None:
    debian.add_gcc(root, job)
    debian.add_programs(root, job, _REAL)
    for name, program in _LINKS.items():
        tree.symlink(root, f"/usr/bin/{name}", program)


def _add_tools(root: Path, job: Job) -> None:
    for name, said in _SAID.items():
        program = shutil.which(name) if name in _COPIED else None
        if program is not None:
            source = Path(program).resolve()
            tree.copy(root, f"/usr/bin/{name}", source, 0o755)
            system.add_libraries(root, job, [source])
        else:
            text = f"#!/bin/sh\n# Stand-in that knows its version.\necho '{said}'\n"
            tree.write(root, f"/usr/bin/{name}", text, 0o755)
