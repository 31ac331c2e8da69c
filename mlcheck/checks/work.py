"""What must work in an image: packages that were asked for, small programs, notebooks."""

from __future__ import annotations

import fnmatch
import json
import shlex

from mlcheck.checks.system import how_it_ended
from mlcheck.facts import ImportResult, Imports, NotebookRuns, Requested, TaskRuns
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Source, Verdict

REQUESTED = Rule(
    "requested-packages",
    "Every package that was asked for by name can be loaded: Python's by import, R's by library().",
    "Load it in the image, and read the message. If the name to load differs, or there is nothing "
    "to load, say so in packages.requested.",
    "What somebody asked for by name is what users need; the tests of "
    "StatCan/aaw-kubeflow-containers load each of `conda env export --from-history` in Python or "
    "R.",
    keys=("packages.requested",),
)
TASKS = Rule(
    "tasks",
    "Small programs work: each ends with 0, prints what it must, and draws its pictures.",
    "Run the program in the image; its last line says what is missing.",
    "Drawing needs fonts, libraries and a display that an import does not ask for; the tests of "
    "StatCan/aaw-kubeflow-containers draw, sum and compute for that reason.",
    keys=("tasks",),
)
NOTEBOOKS = Rule(
    "notebooks",
    "A notebook executes with every promised kernel, by `jupyter nbconvert --execute`.",
    "See that the kernel's program starts and its package for Jupyter is installed "
    "(ipykernel, IRkernel, IJulia).",
    "nbconvert takes the way of scheduled notebooks: kernelspec, kernel and all between them "
    "(the tests of https://github.com/jupyter/docker-stacks).",
    keys=("notebooks",),
)


def loads(requested: Requested, profile: Profile) -> tuple[dict[str, str], dict[str, str]]:
    """What to import in Python and to load in R: package to its name there."""
    known = profile.expect.packages.requested or {}
    python, r = {}, {}
    for package in requested.names:
        key = _key(package, profile)
        name = known[key] if key is not None else None
        if name is False:
            continue
        if package.startswith("r-"):
            r[package] = name or package.removeprefix("r-")
        else:
            python[package] = name or package.replace("-", "_")
    return python, r


def _key(package: str, profile: Profile) -> str | None:
    known = profile.expect.packages.requested or {}
    if package in known:
        return package
    return next((key for key in known if fnmatch.fnmatchcase(package, key)), None)


def requested(fact: Requested, python: Imports, r: Imports, profile: Profile) -> Verdict:
    """All packages of the history, but for those that have nothing to load."""
    if profile.expect.packages.requested is None:
        return REQUESTED.skipped("the profile does not say that requested packages are loaded")
    findings = [
        Finding(problem.path, problem.what, "conda's history", show=ShowFile("cat -v", fact.source))
        for problem in fact.problems
    ]
    in_python, in_r = loads(fact, profile)
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
    nothing = f"nothing that {fact.source} asks for has a name to load"
    return REQUESTED.judged(len(in_python) + len(in_r), findings, nothing=nothing)


def _source(package: str, profile: Profile) -> Source | None:
    key = _key(package, profile)
    where = ("packages", "requested")
    return profile.source(*where, key) if key is not None else profile.source(*where)


def tasks(fact: TaskRuns, profile: Profile) -> Verdict:
    """The programs of `tasks`."""
    promised = profile.expect.tasks
    if not promised:
        return TASKS.skipped("the profile has no program to try")
    findings = []
    for run in fact.runs:
        task = promised[run.name]
        source = profile.source("tasks", run.name)
        show = ShowRun(task.run)
        result = run.result
        if result.ended != "exited" or result.exit_code != 0:
            found = how_it_ended(result)
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
    return TASKS.judged(len(promised), findings)


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


def notebooks(fact: NotebookRuns, profile: Profile) -> Verdict:
    """The notebooks of `notebooks`."""
    if not profile.expect.notebooks:
        return NOTEBOOKS.skipped("the profile has no notebook")
    findings = []
    for run in fact.runs:
        source = profile.source("notebooks", run.kernel)
        show = _by_hand(run.kernel, profile.expect.notebooks[run.kernel].code)
        if run.error is not None:
            findings.append(Finding(run.kernel, run.error, "executes", source, show))
        elif run.wanted not in run.printed:
            found = f"prints {run.printed.strip()[:200] or 'nothing'}"
            findings.append(Finding(run.kernel, found, f"prints {run.wanted}", source, show))
    return NOTEBOOKS.judged(len(fact.runs), findings)
