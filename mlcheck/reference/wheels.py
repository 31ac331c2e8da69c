"""The Python packages: from PyPI in pinned versions, with stand-ins for the large ones."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

from mlcheck.model.errors import EngineError
from mlcheck.reference import system, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.dist_info import add_distribution, mend_record, record_rows, write_record
from mlcheck.reference.python import PREFIX, SITE
from mlcheck.reference.tools import tools

_SMALL = ("packages.lock", "packages-alone.txt")
LOCKS = (*_SMALL, "packages-full.lock")
_HERE = Path(__file__).parent

_STAND_INS = {
    "alembic": "alembic",
    "awkward": "awkward",
    "awkward-cpp": "awkward_cpp",
    "catboost": "catboost",
    "certipy": "certipy",
    "cryptography": "cryptography",
    "distlib": "distlib",
    "fonttools": "fontTools",
    "formulaic": "formulaic",
    "joblib": "joblib",
    "jupyterhub": "jupyterhub",
    "lightgbm": "lightgbm",
    "mako": "mako",
    "narwhals": "narwhals",
    "oauthlib": "oauthlib",
    "pamela": "pamela",
    "pandas": "pandas",
    "patsy": "patsy",
    "pipenv": "pipenv",
    "plotly": "plotly",
    "plotly-express": "plotly_express",
    "pytz": "pytz",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "seaborn": "seaborn",
    "sqlalchemy": "sqlalchemy",
    "statsmodels": "statsmodels",
    "uproot": "uproot",
    "virtualenv": "virtualenv",
    "xgboost": "xgboost",
}
"""Large distributions, and those that require them, with the package of each."""
_ABLE = {
    "jupyterhub": "def cli():\n    print(__version__)\n",
    "pandas": "from numpy import array as Series\n",
    "pipenv": 'def cli():\n    print("pipenv, version", __version__)\n',
}
"""Code in stand-ins that promised packages need."""
_PROGRAMS = {"jupyterhub": ["jupyterhub", "jupyterhub-singleuser"], "pipenv": ["pipenv"]}
"""Programs of stand-ins, which call `cli`."""
_PROGRAM = """\
#!/usr/bin/env python3
import sys
from {name} import cli
if __name__ == "__main__":
    sys.exit(cli())
"""
_PRUNED = re.compile(
    r"babel/locale-data/(?!en|root).*|jedi/third_party/.*|(numpy|matplotlib)/(.*/)?tests/.*"
    r"|tzdata/zoneinfo/(?!Etc|Europe|UTC).*/.*|jupyterlab/tests/.*"
    r"|(\.\./)*bin/jupyter-(?!kernelspec|lab$|nbconvert|server|trust).*"
)
"""Numerous files of other packages that nothing needs, by their names in RECORD."""

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


def install(root: Path, job: Job, *, real: bool) -> tuple[int, int]:
    """Install the pinned packages from PyPI.

    Args:
        real: install complete packages; otherwise stand-ins for the large ones, and others pruned.

    Returns: the number of packages, and the number of stand-ins among them.

    Raises:
        EngineError: uv failed; the message has its output.
    """
    versions = _locked(*LOCKS)
    stand_ins = {} if real else {name: versions[name] for name in _STAND_INS}
    wanted = versions if real else _locked(*_SMALL).keys() - stand_ins
    _install(root, job, ["--no-deps", *(f"{name}=={versions[name]}" for name in sorted(wanted))])
    for name, version in stand_ins.items():
        _add_stand_in(root, name, version, _STAND_INS[name])
    site = tree.at(root, SITE)
    if not real:
        for record in site.glob("*.dist-info/RECORD"):
            _prune(root, record)
    system.add_sonames(root, job, _extension_files(site))
    return sum(1 for _ in site.glob("*.dist-info")), len(stand_ins)


def install_more(root: Path, job: Job, requirements: Iterable[str]) -> set[str]:
    """Install packages with their dependencies. Installed packages are kept if the versions fit.

    Returns: the names of the dist-info directories that were added.

    Raises:
        EngineError: uv failed; the message has its output.
    """
    site = tree.at(root, SITE)
    before = {info.name for info in site.glob("*.dist-info")}
    _install(root, job, list(requirements))
    _mend_records(root, _arrange_scripts(root))
    added = {info.name for info in site.glob("*.dist-info")} - before
    libraries = [file for file in _extension_files(site) if _is_of(file, site, added)]
    system.add_sonames(root, job, libraries)
    return added


def unpack(root: Path, job: Job, requirement: str, target: Path) -> None:
    """Unpack a wheel, without its dependencies, into a directory of its own.

    Raises:
        EngineError: uv failed; the message has its output.
    """
    _install(root, job, ["--no-deps", "--target", target, requirement])


def arrange(root: Path) -> None:
    """Write wrappers, shebangs and kernels as the contract requires, and update RECORD files."""
    changed = _arrange_scripts(root)
    for source in (_HERE / "rootfs" / "kernels").rglob("*.json"):
        path = f"{PREFIX}/share/jupyter/kernels/{source.parent.name}/{source.name}"
        tree.write(root, path, source.read_text())
        changed.add(path)
    _mend_records(root, changed)


def _arrange_scripts(root: Path) -> set[str]:
    """Write wrappers and shebangs as the contract requires; returns the changed paths."""
    changed = set()
    for script in sorted(tree.at(root, f"{PREFIX}/bin").iterdir()):
        path = f"{PREFIX}/bin/{script.name}"
        body = None if script.is_symlink() else _script_body(script)
        if body is not None:
            tree.write(root, path, _start_of(script.name) + body, 0o755)
            changed.add(path)
    return changed


def _mend_records(root: Path, changed: set[str]) -> None:
    for record in sorted(tree.at(root, SITE).glob("*.dist-info/RECORD")):
        mend_record(root, record, changed)


def _locked(*locks: str) -> dict[str, str]:
    """Return name and version of each package that the lock files name for this Python."""
    found = {}
    for lock in locks:
        for line in (_HERE / lock).read_text().splitlines():
            requirement = Requirement(line.partition("#")[0]) if line[:1].strip("#") else None
            if requirement and (requirement.marker is None or requirement.marker.evaluate()):
                found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


def _add_stand_in(root: Path, name: str, version: str, package: str) -> None:
    """Add a package that can be imported and knows its version, in place of a large one."""
    text = f'"""Stand-in for {name} in a reference image."""\n\n__version__ = "{version}"\n'
    programs = _PROGRAMS.get(name, [])
    for program in programs:
        tree.write(root, f"{PREFIX}/bin/{program}", _PROGRAM.format(name=package), 0o755)
    text += _ABLE.get(name, "")
    tree.write(root, f"{SITE}/{package}/__init__.py", text)
    add_distribution(root, name, version, package, programs)


def _prune(root: Path, record: Path) -> None:
    """Remove files in `_PRUNED` from a distribution and its RECORD."""
    left = []
    for row in record_rows(record):
        if not _PRUNED.fullmatch(row[0]):
            left.append(row)
            continue
        file = tree.at(root, os.path.normpath(f"{SITE}/{row[0]}"))
        file.unlink()
        with contextlib.suppress(OSError):  # up to the first one that is not empty
            file.parent.rmdir()
            os.removedirs(file.parent.parent)
    write_record(root, record.parent.name, left)


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
        # uv leaves a lock in the directory for temporary files, which is removed with the build. An
        # active virtual environment makes no difference.
        with tempfile.TemporaryDirectory(prefix=".uv-", dir=root.parent) as own:
            environment = {"VIRTUAL_ENV": "", "CONDA_PREFIX": "", "TMPDIR": own}
            job.run([*begin, *words], cwd=root, env=environment)
    except EngineError as error:
        raise EngineError(
            f"The Python packages of the reference image could not be installed.\n{error.what}",
            "It takes them from PyPI, or where UV_DEFAULT_INDEX points to, and keeps them in "
            "uv's cache: see that it is reachable and that there is space.",
        ) from error


def _extension_files(site: Path) -> list[Path]:
    """Return the shared libraries of installed packages for this machine's processor."""
    found = []
    for file in sorted(site.rglob("*.so*")):
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as opened:
                head = opened.read(20)
            if head[:5] == b"\x7fELF\x02" and head[18:20] == b"\x3e\x00":  # 64 bits, x86-64
                found.append(file)
    return found


def _script_body(script: Path) -> str | None:
    """Return the body of a console script after its shebang; None if it is no Python script."""
    content = script.read_bytes()
    if not content.startswith(b"#!"):
        return None
    first, _, rest = content.decode().partition("\n")
    if first == "#!/bin/sh" and rest.startswith("'''exec' "):
        # A shebang is limited to 127 bytes; for a longer path, uv lets sh start Python.
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
