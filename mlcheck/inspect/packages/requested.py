"""The packages that somebody requested from conda or mamba, and attempts to load them.

conda records requests in `conda-meta/history`; `conda env export --from-history`
reads it there: https://github.com/conda/conda/blob/main/conda/history.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import command_result, how_it_ended
from mlcheck.inspect.packages.facts import ImportResult, Imports, Requested
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.model.files import Problem

LIMIT = 16 * 1024 * 1024
_SPECS = re.compile(r"# (update|install|create|remove|neutered) specs?: *(.*)")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_NAME = re.compile(r"(?:[^\s:]*::)?([A-Za-z0-9_.-]+?)(?=[\s=<>!~\[]|$)")

R_LIMIT_S = 120.0
R_OUTPUT_LIMIT = 1024 * 1024


@fact()
def requested(rootfs: RootFS, ask: Ask, prefix: PrefixPath) -> Requested:
    """Find the packages that were requested from conda by name."""
    return ask(read, rootfs, prefix)


def read(rootfs: RootFS, prefix: str) -> Requested:
    """Return the names in the history, in alphabetical order.

    Raises:
        ProbeError: this machine forbids reading the history.
    """
    path = f"{prefix}/conda-meta/history"
    names: set[str] = set()
    problems: list[Problem] = []
    try:
        text = rootfs.read(path, LIMIT).decode("utf-8", "replace")
    except Unreadable as unreadable:
        return Requested((), path, (Problem(unreadable.path, unreadable.what),))
    for number, line in enumerate(text.splitlines(), 1):
        match = _SPECS.fullmatch(line.strip())
        if match is None:
            continue
        listed = match[2].strip()
        if not (listed.startswith("[") and listed.endswith("]")):
            problems.append(Problem(f"{path}:{number}", "is no list of packages"))
            continue
        specs = (single or double for single, double in _QUOTED.findall(listed))
        found = {name[1].lower() for spec in specs if (name := _NAME.match(spec.strip()))}
        if match[1] == "remove":
            names -= found
        else:
            names |= found
    return Requested(tuple(sorted(names)), path, tuple(problems))


def r_libraries(image: OpenImage, packages: Sequence[str]) -> Imports:
    """Load each of R's packages in a process of its own, side by side.

    Raises:
        EngineError: the engine could not run R.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return Imports(tuple(pool.map(lambda name: _library(image, name), packages)))


def _library(image: OpenImage, name: str) -> ImportResult:
    argv = ["R", "--no-save", "--no-restore", "--slave", "-e", f'library("{name}")']
    result = command_result(image.run(argv, limit_s=R_LIMIT_S, output_limit=R_OUTPUT_LIMIT))
    error = None
    if result.ended == "exited" and result.exit_code == 127:
        error = "R is not on the image's PATH"
    elif result.ended != "exited" or result.exit_code != 0:
        said = [line for line in result.stderr.splitlines() if line.startswith("Error")]
        how = how_it_ended(result, R_LIMIT_S)
        error = f"R {how}" if not said else said[-1][:500]
    return ImportResult(name, error, result.seconds)
