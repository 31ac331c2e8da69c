"""Faults of Jupyter: its kernels, and what shows only when JupyterLab and terminals run."""

from __future__ import annotations

import json
from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.defects.base import Catalogue
from mlcheck.reference.python import PREFIX, SITE, VERSION

DEFECTS = Catalogue()
_KERNELS = f"{PREFIX}/share/jupyter/kernels"
_PYTHON3 = f"{_KERNELS}/python3/kernel.json"
_BIN = f"{PREFIX}/bin"
_NOHOME = f"{_BIN}/python3-nohome"
_CONFIG = f"{PREFIX}/etc/jupyter"
_EXEC = 'exec "$(dirname -- "$0")/python3"'


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


def _configure(image: Path, **sections: dict[str, object]) -> None:
    """Configure every server that starts in the image."""
    tree.write(image, f"{_CONFIG}/jupyter_server_config.json", json.dumps(sections))


@DEFECTS.defect(
    "kernel-dies", "The kernels' ipykernel_launcher imports what is not there.", "kernels-start"
)
def _kernel_dies(image: Path) -> None:
    path = f"{SITE}/ipykernel_launcher.py"
    tree.replace(image, path, "import kernelapp as", "import kernel_app as")


@DEFECTS.defect(
    "kernel-python-from-path",
    "python3-nohome starts the first python3 in PATH, not the one beside it.",
    "kernels-own-python",
)
def _kernel_python_from_path(image: Path) -> None:
    tree.replace(image, _NOHOME, _EXEC, "exec python3")


@DEFECTS.defect(
    "kernel-pythonhome-kept", "python3-nohome does not unset PYTHONHOME.", "kernels-own-python"
)
def _kernel_pythonhome_kept(image: Path) -> None:
    tree.replace(image, _NOHOME, "unset PYTHONHOME ", "unset ")


@DEFECTS.defect(
    "kernel-option-lost",
    "python3-nohome loses the option -s, so that the isolated kernel sees ~/.local.",
    "kernels-usersite",
)
def _kernel_option_lost(image: Path) -> None:
    tree.replace(image, _NOHOME, _EXEC, f'[ "$1" != -s ] || shift\n{_EXEC}')


@DEFECTS.defect(
    "kernel-usersite-blind",
    "python3-nohome sets PYTHONNOUSERSITE, so that the usersite kernel does not see ~/.local.",
    "kernels-usersite",
)
def _kernel_usersite_blind(image: Path) -> None:
    tree.replace(image, _NOHOME, _EXEC, f"export PYTHONNOUSERSITE=1\n{_EXEC}")


@DEFECTS.defect(
    "kernel-list-of-users",
    "No configuration names the image's kernels: the user's are in the list as well.",
    "kernels-clean-list",
)
def _kernel_list_of_users(image: Path) -> None:
    tree.remove(image, f"{_CONFIG}/jupyter_config.json")


@DEFECTS.defect(
    "lab-fails",
    "The image's configuration names a certificate that is not there.",
    "jupyterlab-starts",
)
def _lab_fails(image: Path) -> None:
    _configure(image, ServerApp={"certfile": "/etc/pki/tls/certs/lab.pem"})


@DEFECTS.defect(
    "lab-base-url-ignored", "jupyter-lab takes no notice of its base URL.", "jupyterlab-starts"
)
def _lab_base_url_ignored(image: Path) -> None:
    ignore = "import sys\nsys.argv = [word for word in sys.argv if 'base_url' not in word]\n"
    tree.replace(image, f"{_BIN}/jupyter-lab", "import sys\n", ignore)


@DEFECTS.defect(
    "lab-open", "The image's configuration sets an empty token for everybody.", "jupyterlab-token"
)
def _lab_open(image: Path) -> None:
    _configure(image, IdentityProvider={"token": ""}, ServerApp={"token": "", "password": ""})


@DEFECTS.defect(
    "lab-open-to-root",
    "The home of root, who the image runs as, has a configuration with an empty token.",
    "jupyterlab-token",
)
def _lab_open_to_root(image: Path) -> None:
    text = json.dumps({"IdentityProvider": {"token": ""}})
    tree.write(image, "/root/.jupyter/jupyter_server_config.json", text)


@DEFECTS.defect(
    "lab-kernels-elsewhere",
    "The image's configuration lets kernels listen at the address of the machine that built it.",
    "jupyterlab-kernels",
)
def _lab_kernels_elsewhere(image: Path) -> None:
    _configure(image, KernelManager={"ip": "192.0.2.7"})


@DEFECTS.defect(
    "terminal-dies", "tcsh ends at once when it is started in a terminal.", "jupyterlab-terminals"
)
def _terminal_dies(image: Path) -> None:
    path = f"{_BIN}/tcsh"
    tree.replace(image, path, 'while read -r -p "> " line; do eval "$line"; done', "exit 1")


@DEFECTS.defect(
    "wrapper-mute-ipython",
    "The Python part of ipython is gone: it ends with 0 and prints nothing.",
    "jupyter-wrappers",
)
def _wrapper_mute_ipython(image: Path) -> None:
    path = f"{_BIN}/ipython"
    head, _, _ = tree.at(image, path).read_text().rpartition("from IPython")
    tree.write(image, path, head, 0o755)


@DEFECTS.defect("wrapper-fails", "jupyter-trust ends with a traceback.", "jupyter-wrappers")
def _wrapper_fails(image: Path) -> None:
    tree.replace(image, f"{_BIN}/jupyter-trust", "nbformat.sign", "nbformat.signs")
