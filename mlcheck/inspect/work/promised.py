"""Facts about work that the profile promises: requested packages, programs, notebooks."""

from __future__ import annotations

from mlcheck.engines.base import OpenImage
from mlcheck.inspect.packages import imports, requested
from mlcheck.inspect.packages.facts import Requested
from mlcheck.inspect.registry import fact
from mlcheck.inspect.work import probe
from mlcheck.inspect.work.facts import (
    NotebookRuns,
    PythonImports,
    RLibraries,
    TaskRuns,
)
from mlcheck.inspect.work.names import names_to_load
from mlcheck.profile.catalog import Profile


@fact(runs=True)
def python_imports(image: OpenImage, profile: Profile, asked: Requested) -> PythonImports:
    """Requested packages of Python, each imported in a fresh interpreter."""
    python, _ = names_to_load(asked, profile)
    return PythonImports(imports.probe(image, list(python.values())))


@fact(runs=True)
def r_libraries(image: OpenImage, profile: Profile, asked: Requested) -> RLibraries:
    """Requested packages of R, each loaded in a fresh process."""
    _, r = names_to_load(asked, profile)
    return RLibraries(requested.r_libraries(image, list(r.values())))


@fact(runs=True)
def tasks(image: OpenImage, profile: Profile) -> TaskRuns:
    """Run the small programs of the profile."""
    asked = {
        name: (list(task.run), task.program, list(task.draws))
        for name, task in profile.expect.tasks.items()
    }
    return probe.run(image, asked)


@fact(runs=True)
def notebooks(image: OpenImage, profile: Profile) -> NotebookRuns:
    """Execute the notebooks of the profile."""
    codes = {name: notebook.code for name, notebook in profile.expect.notebooks.items()}
    return probe.notebooks(image, codes)
