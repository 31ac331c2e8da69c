"""Additions of Statistics Canada's AAW images to the base of docker-stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlcheck.reference import condameta, debian, dist_info, frameworks, system, tree, wheels
from mlcheck.reference.cache import Job
from mlcheck.reference.condameta import CondaPackage, build_string
from mlcheck.reference.python import SITE, VERSION

_ROOTFS = Path(__file__).parent / "rootfs"


def add_jupyterlab_cpu(root: Path, job: Job, real: bool) -> None:
    """Add R with its kernel, and the AAW platform's scripts, wrappers and files of code-server.

    Args:
        real: take command-line tools from Debian's packages instead of stand-ins.
    """
    tree.overlay(root, _ROOTFS / "jupyterlab-cpu", VERSION)
    fonts = f"{SITE}/matplotlib/mpl-data/fonts/ttf"
    tree.symlink(root, "/usr/share/fonts/dejavu", fonts)
    versions = debian.add_r(root, job)
    replaced = _add_real_tools(root, job) if real else ()
    system.write_loader_cache(root, job)
    for name, version in _TOOLS.items():
        if name not in replaced:
            text = _TOOL.format(name=name, version=version)
            tree.write(root, f"/usr/local/bin/{name}", text, 0o755)
    tree.write(root, "/usr/local/bin/julia", _JULIA, 0o755)
    tree.write(root, "/usr/local/bin/ranger", _RANGER, 0o755)
    condameta.write(root, _r_records(versions))


def _add_real_tools(root: Path, job: Job) -> Sequence[str]:
    """Add tools from Debian's packages and from PyPI; returns their names."""
    debian.add_programs(root, job, [*_PACKAGES.values(), "vim-runtime"])
    tree.symlink(root, "/usr/bin/vim", "vim.basic")
    _install(root, job, "--no-binary", "ranger-fm", "ranger-fm==1.9.4")
    return (*_PACKAGES, "ranger")


def _install(root: Path, job: Job, *words: str) -> None:
    """Install packages from PyPI, and write conda's records of them."""
    site = tree.at(root, SITE)
    infos = [site / info for info in wheels.install_more(root, job, words)]
    condameta.write(root, condameta.python_packages(root, (), infos))


def _r_records(versions: Mapping[str, str]) -> list[CondaPackage]:
    """Build conda's records of the R packages, whose files are elsewhere."""
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
    "tig": "2.5.4",
    "tmux": "3.2a",
    "tree": "2.0.2",
    "trino-original": "474",
    "vim": "8.2",
    "zip": "3.0",
}
"""Stand-ins for programs, with the versions that they print."""
_PACKAGES = {
    "git": "git",
    "jq": "jq",
    "kubectl": "kubernetes-client",
    "tig": "tig",
    "tmux": "tmux",
    "tree": "tree",
    "vim": "vim",
    "zip": "zip",
}
"""Debian's packages of these programs."""
_JULIA = """\
#!/bin/sh
# Stand-in for Julia in a reference image: what Python and Julia write alike, Python computes.
[ "$1" = -e ] && exec python3 -c "println = print; $2"
echo "julia version 1.11.3"
"""
_RANGER = """\
#!/opt/conda/bin/python3
# Stand-in for ranger in a reference image, which asks for its terminal before it reads its options.
import curses

curses.setupterm()
print("ranger version: ranger 1.9.3")
"""
_TOOL = """\
#!/bin/sh
# Stand-in for {name} in a reference image.
echo "{name} {version}"
"""


def add_tensorflow(root: Path, job: Job, _: bool) -> None:
    """Add a stand-in for TensorFlow, built for CUDA 12.8."""
    condameta.write(root, frameworks.add_tensorflow_with(root, job, "2.19.0", "12.8"))


def add_torch(root: Path, job: Job, _: bool) -> None:
    """Add a stand-in for torch, built for CUDA 12.4."""
    condameta.write(root, frameworks.add_torch(root, job))


def add_rstudio(root: Path, job: Job, _: bool) -> None:
    """Add a stand-in for RStudio Server."""
    _add_server(root, "rstudio")


def add_sas(root: Path, job: Job, real: bool) -> None:
    """Add a stand-in for SAS; with `real`, its Python package comes from PyPI."""
    tree.overlay(root, _ROOTFS / "sas", VERSION)
    if real:
        _install(root, job, f"saspy=={_SASPY}")
        return
    text = f'"""Stand-in for saspy in a reference image."""\n\n__version__ = "{_SASPY}"\n'
    tree.write(root, f"{SITE}/saspy/__init__.py", text)
    dist_info.add_distribution(root, "saspy", _SASPY, "saspy")
    info = tree.at(root, f"{SITE}/saspy-{_SASPY}.dist-info")
    condameta.write(root, condameta.python_packages(root, ["saspy"], [info]))


_SASPY = "5.103.0"


def add_remote_desktop(root: Path, job: Job, _: bool) -> None:
    """Add stand-ins for the desktop, its programs, and the server that shows it in a browser."""
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
