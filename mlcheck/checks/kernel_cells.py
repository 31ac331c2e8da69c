"""What kernels run, and the setup file that they source."""

from __future__ import annotations

from collections.abc import Iterator

from mlcheck.checks.kernels import starting
from mlcheck.checks.system import leads
from mlcheck.facts import KernelRuns, KernelSession, KernelSessions
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowRun, Source, Verdict

CELLS = Rule(
    "kernel-cells",
    "Every promised piece of code runs in its kernel and prints what it must.",
    "Run the code in a notebook with that kernel; where it cannot import a module, install that "
    "for the kernel's own Python.",
    "A kernel that computes 1 + 1 need not have ROOT, uproot or Keras: the prototype of ATLAS "
    'Jupyter promises them for each of its kernels (README of that prototype, "It will include").',
    keys=("kernelspecs.generations.*.*.cells",),
)
SETUP = Rule(
    "kernel-setup",
    "The kernel sources the user's setup file before it starts, with the variables set that the "
    "file can test.",
    "Set the variables and source the file, if it is there, in the script that the kernel.json "
    "starts; then exec the kernel.",
    "Users set up an ATLAS release for their notebooks in this file, and ask in it which Python "
    'is coming (README of the prototype of ATLAS Jupyter, "How to build and use").',
    keys=("kernelspecs.generations.*.*.setup",),
)


def cells(fact: KernelSessions, runs: KernelRuns, profile: Profile) -> Verdict:
    """All cells of the kernels that start."""
    promised = profile.expect.kernels()
    if not any(kernel.cells for kernel in promised.values()):
        return CELLS.skipped("the profile promises no code that kernels run")
    findings, compared = [], 0
    for session in _started(fact, runs):
        for name, cell in promised[session.kernel].cells.items():
            compared += 1
            run = session.cells.get(name)
            if session.error is not None or run is None:
                found = session.error or "was not run"
            elif run.error is not None:
                found = run.error
            elif run.printed.strip() != cell.prints.strip():
                found = f"printed {run.printed.strip()[:200]!r}"
            else:
                continue
            source = _source(profile, session.kernel, "cells", name, "code")
            subject = f"{session.kernel}: {name}"
            wanted = f"prints {cell.prints.strip()!r}"
            findings.append(Finding(subject, found, wanted, source, _by_hand(session)))
    if not compared:
        return CELLS.not_tried("none of the kernels with code starts (see kernels-start)")
    return CELLS.judged(compared, findings)


def setup(fact: KernelSessions, runs: KernelRuns, profile: Profile) -> Verdict:
    """The setup file's effect in each kernel that must source it."""
    promised = profile.expect.kernels()
    if all(kernel.setup is None for kernel in promised.values()):
        return SETUP.skipped("the profile has no kernel that sources a setup file")
    findings: list[Finding] = []
    compared = 0
    for session in _started(fact, runs):
        if promised[session.kernel].setup is not None:
            compared += 1
            findings += _of_setup(session, profile)
    if not compared:
        return SETUP.not_tried("none of these kernels starts (see kernels-start)")
    return SETUP.judged(compared, findings)


def _of_setup(session: KernelSession, profile: Profile) -> Iterator[Finding]:
    expected = profile.expect.kernels()[session.kernel].setup
    assert expected is not None
    source = _source(profile, session.kernel, "setup", "file")
    show = _by_hand(session)
    if session.setup is None:
        found = session.error or f"did not source {expected.file}"
        yield Finding(session.kernel, found, f"sources {expected.file}", source, show)
        return
    for name, value in expected.variables.items():
        seen = session.setup.get(name, "")
        if not leads(seen, value) and not leads(value, seen):
            found = f"{name} is {seen!r} there" if seen else f"{name} is not set there"
            source = _source(profile, session.kernel, "setup", "variables", name)
            yield Finding(session.kernel, found, f"{name}={value}", source, show)


def _started(fact: KernelSessions, runs: KernelRuns) -> Iterator[KernelSession]:
    started = starting(runs)
    return (session for session in fact.sessions if session.kernel in started)


def _source(profile: Profile, kernel: str, *keys: str) -> Source | None:
    specs = profile.expect.kernelspecs
    generation = specs.generation if specs else ""
    return profile.source("kernelspecs", "generations", generation, kernel, *keys)


def _by_hand(session: KernelSession) -> ShowRun:
    return ShowRun(("jupyter", "console", f"--kernel={session.kernel}"))
