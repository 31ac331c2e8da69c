"""The prefix /opt/conda: this machine's own Python, moved there, and packages from PyPI."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import platform
import re
import shutil
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlcheck.errors import EngineError
from mlcheck.reference import elf, system, tree
from mlcheck.reference.cache import Job, base_interpreter
from mlcheck.reference.tools import tools

PREFIX = "/opt/conda"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"{PREFIX}/lib/python{VERSION}/site-packages"
_HERE = Path(__file__).parent
LOCKS = {
    False: ("packages.lock", "packages-alone.txt"),
    True: ("packages.lock", "packages-alone.txt", "packages-full.lock"),
}

_LEFT_OUT = re.compile(
    r"test|tests|idlelib|idle_test|tkinter|turtledemo|turtle\.py|ensurepip|__pycache__"
    r"|site-packages|dist-packages|config-.*|sitecustomize\.py|usercustomize\.py"
    r"|EXTERNALLY-MANAGED|_tkinter\..*|_test.*|_ctypes_test.*|_xxtestfuzz.*|.*\.a"
)
# Compiling everything takes twice as long and half as much space again, for modules that an image
# under test never loads.
_NOT_COMPILED = (
    r"/(tests?|testing|third_party|locale-data|datasets|sandbox"
    r"|fontTools/[^/]+|numpy/distutils|numpy/f2py|graph_objs/[^/]+|validators"
    r"|site-packages/(pip|setuptools|_distutils_hack|statsmodels|jedi|virtualenv)"
    r"|lib2to3|distutils)/"
)

_STAND_INS = {"catboost": "1.2.6", "lightgbm": "4.6.0", "xgboost": "2.1.4"}

_JUPYTER = """\
#!/bin/bash
# -*- coding: utf-8 -*-
''':'
# Started by bash: go on as Python from this directory, deaf to PYTHON* and ~/.local.
exec "$(dirname -- "$0")/python3" -I "$0" "$@"
'''
"""
_IPYTHON = """\
#!/bin/bash
# -*- coding: utf-8 -*-
''':'
# Started by bash: go on as Python from this directory; packages of the user may be seen.
PYTHONHOME= exec "$(dirname -- "$0")/python3" "$0" "$@"
'''
"""


_DEBIAN_SITE = '''\
"""This interpreter is Debian's, which by itself looks for packages in dist-packages."""

import site
import sys

for _prefix in site.PREFIXES:
    site.addsitedir(f"{_prefix}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
'''


def lay_out(root: Path, job: Job) -> None:
    """Copy the interpreter, its standard library and the system libraries they need."""
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


def install_packages(root: Path, job: Job, *, full: bool) -> int:
    """Install the pinned packages from PyPI; returns how many there are.

    Raises:
        EngineError: uv could not; its own words say why.
    """
    words: list[str | Path] = ["--no-deps"]
    for lock in LOCKS[full]:
        words += ["-r", _HERE / lock]
    _install(root, job, words)
    if not full:
        for name, version in _STAND_INS.items():
            _add_stand_in(root, name, version)
    site = tree.at(root, SITE)
    system.add_sonames(root, job, _extension_files(site))
    return sum(1 for _ in site.glob("*.dist-info"))


def install_more(root: Path, job: Job, requirements: Iterable[str]) -> set[str]:
    """Install packages with all that they need. What is there stays, where they let it.

    Returns: the names of the dist-info directories that were added.

    Raises:
        EngineError: uv could not; its own words say why.
    """
    site = tree.at(root, SITE)
    before = {info.name for info in site.glob("*.dist-info")}
    _install(root, job, list(requirements))
    arrange(root)
    added = {info.name for info in site.glob("*.dist-info")} - before
    libraries = [file for file in _extension_files(site) if _is_of(file, site, added)]
    system.add_sonames(root, job, libraries)
    return added


def _is_of(file: Path, site: Path, infos: set[str]) -> bool:
    path = str(file.relative_to(site))
    return any(row[0] == path for info in infos for row in record_rows(site / info / "RECORD"))


def _install(root: Path, job: Job, words: list[str | Path]) -> None:
    begin: list[str | Path] = [
        *(tools(job.progress).uv, "pip", "install"),
        *("--python", tree.at(root, f"{PREFIX}/bin/python3")),
        *("--break-system-packages", "--only-binary", ":all:", "--link-mode", "copy"),
        *("--no-progress", "--no-python-downloads"),
    ]
    try:
        # It leaves a lock in the directory for temporary files: that one goes with the build. A
        # virtual environment that is active here does not matter.
        with tempfile.TemporaryDirectory(prefix=".uv-", dir=root.parent) as own:
            environment = {"VIRTUAL_ENV": "", "CONDA_PREFIX": "", "TMPDIR": own}
            job.run([*begin, *words], cwd=root, env=environment)
    except EngineError as error:
        raise EngineError(
            f"The Python packages of the reference image could not be installed.\n{error.what}",
            "It takes them from PyPI, or where UV_DEFAULT_INDEX points to, and keeps them in "
            "uv's cache: see that it is reachable and that there is space.",
        ) from error


def arrange(root: Path) -> None:
    """Wrappers, shebangs and kernels as the contract has them, and RECORD files that say so."""
    directory = tree.at(root, f"{PREFIX}/bin")
    changed = set()
    for script in sorted(directory.iterdir()):
        path = f"{PREFIX}/bin/{script.name}"
        body = None if script.is_symlink() else _script_body(script)
        if body is not None:
            tree.write(root, path, _start_of(script.name) + body, 0o755)
            changed.add(path)
    for source in (_HERE / "rootfs" / "kernels").rglob("*.json"):
        path = f"{PREFIX}/share/jupyter/kernels/{source.parent.name}/{source.name}"
        tree.write(root, path, source.read_text())
        changed.add(path)
    for record in sorted(tree.at(root, SITE).glob("*.dist-info/RECORD")):
        _mend_record(root, record, changed)


def compile_bytecode(root: Path, job: Job) -> None:
    """Byte code for the modules that are likely to be imported, checked by content: times of
    files do not survive an export."""
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


def record_rows(record: Path) -> Iterator[list[str]]:
    """Rows of a RECORD file: path from site-packages, "sha256=...", size in bytes."""
    with record.open(newline="") as file:
        yield from csv.reader(file)


def record_hash(content: bytes) -> str:
    """A hash as RECORD files have it."""
    digest = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


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
    """Debian's Python looks for packages in dist-packages; conda's in site-packages."""
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
            # RUNPATH: an RPATH would be inherited by every extension module, and lead their
            # libz.so.1 to ROOT's.
            elf.set_rpath(job, program, "$ORIGIN/../lib", runpath=True)
            return
    if elf.patchelf(job, "--print-rpath", program).strip():
        elf.patchelf(job, "--remove-rpath", program)


def _extension_files(site: Path) -> list[Path]:
    """The shared libraries of installed packages that are for this machine's processor."""
    found = []
    for file in sorted(site.rglob("*.so*")):
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as opened:
                head = opened.read(20)
            if head[:5] == b"\x7fELF\x02" and head[18:20] == b"\x3e\x00":  # 64 bits, x86-64
                found.append(file)
    return found


def _script_body(script: Path) -> str | None:
    """What a console script does after its shebang; None when it is no script of Python's."""
    content = script.read_bytes()
    if not content.startswith(b"#!"):
        return None
    first, _, rest = content.decode().partition("\n")
    if first == "#!/bin/sh" and rest.startswith("'''exec' "):
        # A shebang may be 127 bytes long; for a longer path uv lets sh start Python.
        return rest.split("\n", 2)[2]
    if "python" in first:
        return rest
    return None


def _start_of(name: str) -> str:
    if name == "jupyter" or name.startswith("jupyter-"):
        return _JUPYTER
    if name.startswith("ipython"):
        return _IPYTHON
    return "#!/usr/bin/env python3\n"


def _mend_record(root: Path, record: Path, changed: set[str]) -> None:
    site = tree.at(root, SITE)
    rows = list(record_rows(record))
    touched = False
    for row in rows:
        path = os.path.normpath(f"{SITE}/{row[0]}")
        if path in changed:
            content = tree.at(root, path).read_bytes()
            row[1:] = [record_hash(content), str(len(content))]
            touched = True
    if touched:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        tree.write(root, f"{SITE}/{record.relative_to(site)}", text.getvalue())


def _add_stand_in(root: Path, name: str, version: str) -> None:
    """A package that imports and knows its version, in place of one of hundreds of megabytes."""
    text = f'"""Stand-in for {name} in a reference image."""\n\n__version__ = "{version}"\n'
    tree.write(root, f"{SITE}/{name}/__init__.py", text)
    add_distribution(root, name, version, name)


def add_distribution(root: Path, name: str, version: str, package: str) -> None:
    """Write what an installer would of a distribution: a stand-in, whose one package is there.

    Args:
        package: its directory in site-packages.
    """
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    for file, content in (
        (
            "METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            f"Summary: stand-in for {name} in a reference image\nLicense: BSD-3-Clause\n",
        ),
        (
            "WHEEL",
            "Wheel-Version: 1.0\nGenerator: mlcheck\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        ("INSTALLER", "mlcheck\n"),
        ("top_level.txt", f"{package}\n"),
    ):
        tree.write(root, f"{SITE}/{info}/{file}", content)
    site = tree.at(root, SITE)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for directory in (package, info):
        for path in sorted((site / directory).rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                writer.writerow([path.relative_to(site), record_hash(data), len(data)])
    writer.writerow([f"{info}/RECORD", "", ""])
    tree.write(root, f"{SITE}/{info}/RECORD", text.getvalue())


def full_version() -> str:
    """Version of the interpreter: "3.11.9"."""
    return platform.python_version()


def is_program(file: Path) -> bool:
    """Whether it is a regular file with an execute bit."""
    mode = file.lstat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)
