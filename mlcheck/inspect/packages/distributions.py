"""Requirements of the installed Python packages."""

from __future__ import annotations

import re

from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS
from mlcheck.inspect.packages import python_packages
from mlcheck.inspect.packages.facts import Distribution, Distributions
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact


@fact()
def distributions(rootfs: RootFS, ask: Ask, prefix: PrefixPath) -> Distributions:
    """Find the requirements of the Python packages."""
    return ask(probe, rootfs, prefix)


def probe(rootfs: RootFS, prefix: str) -> Distributions:
    """Read the metadata of every package that the Python of an environment finds.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    roots = [(one.path, one.packages) for one in prefixes.at(rootfs, prefix).found]
    python = ""
    for directory in (directory for _, packages in roots for directory in packages):
        match = re.search(r"/python(3(?:\.\d+)?)t?/(?:site|dist)-packages$", directory)
        python = python or (match[1] if match else "")
    there = python_packages.find(rootfs, roots)
    found = tuple(Distribution(p.name, p.version, p.requires, p.path) for p in there.found)
    return Distributions(python, found, there.problems, there.doubled)
