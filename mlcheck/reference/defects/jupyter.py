"""Defects of the Jupyter kernels."""

from __future__ import annotations

import json
from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.defects.base import Catalogue
from mlcheck.reference.python import PREFIX, VERSION

DEFECTS = Catalogue()
_KERNELS = f"{PREFIX}/share/jupyter/kernels"
_PYTHON3 = f"{_KERNELS}/python3/kernel.json"


def _rewrite(image: Path, **changed: object) -> None:
    """Change some keys of python3's kernel.json."""
    spec = json.loads(tree.at(image, _PYTHON3).read_text())
    tree.write(image, _PYTHON3, json.dumps(spec | changed, indent=1) + "\n")


def _argv(*start: str) -> list[str]:
    return [*start, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


@DEFECTS.defect("kernel-extra", "There is a third kernel, python2.", "kernelspecs-promised")
def _kernel_extra(image: Path) -> None:
    spec = {
        "argv": _argv("python3-nohome"),
        "display_name": "Python 2",
        "language": "python",
        "metadata": {"debugger": True},
    }
    tree.write(image, f"{_KERNELS}/python2/kernel.json", json.dumps(spec))


@DEFECTS.defect(
    "kernel-system",
    "A kernel of the host's lies in /usr/local/share/jupyter, which Jupyter searches too.",
    "kernelspecs-promised",
)
def _kernel_system(image: Path) -> None:
    content = tree.at(image, _PYTHON3).read_text()
    tree.write(image, "/usr/local/share/jupyter/kernels/host/kernel.json", content)


@DEFECTS.defect(
    "kernel-missing", "The kernel python3-usersite is not there.", "kernelspecs-promised"
)
def _kernel_missing(image: Path) -> None:
    tree.remove(image, f"{_KERNELS}/python3-usersite")


@DEFECTS.defect(
    "kernel-invalid-json", "python3/kernel.json ends in the middle.", "kernelspecs-valid"
)
def _kernel_invalid_json(image: Path) -> None:
    content = tree.at(image, _PYTHON3).read_text()
    tree.write(image, _PYTHON3, content[: len(content) // 2])


@DEFECTS.defect(
    "kernel-wrong-type", "argv in python3/kernel.json is a text, not a list.", "kernelspecs-valid"
)
def _kernel_wrong_type(image: Path) -> None:
    _rewrite(image, argv=" ".join(_argv("python3-nohome", "-s")))


@DEFECTS.defect(
    "kernel-argv-absolute",
    "The kernel python3 starts /opt/conda/bin/python3, which breaks its use on a host.",
    "kernelspecs-argv",
    "kernels-own-python",
)
def _kernel_argv_absolute(image: Path) -> None:
    _rewrite(image, argv=_argv(f"{PREFIX}/bin/python3", "-s"))


@DEFECTS.defect(
    "kernel-old-generation",
    "The kernel python3 is of the generation before: /usr/bin/env python3.X.",
    "kernelspecs-argv",
    "kernels-own-python",
)
def _kernel_old_generation(image: Path) -> None:
    _rewrite(image, argv=_argv("/usr/bin/env", f"python{VERSION}", "-s"))


@DEFECTS.defect(
    "kernel-usersite-seen",
    "The kernel python3 lacks -s, so that it sees the user's ~/.local.",
    "kernelspecs-argv",
    "kernels-usersite",
)
def _kernel_usersite_seen(image: Path) -> None:
    _rewrite(image, argv=_argv("python3-nohome"))


@DEFECTS.defect(
    "kernel-argv0-missing",
    "python3-nohome, which both kernels start, is not there.",
    "kernelspecs-argv",
    "newenv-archive",
    "kernels-start",
)
def _kernel_argv0_missing(image: Path) -> None:
    tree.remove(image, f"{PREFIX}/bin/python3-nohome")
