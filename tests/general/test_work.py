"""Users' work: requested packages, small programs, notebooks."""

from __future__ import annotations

import json
import shlex

from mlcheck.inspect.packages.facts import ImportResult, Requested
from mlcheck.inspect.work.facts import (
    NotebookRuns,
    PythonImports,
    RLibraries,
    TaskRuns,
)
from mlcheck.inspect.work.names import key_of, names_to_load
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, ShowRun, Source, Verdict, judged
from mlcheck.profile.catalog import Profile


@rule("requested-packages", keys=["packages.requested"], slow=True)
def test_requested_packages(
    asked: Requested, python: PythonImports, r: RLibraries, profile: Profile
) -> Verdict:
    """Every package that was asked for by name can be loaded: Python's by import, R's by library().

    Why: What somebody asked for by name is what users need; the tests of
    StatCan/aaw-kubeflow-containers load each of `conda env export --from-history` in Python or R.

    Fix: Load it in the image, and read the message. If the name to load differs, or there is
    nothing to load, say so in packages.requested.
    """
    findings = [
        Finding(p.path, p.what, "conda's history", show=ShowFile("cat -v", asked.source))
        for p in asked.problems
    ]
    in_python, in_r = names_to_load(asked, profile)
    for packages, results in ((in_python, python), (in_r, r)):
        found: dict[str, ImportResult] = {result.module: result for result in results.results}
        for package, name in packages.items():
            result = found.get(name)
            error = result.error if result is not None else "not tried"
            if error is not None:
                argv: tuple[str, ...] = ("python3", "-c", f"import {name}")
                if packages is in_r:
                    argv = ("R", "--slave", "-e", f'library("{name}")')
                expected = "imports" if packages is in_python else "library() loads it"
                source = _source(package, profile)
                findings.append(Finding(package, error, expected, source, ShowRun(argv)))
    nothing = f"nothing that {asked.source} asks for has a name to load"
    return judged(len(in_python) + len(in_r), findings, nothing=nothing)


@rule("tasks", keys=["tasks"], slow=True)
def test_tasks(tried: TaskRuns, profile: Profile) -> Verdict:
    """Small programs work: each ends with 0, prints what it must, and draws its pictures.

    Why: Drawing needs fonts, libraries and a display that an import does not ask for; the tests of
    StatCan/aaw-kubeflow-containers draw, sum and compute for that reason.

    Fix: Run the program in the image; its last line says what is missing.
    """
    tasks = profile.expect.tasks
    findings = []
    for run in tried.runs:
        task = tasks[run.name]
        source = profile.source("tasks", run.name)
        show = ShowRun(task.run)
        result = run.result
        if result.ended != "exited" or result.exit_code != 0:
            found = result.how_it_ended
            findings.append(Finding(run.name, found, "ends with 0", source, show))
            continue
        if task.prints not in result.stdout:
            said = " ".join(result.stdout.split())[:200] or "nothing"
            where = profile.source("tasks", run.name, "prints")
            findings.append(Finding(run.name, f"prints {said}", task.prints, where, show))
        for index, file in enumerate(task.draws):
            picture = run.pictures.get(file, "was not made")
            where = profile.source("tasks", run.name, "draws", index)
            if isinstance(picture, str):
                findings.append(Finding(f"{run.name}: {file}", picture, "a picture", where, show))
            elif not picture.width or not picture.height:
                found = f"{picture.width} x {picture.height} pixels"
                findings.append(Finding(f"{run.name}: {file}", found, "a picture", where, show))
    return judged(len(tasks), findings)


@rule("notebooks", keys=["notebooks"], slow=True)
def test_notebooks(executed: NotebookRuns, profile: Profile) -> Verdict:
    """A notebook executes with every promised kernel, by `jupyter nbconvert --execute`.

    Why: nbconvert takes the way of scheduled notebooks: kernelspec, kernel and all between them
    (the tests of https://github.com/jupyter/docker-stacks).

    Fix: See that the kernel's program starts and its package for Jupyter is installed (ipykernel,
    IRkernel, IJulia).
    """
    findings = []
    for run in executed.runs:
        source = profile.source("notebooks", run.kernel)
        show = _by_hand(run.kernel, profile.expect.notebooks[run.kernel].code)
        if run.error is not None:
            findings.append(Finding(run.kernel, run.error, "executes", source, show))
        elif run.wanted not in run.printed:
            found = f"prints {run.printed.strip()[:200] or 'nothing'}"
            findings.append(Finding(run.kernel, found, f"prints {run.wanted}", source, show))
    return judged(len(executed.runs), findings)


def _source(package: str, profile: Profile) -> Source | None:
    key = key_of(package, profile)
    where = ("packages", "requested")
    return profile.source(*where, key) if key is not None else profile.source(*where)


def _by_hand(kernel: str, code: str) -> ShowRun:
    """The notebook, written and executed."""
    cell: dict[str, object] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
    }
    notebook = {
        "cells": [{**cell, "source": code.replace("{a}", "6").replace("{b}", "7")}],
        "metadata": {"kernelspec": {"name": kernel, "display_name": kernel}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    file = "/tmp/mlcheck.ipynb"  # noqa: S108 - in the image
    write = f"printf %s {shlex.quote(json.dumps(notebook))} >{file}"
    execute = f"jupyter nbconvert --to notebook --execute --stdout {file}"
    return ShowRun(("sh", "-c", f"{write} && {execute}"))
