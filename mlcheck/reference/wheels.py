"""The Python packages: from PyPI in pinned versions, and stand-ins for the large ones."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

from mlcheck.errors import EngineError
from mlcheck.reference import system, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.dist_info import add_distribution, mend_record, record_rows, write_record
from mlcheck.reference.python import PREFIX, SITE
from mlcheck.reference.tools import tools

LOCKS = ("packages.lock", "packages-alone.txt", "packages-full.lock")

_STAND_INS = {
    "awkward": "awkward",
    "awkward-cpp": "awkward_cpp",
    "catboost": "catboost",
    "fonttools": "fontTools",
    "formulaic": "formulaic",
    "joblib": "joblib",
    "lightgbm": "lightgbm",
    "narwhals": "narwhals",
    "pandas": "pandas",
    "patsy": "patsy",
    "pipenv": "pipenv",
    "plotly": "plotly",
    "plotly-express": "plotly_express",
    "pytz": "pytz",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "seaborn": "seaborn",
    "statsmodels": "statsmodels",
    "uproot": "uproot",
    "xgboost": "xgboost",
}
"""What is large, or asks for it: the package that each distribution has."""
_ABLE = {
    "pandas": "from numpy import array as Series\n",
    "pipenv": 'def cli():\n    print("pipenv, version", __version__)\n',
}
"""What a stand-in does that something promised asks of it."""
_PROGRAMS = {"pipenv": ["pipenv"]}
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
    r"|tzdata/zoneinfo/(?!Etc|Europe|UTC).*/.*|(\.\./)*share/jupyterhub/static/components/.*"
)
"""Files of other packages that are many, and that nothing misses: as RECORD names them."""

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


_HERE = Path(__file__).parent


def install(root: Path, job: Job, *, real: bool) -> tuple[int, int]:
    """Install the pinned packages from PyPI.

    Args:
        real: all of them, and whole; else stand-ins for the large ones, and others pruned.

    Returns: how many are there, and how many of these are stand-ins.

    Raises:
        EngineError: uv could not; its own words say why.
    """
    versions = _locked(*LOCKS)
    stand_ins = {} if real else {name: versions[name] for name in _STAND_INS}
    wanted = versions if real else _locked(*LOCKS[:2]).keys() - stand_ins
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


def unpack(root: Path, job: Job, requirement: str, target: Path) -> None:
    """Unpack a wheel, without what it needs, into a directory of its own.

    Raises:
        EngineError: uv could not; its own words say why.
    """
    _install(root, job, ["--no-deps", "--target", target, requirement])


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
        mend_record(root, record, changed)


def _locked(*locks: str) -> dict[str, str]:
    """Name and version of what the files name for this Python."""
    found = {}
    for lock in locks:
        for line in (_HERE / lock).read_text().splitlines():
            requirement = Requirement(line.partition("#")[0]) if line[:1].strip("#") else None
            if requirement and (requirement.marker is None or requirement.marker.evaluate()):
                found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


def _add_stand_in(root: Path, name: str, version: str, package: str) -> None:
    """A package that imports and knows its version, in place of a large one."""
    text = f'"""Stand-in for {name} in a reference image."""\n\n__version__ = "{version}"\n'
    programs = _PROGRAMS.get(name, [])
    for program in programs:
        tree.write(root, f"{PREFIX}/bin/{program}", _PROGRAM.format(name=package), 0o755)
    text += _ABLE.get(name, "")
    tree.write(root, f"{SITE}/{package}/__init__.py", text)
    add_distribution(root, name, version, package, programs)


def _prune(root: Path, record: Path) -> None:
    """Remove what `_PRUNED` says of a distribution, from its RECORD too."""
    left = []
    for row in record_rows(record):
        if not _PRUNED.fullmatch(row[0]):
            left.append(row)
            continue
        file = tree.at(root, os.path.normpath(f"{SITE}/{row[0]}"))
        file.unlink()
        with contextlib.suppress(OSError):  # until one that is not empty
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
