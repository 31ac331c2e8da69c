"""Faults of images that serve: the user, the server, programs, packages and notebooks."""

from __future__ import annotations

from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.condameta import META
from mlcheck.reference.defects.base import Catalogue
from mlcheck.reference.python import SITE

DEFECTS = Catalogue()
_IN = ("jupyterlab-cpu",)
_START = "/usr/local/bin/start-custom.sh"
_MODE = 0o664
"""Mode of files in the prefix."""
_HEALTHCHECK = "/etc/jupyter/docker_healthcheck.py"


@DEFECTS.defect("user-is-root", "jovyan has the number 0, which is root's.", "user", images=_IN)
def _user_is_root(image: Path) -> None:
    tree.replace(image, "/etc/passwd", "jovyan:x:1000:100:", "jovyan:x:0:0:")


@DEFECTS.defect("user-gone", "There is no account jovyan.", "user", images=_IN)
def _user_gone(image: Path) -> None:
    tree.replace(image, "/etc/passwd", "jovyan:x:1000:100::/home/jovyan:/bin/bash\n", "")


@DEFECTS.defect(
    "prefix-closed",
    "A package that root installed last was not given to the group users.",
    "user-writable",
    images=_IN,
)
def _prefix_closed(image: Path) -> None:
    for file in sorted(tree.at(image, f"{SITE}/seaborn").glob("*.py")):
        tree.chmod(image, f"{SITE}/seaborn/{file.name}", 0o644)
    tree.at(image, f"{SITE}/seaborn").chmod(0o755)


@DEFECTS.defect(
    "home-not-setgid",
    "The home is not set-gid: what root puts there belongs to root's group.",
    "user-writable",
    images=_IN,
)
def _home_not_setgid(image: Path) -> None:
    tree.at(image, "/home/jovyan").chmod(0o775)


@DEFECTS.defect(
    "program-not-executable", "mc has no execute bit.", "programs-executable", images=_IN
)
def _program_not_executable(image: Path) -> None:
    tree.chmod(image, "/usr/local/bin/mc", 0o644)


@DEFECTS.defect(
    "wrapper-without-target",
    "trino calls a client that only another image installs.",
    "wrapper-targets",
    images=_IN,
)
def _wrapper_without_target(image: Path) -> None:
    tree.remove(image, "/usr/local/bin/trino-original")


@DEFECTS.defect(
    "start-file-deleted",
    "The start script reads shell_helpers.sh, which a later layer deleted.",
    "start-files",
    images=_IN,
)
def _start_file_deleted(image: Path) -> None:
    tree.remove(image, "/etc/share/aaw/shell_helpers.sh")


@DEFECTS.defect(
    "language-pack-version",
    "languagepacks.json names another version of the French language pack than is installed.",
    "agreements",
    images=_IN,
)
def _language_pack_version(image: Path) -> None:
    path = "/etc/share/code-server/languagepacks.json"
    tree.replace(image, path, '"version": "1.79.0"', '"version": "1.68.3"')


@DEFECTS.defect(
    "server-prefix-ignored",
    "The server takes no notice of NB_PREFIX.",
    "server-starts",
    images=_IN,
)
def _server_prefix_ignored(image: Path) -> None:
    tree.replace(image, _START, '--ServerApp.base_url="$NB_PREFIX"', "--ServerApp.base_url=/")


@DEFECTS.defect(
    "healthcheck-fails",
    "The health check is a script for a Python that is not there.",
    "server-health",
    images=_IN,
)
def _healthcheck_fails(image: Path) -> None:
    tree.replace(image, _HEALTHCHECK, "#!/opt/conda/bin/python3\n", "#!/opt/conda/bin/python2\n")


@DEFECTS.defect(
    "requested-python",
    "seaborn, which was asked for, needs a library that is not there.",
    "requested-packages",
    images=_IN,
)
def _requested_python(image: Path) -> None:
    path = f"{SITE}/seaborn/__init__.py"
    text = 'raise ImportError("libGL.so.1: cannot open shared object file")\n'
    tree.write(image, path, text, _MODE)


@DEFECTS.defect(
    "requested-r",
    "R's package RCurl was asked for and is not there.",
    "requested-packages",
    images=_IN,
)
def _requested_r(image: Path) -> None:
    path = f"{META}/history"
    before = tree.at(image, path).read_text()
    asked = "# update specs: [\"conda-forge::r-rcurl[version='>=1.98']\"]\n"
    tree.write(image, path, before + asked, _MODE)


@DEFECTS.defect("notebook-fails", "nbconvert cannot start a kernel.", "notebooks", images=_IN)
def _notebook_fails(image: Path) -> None:
    path = f"{SITE}/nbclient/client.py"
    before = tree.at(image, path).read_text()
    tree.write(image, path, f"{before}\nNotebookClient.start_new_kernel_client = None\n", _MODE)


@DEFECTS.defect(
    "r-draws-nothing",
    "R's library for drawing PNG files is not there.",
    "tasks",
    "notebooks",
    images=_IN,
)
def _r_draws_nothing(image: Path) -> None:
    tree.remove(image, "/usr/lib/R/library/grDevices/libs/cairo.so")


@DEFECTS.defect(
    "cpu-build-for-gpus",
    "TensorFlow is the build for CPUs, in an image described as one for GPUs.",
    "framework-build",
    images=("jupyterlab-tensorflow",),
)
def _cpu_build_for_gpus(image: Path) -> None:
    path = f"{SITE}/tensorflow/_build.py"
    tree.replace(image, path, "CUDA_VERSION = '12.8'", "CUDA_VERSION = None")
