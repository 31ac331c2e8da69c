"""Faults of programs and scripts: Python, micromamba, pipenv, shells, root-config, shebangs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mlcheck.reference import elf, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.defects.base import ML_PYROOT, Catalogue
from mlcheck.reference.python import PREFIX, VERSION
from mlcheck.reference.system import LIB, LOADER

DEFECTS = Catalogue()
_BIN = f"{PREFIX}/bin"
_MICROMAMBA = "/usr/bin/micromamba"
_PYROOT = (ML_PYROOT,)

_OTHER_VERSION = """
# Makes this interpreter say that it is {version}. Comparisons still see the real version, so that
# nothing else goes wrong.

import sys


class _VersionInfo(tuple):
    major, minor, micro, releaselevel, serial = {parts}
    _real = sys.version_info

    def __lt__(self, other): return self._real < other
    def __le__(self, other): return self._real <= other
    def __gt__(self, other): return self._real > other
    def __ge__(self, other): return self._real >= other


sys.version_info = _VersionInfo({parts})
sys.version = "{version} (main, Apr  1 2024, 12:00:00) [GCC 12.3.0]"
"""


@DEFECTS.defect(
    "python-wrong-version",
    "The Python says that it is the release before the one that the tag promises.",
    "python-version",
)
def _python_wrong_version(image: Path) -> None:
    parts = (3, sys.version_info.minor - 1, 14, "final", 0)
    version = ".".join(str(part) for part in parts[:3])
    path = f"{PREFIX}/lib/python{VERSION}/sitecustomize.py"
    existing = tree.at(image, path).read_text() if tree.at(image, path).exists() else ""
    tree.write(image, path, existing + _OTHER_VERSION.format(version=version, parts=parts))


@DEFECTS.defect(
    "micromamba-dynamic", "micromamba needs a shared library of the system.", "micromamba"
)
def _micromamba_dynamic(image: Path) -> None:
    tree.remove(image, _MICROMAMBA)
    elf.compile_c(
        Job(),
        "micromamba.c",
        tree.at(image, _MICROMAMBA),
        {"VERSION": '"2.1.0"'},
        [
            "-Wl,--no-as-needed",
            f"-Wl,--dynamic-linker={LOADER}",
            tree.at(image, f"{LIB}/libz.so.1"),
        ],
    )
    _link_micromamba(image)


@DEFECTS.defect("micromamba-script", "micromamba is a shell script.", "micromamba")
def _micromamba_script(image: Path) -> None:
    tree.write(image, _MICROMAMBA, "#!/bin/sh\necho 2.1.0\n", 0o755)
    _link_micromamba(image)


@DEFECTS.defect(
    "micromamba-missing",
    "There is no micromamba, neither in /bin nor in the prefix.",
    "micromamba",
    "commands",
    "newenv-archive",
    "on-host-bash",
    "on-host-zsh",
    "on-host-programs",
    "package-list-installed",
    "packages-promised",
    "files",
)
def _micromamba_missing(image: Path) -> None:
    tree.remove(image, _MICROMAMBA)
    tree.remove(image, f"{_BIN}/micromamba")


@DEFECTS.defect(
    "pipenv-missing",
    "There is no pipenv in /opt/conda/bin.",
    "commands",
    "conda-files-present",
    "newenv-archive",
)
def _pipenv_missing(image: Path) -> None:
    tree.remove(image, f"{_BIN}/pipenv")


@DEFECTS.defect("pipenv-fails", "pipenv ends with a traceback.", "commands")
def _pipenv_fails(image: Path) -> None:
    tree.replace(image, f"{_BIN}/pipenv", "from pipenv import cli", "from pipenv import nothing")


@DEFECTS.defect(
    "zsh-missing",
    "/bin/zsh leads to a file that does not exist.",
    "shells",
    "files",
    "newenv-archive",
    "conda-files-present",
)
def _zsh_missing(image: Path) -> None:
    tree.remove(image, f"{_BIN}/zsh")


@DEFECTS.defect(
    "tcsh-fails", "tcsh starts and does nothing but fail.", "shells", "conda-files-unchanged"
)
def _tcsh_fails(image: Path) -> None:
    tree.write(image, f"{_BIN}/tcsh", "#!/bin/sh\necho 'tcsh: no terminal' >&2\nexit 1\n", 0o755)


@DEFECTS.defect(
    "tcsh-mute", "tcsh ends with 0 and has done nothing.", "shells", "conda-files-unchanged"
)
def _tcsh_mute(image: Path) -> None:
    tree.write(image, f"{_BIN}/tcsh", "#!/bin/sh\nexit 0\n", 0o755)


@DEFECTS.defect("zsh-no-link", "/bin/zsh is a file instead of a link into /opt/conda/bin.", "files")
def _zsh_no_link(image: Path) -> None:
    tree.write(image, "/usr/bin/zsh", tree.at(image, f"{_BIN}/zsh").read_bytes(), 0o755)


@DEFECTS.defect(
    "root-config-lzstd-only",
    "root-config --libs names -lzstd, and not -lz.",
    "root-config",
    "root-program",
    images=_PYROOT,
)
def _root_config_lzstd_only(image: Path) -> None:
    tree.replace(image, f"{_BIN}/root-config", " -lz ", " -lzstd ")


@DEFECTS.defect(
    "root-config-missing",
    "There is no root-config.",
    "root-config",
    "newenv-archive",
    "conda-files-present",
    images=_PYROOT,
)
def _root_config_missing(image: Path) -> None:
    tree.remove(image, f"{_BIN}/root-config")


@DEFECTS.defect(
    "root-config-not-executable",
    "root-config has the mode 0644.",
    "root-config",
    "script-shebangs",
    images=_PYROOT,
)
def _root_config_not_executable(image: Path) -> None:
    tree.chmod(image, f"{_BIN}/root-config", 0o644)


@DEFECTS.defect(
    "root-config-fails",
    "root-config --libs prints what it should, and ends with 1.",
    "root-config",
    images=_PYROOT,
)
def _root_config_fails(image: Path) -> None:
    tree.replace(image, f"{_BIN}/root-config", 'echo "${out# }"\n', 'echo "${out# }"\nexit 1\n')


@DEFECTS.defect(
    "shebang-absolute", "The script pip3 starts with #!/opt/conda/bin/python.", "script-shebangs"
)
def _shebang_absolute(image: Path) -> None:
    _set_shebang(image, "pip3", f"{_BIN}/python")


@DEFECTS.defect(
    "shebang-missing-interpreter",
    "The script pip3 asks for python3.6, which is not there.",
    "script-shebangs",
)
def _shebang_missing_interpreter(image: Path) -> None:
    _set_shebang(image, "pip3", "/usr/bin/env python3.6")


@DEFECTS.defect(
    "shebang-carriage-return",
    "The first line of the script pip3 ends with a carriage return, as Windows writes it.",
    "script-shebangs",
)
def _shebang_carriage_return(image: Path) -> None:
    _set_shebang(image, "pip3", "/usr/bin/env python3\r")


@DEFECTS.defect(
    "wrapper-mute",
    "The Python part of jupyter-lab is gone: it ends with 0 and prints nothing.",
    "commands",
    "jupyter-wrappers",
    "jupyterlab-starts",
)
def _wrapper_mute(image: Path) -> None:
    path = f"{_BIN}/jupyter-lab"
    head, _, _ = tree.at(image, path).read_text().rpartition("from jupyterlab")
    tree.write(image, path, head, 0o755)


@DEFECTS.defect(
    "shebang-elsewhere",
    "A script in libexec/ asks for a Python of the machine that built its package.",
    "script-shebangs",
)
def _shebang_elsewhere(image: Path) -> None:
    place = "/home/conda/feedstock_root/build_artifacts/tool/_build_env/bin/python"
    tree.write(image, f"{PREFIX}/libexec/tool", f"#!{place}\nprint()\n", 0o755)


@DEFECTS.defect(
    "shebang-second-line",
    "The script pip3 starts with #!/bin/sh, and hands itself on to a Python that is not there.",
    "script-shebangs",
)
def _shebang_second_line(image: Path) -> None:
    path = f"{_BIN}/pip3"
    _, _, rest = tree.at(image, path).read_bytes().partition(b"\n")
    head = b"#!/bin/sh\n'''exec' /build/venv/bin/python \"$0\" \"$@\"\n' '''\n"
    tree.write(image, path, head + rest, 0o755)


def _set_shebang(image: Path, script: str, interpreter: str) -> None:
    path = f"{_BIN}/{script}"
    _, _, rest = tree.at(image, path).read_bytes().partition(b"\n")
    tree.write(image, path, f"#!{interpreter}\n".encode() + rest, 0o755)


def _link_micromamba(image: Path) -> None:
    tree.remove(image, f"{_BIN}/micromamba")
    os.link(tree.at(image, _MICROMAMBA), tree.at(image, f"{_BIN}/micromamba"))
