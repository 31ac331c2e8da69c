"""What the installed Python packages say that they need."""

from __future__ import annotations

import re

from mlcheck.engines.base import RootFS, Unreadable
from mlcheck.facts import Distribution, Distributions, Problem
from mlcheck.probes.installed import metadata_files, metadata_header
from mlcheck.probes.prefixes import package_directories

REQUIRES_LIMIT = 10_000
"""Requirements of one package; the longest known list has 400."""


def probe(rootfs: RootFS, prefix: str) -> Distributions:
    """Read the metadata of every Python package of an environment.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    found: list[Distribution] = []
    problems: list[Problem] = []
    python = ""
    for directory in package_directories(rootfs, prefix):
        match = re.search(r"/python(3(?:\.\d+)?)t?/(?:site|dist)-packages$", directory)
        python = python or (match[1] if match else "")
        for path in metadata_files(rootfs, directory):
            try:
                header = metadata_header(rootfs, path)
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
                continue
            name, version = (str(header.get(key, "")).strip() for key in ("Name", "Version"))
            requires = [str(line) for line in header.get_all("Requires-Dist") or []]
            if not name or not version:
                problems.append(Problem(path, "has no Name and Version of a Python package"))
            elif len(requires) > REQUIRES_LIMIT:
                problems.append(Problem(path, f"has more than {REQUIRES_LIMIT} requirements"))
            else:
                found.append(Distribution(name, version, tuple(requires), path))
    return Distributions(python, tuple(found), tuple(problems))
