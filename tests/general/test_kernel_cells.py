"""Code that kernels run, and the setup file that they source first."""

from __future__ import annotations

from collections.abc import Iterator

from mlcheck.inspect.jupyter.facts import KernelRuns, KernelSession, KernelSessions
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowRun, Verdict, judged, not_tried, skipped
from mlcheck.model.version import leads
from mlcheck.profile.catalog import Profile, promised


@rule("kernel-cells", keys=["kernelspecs.generations.*.*.cells"], slow=True)
def test_kernel_cells(sessions: KernelSessions, kernels: KernelRuns, profile: Profile) -> Verdict:
    """Every promised piece of code runs in its kernel and prints what it must.

    Why: A kernel that computes 1 + 1 need not have ROOT, uproot or Keras: the prototype of ATLAS
    Jupyter promises them for each of its kernels (README of that prototype, "It will include").

    Fix: Run the code in a notebook with that kernel; where it cannot import a module, install that
    for the kernel's own Python.
    """
    wanted = profile.expect.kernels()
    if not any(kernel.cells for kernel in wanted.values()):
        return skipped("the profile promises no code that kernels run")
    findings, compared = [], 0
    for session in _started(sessions, kernels):
        for name, cell in wanted[session.kernel].cells.items():
            compared += 1
            run = session.cells.get(name)
            if session.error is not None or run is None:
                found = session.error or "was not run"
            elif run.error is not None:
                found = run.error
            elif run.printed.strip() != cell.prints.strip():
                found = f"printed {run.printed.strip()[:200]!r}"
                found += f"; it said: {run.aside[:300]}" if run.aside else ""
            else:
                continue
            source = profile.source_of_kernel(session.kernel, "cells", name, "code")
            subject = f"{session.kernel}: {name}"
            expected = f"prints {cell.prints.strip()!r}"
            findings.append(Finding(subject, found, expected, source, _by_hand(session)))
    if not compared:
        return not_tried("none of the kernels with code starts (see kernels-start)")
    return judged(compared, findings)


@rule("kernel-setup", keys=["kernelspecs.generations.*.*.setup"], slow=True)
def test_kernel_setup(sessions: KernelSessions, kernels: KernelRuns, profile: Profile) -> Verdict:
    """The kernel sources the user's setup file before it starts, with the variables set that the
    file can test.

    Why: Users set up an ATLAS release for their notebooks in this file, and ask in it which Python
    is coming (README of the prototype of ATLAS Jupyter, "How to build and use").

    Fix: Set the variables and source the file, if it is there, in the script that the kernel.json
    starts; then exec the kernel.
    """
    wanted = profile.expect.kernels()
    if all(kernel.setup is None for kernel in wanted.values()):
        return skipped("the profile has no kernel that sources a setup file")
    findings: list[Finding] = []
    compared = 0
    for session in _started(sessions, kernels):
        if wanted[session.kernel].setup is not None:
            compared += 1
            findings += _of_setup(session, profile)
    if not compared:
        return not_tried("none of these kernels starts (see kernels-start)")
    return judged(compared, findings)


def _of_setup(session: KernelSession, profile: Profile) -> Iterator[Finding]:
    expected = promised(profile.expect.kernels()[session.kernel].setup)
    source = profile.source_of_kernel(session.kernel, "setup", "file")
    show = _by_hand(session)
    if session.setup is None:
        found = session.error or f"did not source {expected.file}"
        yield Finding(session.kernel, found, f"sources {expected.file}", source, show)
        return
    for name, value in expected.variables.items():
        seen = session.setup.get(name, "")
        if not leads(seen, value) and not leads(value, seen):
            found = f"{name} is {seen!r} there" if seen else f"{name} is not set there"
            source = profile.source_of_kernel(session.kernel, "setup", "variables", name)
            yield Finding(session.kernel, found, f"{name}={value}", source, show)


def _started(sessions: KernelSessions, kernels: KernelRuns) -> Iterator[KernelSession]:
    return (session for session in sessions.sessions if session.kernel in kernels.starting)


def _by_hand(session: KernelSession) -> ShowRun:
    return ShowRun(("jupyter", "console", f"--kernel={session.kernel}"))
