"""Images of docker-stacks' kind: a user jovyan, who may write the prefix, and a server that starts.

They lie over the same packages as ml-base, and share their files by hard links.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcheck.reference import (
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
from mlcheck.reference.python import PREFIX, SITE, VERSION

HOME = "/home/jovyan"
TAG = "v1"
"""The tag of these reference images."""

WRITABLE = (PREFIX, HOME)
"""Where jovyan may write, and the group `users`."""

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
    """What an image has over the one below it.

    Args:
        title: in a word, what is added.
        below: name of the image below; None: the packages.
        add: adds it to a copy of the image below.
    """

    title: str
    below: str | None
    add: Callable[[Path, Job], None]


def add_jovyan(root: Path, job: Job) -> None:
    """The system, the user, the scripts that start the server, and conda's records."""
    system.lay_out(root, job)
    for path in _OF_APPTAINER:
        content = (_ROOTFS / "ml-base/.singularity.d" / path).read_bytes()
        mode = 0o755 if content.startswith(b"#!") else 0o644
        tree.write(root, f"/.singularity.d/{path}", content, mode)
    tree.remove(root, f"{PREFIX}/share/jupyter/kernels/python3-usersite")
    tree.overlay(root, _ROOTFS / "jovyan", VERSION)
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


def add_jupyterlab_cpu(root: Path, job: Job) -> None:
    """R with its kernel, and what the AAW platform adds: scripts, wrappers, code-server's files."""
    tree.overlay(root, _ROOTFS / "jupyterlab-cpu", VERSION)
    fonts = f"{SITE}/matplotlib/mpl-data/fonts/ttf"
    tree.symlink(root, "/usr/share/fonts/dejavu", fonts)
    versions = debian.add_r(root, job)
    system.write_loader_cache(root, job)
    for name, version in _TOOLS.items():
        tree.write(root, f"/usr/local/bin/{name}", _TOOL.format(name=name, version=version), 0o755)
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
    "julia": "1.11.3",
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
_TOOL = """\
#!/bin/sh
# Stand-in for {name} in a reference image.
echo "{name} {version}"
"""

IMAGES: dict[str, Stack] = {
    "jupyterlab-cpu": Stack("R and tools", "jovyan", add_jupyterlab_cpu),
    "machine-learning-notebook-cpu": Stack("for CPUs", "jovyan", notebooks.add_cpu),
    "machine-learning-notebook-gpu": Stack("for GPUs", "jovyan", notebooks.add_gpu),
}
"""Those that can be asked for."""

ALL: Mapping[str, Stack] = {"jovyan": Stack("jovyan", None, add_jovyan), **IMAGES}
"""With what several of them have in common."""


def lineage(name: str) -> list[str]:
    """The image, the one below it, and so on."""
    below = ALL[name].below
    return [name, *(lineage(below) if below else ())]


def finish(root: Path, name: str, below: Path) -> None:
    """The configuration, and who may write what.

    Args:
        below: the finished tree that this one shares files with.
    """
    config.write_singularity(root, TAG, name)
    config.write_runscript(root, name)
    tree.tidy_modes(root, below, WRITABLE)
