"""Faults that show when an unpacked image is used on the host, without a container."""

from __future__ import annotations

from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.defects.base import ML_PYROOT, Catalogue
from mlcheck.reference.python import PREFIX, SITE

DEFECTS = Catalogue()
_SCRIPT = "/setupMe-on-host.sh"
_BOTH = ("on-host-bash", "on-host-zsh")


@DEFECTS.defect(
    "host-bash-only",
    "setupMe-on-host.sh asks BASH_SOURCE alone for its place, which zsh does not set.",
    "on-host-zsh",
)
def _host_bash_only(image: Path) -> None:
    text = tree.at(image, _SCRIPT).read_text()
    tree.write(image, _SCRIPT, text.replace("${BASH_SOURCE[0]:-$0}", "${BASH_SOURCE[0]-}"))


@DEFECTS.defect(
    "host-certificates",
    "setupMe-on-host.sh sets SSL_CERT_FILE to a file that is not there.",
    *_BOTH,
)
def _host_certificates(image: Path) -> None:
    tree.replace(image, _SCRIPT, "/ssl/cert.pem", "/ssl/certs/ca-bundle.crt")


@DEFECTS.defect(
    "host-certificates-dangling",
    "The certificates in the prefix are a link to nothing.",
    *_BOTH,
    "conda-files-present",
)
def _host_certificates_dangling(image: Path) -> None:
    tree.symlink(image, f"{PREFIX}/ssl/cert.pem", "no-such-file.pem")


@DEFECTS.defect(
    "host-pythonhome", "setupMe-on-host.sh leaves the host's PYTHONHOME as it is.", *_BOTH
)
def _host_pythonhome(image: Path) -> None:
    tree.replace(image, _SCRIPT, "unset PYTHONHOME _mlenv_top", "unset _mlenv_top")


@DEFECTS.defect(
    "host-jupyter-path", "setupMe-on-host.sh sets JUPYTER_PATH to the path in a container.", *_BOTH
)
def _host_jupyter_path(image: Path) -> None:
    tree.replace(image, _SCRIPT, "JUPYTER_PATH=$CONDA_PREFIX/share", f"JUPYTER_PATH={PREFIX}/share")


@DEFECTS.defect("host-not-exported", "setupMe-on-host.sh does not export EnvTopDir.", *_BOTH)
def _host_not_exported(image: Path) -> None:
    tree.replace(image, _SCRIPT, " SSL_CERT_FILE EnvTopDir\n", " SSL_CERT_FILE\n")


@DEFECTS.defect(
    "host-path-last",
    "_activate_current_env.sh puts the environment behind the host's programs in PATH.",
    *_BOTH,
    "on-host-programs",
    "on-host-libraries",
)
def _host_path_last(image: Path) -> None:
    path = "/usr/local/bin/_activate_current_env.sh"
    tree.replace(image, path, 'PATH="$CONDA_PREFIX/bin:$PATH"', 'PATH="$PATH:$CONDA_PREFIX/bin"')


@DEFECTS.defect(
    "host-function",
    "setupMe-on-host.sh defines micromamba as a function that calls /bin/micromamba, the path in a "
    "container.",
    "on-host-programs",
)
def _host_function(image: Path) -> None:
    tree.replace(image, _SCRIPT, '"$MAMBA_EXE" "$@"', '/bin/micromamba "$@"')


@DEFECTS.defect("host-inside", "setupMe-on-host.sh fails inside a container.", "on-host-inside")
def _host_inside(image: Path) -> None:
    text = tree.at(image, _SCRIPT).read_text()
    inside = "there is nothing to set up."
    head, found, tail = text.partition(inside)
    tree.write(image, _SCRIPT, head + found + tail.replace("return 0", "return 1", 1))


@DEFECTS.defect(
    "host-script-absolute",
    "The script pip starts with #!/opt/conda/bin/python: which a host has not.",
    "script-shebangs",
    "on-host-programs",
)
def _host_script_absolute(image: Path) -> None:
    path = f"{PREFIX}/bin/pip"
    _, _, rest = tree.at(image, path).read_bytes().partition(b"\n")
    tree.write(image, path, f"#!{PREFIX}/bin/python\n".encode() + rest, 0o755)


@DEFECTS.defect(
    "host-absolute-load",
    "import ROOT loads a library by its absolute path in /opt/conda, which the host has too.",
    "on-host-libraries",
    "conda-files-unchanged",
    images=(ML_PYROOT,),
)
def _host_absolute_load(image: Path) -> None:
    path = f"{SITE}/ROOT/__init__.py"
    text = tree.at(image, path).read_text()
    tree.write(image, path, f'{text}\n\nctypes.CDLL("{PREFIX}/lib/libMathCore.so")\n')


@DEFECTS.defect(
    "host-mamba-exe",
    "setupMe-on-host.sh sets MAMBA_EXE to a text of the image.",
    *_BOTH,
    "on-host-programs",
)
def _host_mamba_exe(image: Path) -> None:
    tree.replace(
        image,
        _SCRIPT,
        "MAMBA_EXE=$MAMBA_ROOT_PREFIX/bin/micromamba",
        "MAMBA_EXE=$EnvTopDir/list-of-pkgs-inside.txt",
    )


@DEFECTS.defect(
    "host-pythonpath",
    "setupMe-on-host.sh exports a PYTHONPATH of the image, which the host's Pythons read.",
    *_BOTH,
)
def _host_pythonpath(image: Path) -> None:
    text = tree.at(image, _SCRIPT).read_text()
    site = SITE.removeprefix(PREFIX)
    tree.write(image, _SCRIPT, f"{text}export PYTHONPATH=$CONDA_PREFIX{site}\n")


@DEFECTS.defect(
    "host-library-path",
    "setupMe-on-host.sh adds the image's libraries to a LD_LIBRARY_PATH that the host has set.",
    *_BOTH,
)
def _host_library_path(image: Path) -> None:
    text = tree.at(image, _SCRIPT).read_text()
    add = "export LD_LIBRARY_PATH=$CONDA_PREFIX/lib:$LD_LIBRARY_PATH"
    tree.write(image, _SCRIPT, f'{text}[ -z "${{LD_LIBRARY_PATH:-}}" ] || {add}\n')


@DEFECTS.defect(
    "host-absolute-link",
    "The prefix is an absolute link to /opt/miniforge3, which on a host is not the image's.",
    *_BOTH,
)
def _host_absolute_link(image: Path) -> None:
    tree.at(image, PREFIX).rename(tree.at(image, "/opt/miniforge3"))
    tree.symlink(image, PREFIX, "/opt/miniforge3")
