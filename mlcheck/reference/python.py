"""The interpreter at /opt/conda: this machine's own Python, moved there."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import sys
import sysconfig
from pathlib import Path

from mlcheck.model.errors import EngineError
from mlcheck.reference import elf, system, tree
from mlcheck.reference.cache import Job, base_interpreter

PREFIX = "/opt/conda"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"{PREFIX}/lib/python{VERSION}/site-packages"
_LEFT_OUT = re.compile(
    r"test|tests|idlelib|idle_test|tkinter|turtledemo|turtle\.py|ensurepip|__pycache__"
    r"|site-packages|dist-packages|config-.*|sitecustomize\.py|usercustomize\.py"
    r"|EXTERNALLY-MANAGED|_tkinter\..*|_test.*|_ctypes_test.*|_xxtestfuzz.*|.*\.a"
)
# Compiling everything takes twice as long and half as much space again, for modules that no image
# under test loads.
_NOT_COMPILED = (
    r"/(tests?|testing|third_party|locale-data|datasets|sandbox"
    r"|fontTools/[^/]+|numpy/distutils|numpy/f2py|graph_objs/[^/]+|validators"
    r"|site-packages/(pip|setuptools|_distutils_hack|statsmodels|jedi|virtualenv)"
    r"|lib2to3|distutils)/"
)

_DEBIAN_SITE = '''\
"""This interpreter is Debian's, which by itself looks for packages in dist-packages."""

import site
import sys

for _prefix in site.PREFIXES:
    site.addsitedir(f"{_prefix}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
'''


def lay_out(root: Path, job: Job) -> None:
    """Copy the interpreter, its standard library and the system libraries that they need."""
    executable = base_interpreter()
    program = f"{PREFIX}/bin/python{VERSION}"
    tree.copy(root, program, executable, 0o755)
    tree.symlink(root, f"{PREFIX}/bin/python3", f"python{VERSION}")
    tree.symlink(root, f"{PREFIX}/bin/python", "python3")
    stdlib = Path(sysconfig.get_path("stdlib"))
    library = tree.at(root, f"{PREFIX}/lib/python{VERSION}")
    _copy_stdlib(stdlib, library)
    platstdlib = Path(sysconfig.get_path("platstdlib", vars=_base_vars()))
    if not (library / "lib-dynload").is_dir() and platstdlib != stdlib:
        _copy_stdlib(platstdlib, library)
    tree.at(root, SITE).mkdir(parents=True, exist_ok=True)
    _undo_debian(root)
    _bring_libpython(root, job, executable)
    modules = sorted((library / "lib-dynload").glob("*.so"))
    for module in modules:
        if elf.patchelf(job, "--print-rpath", module).strip():
            elf.patchelf(job, "--remove-rpath", module)
    sources = [stdlib / "lib-dynload" / module.name for module in modules]
    system.add_libraries(root, job, [executable, *(file for file in sources if file.is_file())])


def compile_bytecode(root: Path, job: Job) -> None:
    """Compile the modules that are likely to be imported. Byte code is validated by content,
    because file times do not survive an export."""
    job.run(
        [
            tree.at(root, f"{PREFIX}/bin/python3"),
            "-I",
            "-m",
            "compileall",
            "-q",
            "-j",
            "0",
            "--invalidation-mode",
            "checked-hash",
            "-s",
            root,
            "-p",
            "/",
            "-x",
            _NOT_COMPILED,
            tree.at(root, f"{PREFIX}/lib/python{VERSION}"),
        ],
        cwd=root,
    )


def _base_vars() -> dict[str, str]:
    return {"platbase": sys.base_exec_prefix, "base": sys.base_prefix}


def _copy_stdlib(source: Path, destination: Path) -> None:
    def left_out(directory: str, names: list[str]) -> list[str]:
        return [
            name
            for name in names
            if _LEFT_OUT.fullmatch(name) or not os.path.exists(f"{directory}/{name}")  # noqa: PTH110
        ]

    shutil.copytree(source, destination, ignore=left_out, dirs_exist_ok=True)


def _undo_debian(root: Path) -> None:
    """Make Debian's Python look for packages in site-packages, as conda's does, not
    dist-packages."""
    library = f"{PREFIX}/lib/python{VERSION}"
    if '"dist-packages"' not in tree.at(root, f"{library}/site.py").read_text():
        return
    # site.py itself is frozen into the interpreter.
    tree.write(root, f"{library}/sitecustomize.py", _DEBIAN_SITE)
    for name in ("sysconfig.py", "sysconfig/__init__.py"):
        file = tree.at(root, f"{library}/{name}")
        if file.is_file():
            text = file.read_text().replace("= 'posix_local'", "= 'posix_prefix'")
            tree.write(root, f"{library}/{name}", text)


def _bring_libpython(root: Path, job: Job, executable: Path) -> None:
    program = tree.at(root, f"{PREFIX}/bin/python{VERSION}")
    for name in elf.patchelf(job, "--print-needed", program).split():
        if name.startswith("libpython"):
            for directory in (sysconfig.get_config_var("LIBDIR"), executable.parent.parent / "lib"):
                source = Path(directory or "/", name)
                if source.is_file():
                    tree.copy(root, f"{PREFIX}/lib/{name}", source, 0o755)
                    break
            else:
                raise EngineError(f"{executable} needs {name}, which was not found beside it.")
            # Use RUNPATH: every extension module would inherit an RPATH, which would lead its
            # libz.so.1 to ROOT's.
            elf.set_rpath(job, program, "$ORIGIN/../lib", runpath=True)
            return
    if elf.patchelf(job, "--print-rpath", program).strip():
        elf.patchelf(job, "--remove-rpath", program)


def full_version() -> str:
    """Return the version of the interpreter: "3.11.9"."""
    return platform.python_version()


def is_program(file: Path) -> bool:
    """Return whether it is a regular file with an execute bit."""
    mode = file.lstat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)
