"""ROOT at work on a CPU of the level that the profile promises."""

from __future__ import annotations

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.inspect.registry import fact
from mlcheck.inspect.root import probe
from mlcheck.inspect.root.facts import PyRoot, RootProgram
from mlcheck.profile.catalog import Profile


@fact(runs=True)
def pyroot(image: OpenImage, profile: Profile) -> PyRoot:
    """Fill a histogram in PyROOT, and let cling compile a function."""
    return probe.pyroot(image, profile.expect.packages.cpu_level)


@fact(runs=True)
def program(image: OpenImage, ask: Ask, profile: Profile) -> RootProgram:
    """Compile and run a C++ program with the output of root-config."""
    return probe.program(
        image, ask, profile.expect.prefix or "/usr", profile.expect.packages.cpu_level
    )
