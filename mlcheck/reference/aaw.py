"""What the images of Statistics Canada's AAW platform have over docker-stacks' base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlcheck.reference import condameta, debian, dist_info, frameworks, system, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.condameta import CondaPackage, build_string
from mlcheck.reference.python import SITE, VERSION

_ROOTFS = Path(__file__).parent / "rootfs"


def add_jupyterlab_cpu(root: Path, job: Job) -> None:
    """R with its kernel, and what the AAW platform adds: scripts, wrappers, code-server's files."""
    tree.overlay(root, _ROOTFS / "jupyterlab-cpu", VERSION)
    fonts = f"{SITE}/matplotlib/mpl-data/fonts/ttf"
    tree.symlink(root, "/usr/share/fonts/dejavu", fonts)
    versions = debian.add_r(root, job)
    system.write_loader_cache(root, job)
    for name, version in _TOOLS.items():
        tree.write(root, f"/usr/local/bin/{name}", _TOOL.format(name=name, version=version), 0o755)
    tree.write(root, "/usr/local/bin/julia", _JULIA, 0o755)
    condameta.write(root, _r_records(versions))


def _r_records(versions: Mapping[str, str]) -> list[CondaPackage]:
    """conda's records of R's packages, whose files lie elsewhere."""
    records = []
    for debian_name, version in versions.items():
        if debian_name.startswith(("r-cran-", "r-base-core")):
            name = debian_name.replace("r-cran-", "r-").replace("-core", "")
            built = build_string(name, python=False)
            asked = name if name in _R_REQUESTED else ""
            records.append(CondaPackage(name, version, built, requested=asked))
    return records


_R_REQUESTED = ("r-base", "r-crayon", "r-irkernel", "r-jsonlite", "r-htmltools")
_TOOLS = {
    "argo": "v3.6.5",
    "az": "2.71.0",
    "code-server": "4.100.2",
    "git": "2.43.0",
    "jq": "1.6",
    "kubectl": "v1.33.0",
    "mc-original": "RELEASE.2025-04-16",
    "quarto": "1.7.29",
    "ranger": "1.9.3",
    "tig": "2.5.4",
    "tmux": "3.2a",
    "tree": "2.0.2",
    "trino-original": "474",
    "vim": "8.2",
    "zip": "3.0",
}
"""Stand-ins, which know their version."""
_JULIA = """\
#!/bin/sh
# Stand-in for Julia in a reference image: what Python and Julia write alike, Python computes.
[ "$1" = -e ] && exec python3 -c "println = print; $2"
echo "julia version 1.11.3"
"""
_TOOL = """\
#!/bin/sh
# Stand-in for {name} in a reference image.
echo "{name} {version}"
"""


def add_tensorflow(root: Path, job: Job) -> None:
    """A stand-in for TensorFlow, built for CUDA 12.8."""
    condameta.write(root, frameworks.add_tensorflow_with(root, job, "2.19.0", "12.8"))


def add_torch(root: Path, job: Job) -> None:
    """A stand-in for torch, built for CUDA 12.4."""
    condameta.write(root, frameworks.add_torch(root, job))


def add_rstudio(root: Path, job: Job) -> None:
    """A stand-in for RStudio Server."""
    _add_server(root, "rstudio")


def add_sas(root: Path, job: Job) -> None:
    """Stand-ins for SAS and for its Python package."""
    tree.overlay(root, _ROOTFS / "sas", VERSION)
    text = '"""Stand-in for saspy in a reference image."""\n\n__version__ = "5.103.0"\n'
    tree.write(root, f"{SITE}/saspy/__init__.py", text)
    dist_info.add_distribution(root, "saspy", "5.103.0", "saspy")
    info = tree.at(root, f"{SITE}/saspy-5.103.0.dist-info")
    condameta.write(root, condameta.python_packages(root, ["saspy"], [info]))


def add_remote_desktop(root: Path, job: Job) -> None:
    """Stand-ins for the desktop, its programs and what shows it in a browser."""
    _add_server(root, "remote-desktop")
    for name, version in _DESKTOP.items():
        tree.write(root, f"/usr/local/bin/{name}", _TOOL.format(name=name, version=version), 0o755)


def _add_server(root: Path, name: str) -> None:
    tree.overlay(root, _ROOTFS / "aaw-server", VERSION)
    tree.overlay(root, _ROOTFS / name, VERSION)


_DESKTOP = {
    "code": "1.100.2",
    "firefox": "139.0",
    "libreoffice": "7.3.7",
    "openmpp": "1.17.9",
    "qgis": "3.22.4",
    "rstudio": "2024.04.2",
    "vncserver": "1.12.0",
}
