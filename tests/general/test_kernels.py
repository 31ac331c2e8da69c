"""Jupyter's kernels, running, and the list of them."""

from __future__ import annotations

from collections.abc import Iterator

from mlcheck.inspect.jupyter.facts import JupyterServer, KernelLists, KernelRun, KernelRuns
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowRun, Verdict, judged, not_tried, skipped
from mlcheck.profile.catalog import Profile

_NONE_STARTS = "no kernel starts (see kernels-start)"
_SAID = {
    "PATH": "the host's programs first in PATH",
    "PYTHONHOME": "PYTHONHOME set",
    "PYTHONPATH": "PYTHONPATH set",
    "~/.local": "packages in ~/.local",
}


@rule("kernels-start", keys=["kernelspecs"], slow=True)
def test_kernels_start(kernels: KernelRuns, profile: Profile) -> Verdict:
    """Every kernel starts and computes, started by the image's own jupyter_client.

    Why: A kernel.json can be right and its kernel die, for want of ipykernel or by a wrong Python:
    the notebook then waits without a message
    (https://jupyter-client.readthedocs.io/en/stable/kernels.html).

    Fix: Install ipykernel and what it needs in the image's own Python, and see that the program of
    argv starts that Python.
    """
    if not profile.expect.kernels():
        return skipped("the profile promises no kernels")
    if kernels.trouble is not None:
        show = ShowRun(("python3", "-I", "-c", "import jupyter_client"))
        expected = "the image's jupyter_client can be used"
        return judged(1, [Finding("jupyter_client", kernels.trouble, expected, show=show)])
    plain = [run for run in kernels.runs if not run.hazards]
    untried = _unbound(kernels, profile)
    if not plain and untried:
        return not_tried("; ".join(untried))
    if not plain:
        return not_tried("none of the promised kernels is there (see kernelspecs-promised)")
    findings = [
        Finding(
            run.kernel,
            run.error,
            "starts and computes",
            profile.source_of_kernel(run.kernel),
            _by_hand(run),
        )
        for run in plain
        if run.error is not None
    ]
    seconds = ", ".join(f"{run.kernel} {run.seconds:.1f} s" for run in plain)
    notes = [f"with {len(kernels.runs)} at once: {seconds}"]
    return judged(len(plain), findings, notes, untried)


@rule(
    "kernels-own-python",
    keys=["kernelspecs"],
    also=[
        "prefix",
        "kernelspecs.generations.*.*.ignores_programs",
        "kernelspecs.generations.*.*.ignores_variables",
    ],
    slow=True,
)
def test_kernels_own_python(kernels: KernelRuns, profile: Profile) -> Verdict:
    """Every kernel runs the image's own Python, whatever a host puts in front of it: programs first
    in PATH, PYTHONHOME, PYTHONPATH.

    Why: At BNL the hub puts the host's Python in front of PATH, and users have PYTHONHOME set: the
    kernel has to start the image's own all the same (README of usatlas/ML-Containers, "ML Images in
    Jupyter").

    Fix: Start the Python that lies beside the script which starts it, not the first in PATH, and
    take PYTHONHOME away (or start it with -I).
    """
    if not profile.expect.kernels():
        return skipped("the profile promises no kernels")
    if profile.expect.prefix is None:
        return skipped("the profile names no prefix, whose Python it would be")
    started = kernels.starting
    if not started:
        return not_tried(_NONE_STARTS)
    runs = [run for run in kernels.runs if run.kernel in started]
    findings = [
        Finding(
            run.kernel,
            found,
            f"runs {profile.expect.prefix}",
            profile.source_of_kernel(run.kernel, _promise(run)),
            _python(profile, run, "import sys; print(sys.executable, sys.path)"),
        )
        for run, found in _taken_in(runs, profile.expect.prefix)
    ]
    return judged(len(runs), findings)


@rule("kernels-usersite", keys=["kernelspecs.generations.*.*.usersite"], slow=True)
def test_kernels_usersite(kernels: KernelRuns, profile: Profile) -> Verdict:
    """The isolated kernel does not see the packages in the user's ~/.local, the usersite kernel
    does.

    Why: Packages in ~/.local are shared by all images and hide an image's own; so one kernel leaves
    them out, and another is there for who wants them (README of usatlas/ML-Containers, "ML Images
    in Jupyter").

    Fix: Start the isolated kernel with -s (or -I), and the usersite kernel with neither; see that
    nothing on the way takes the option away or sets PYTHONNOUSERSITE.
    """
    wanted = profile.expect.kernels()
    if all(kernel.usersite is None for kernel in wanted.values()):
        return skipped("the profile says nothing of ~/.local")
    compared: dict[str, KernelRun] = {}
    for run in kernels.runs:
        if run.error is None and "~/.local" in run.hazards and run.kernel in wanted:
            compared.setdefault(run.kernel, run)
    if not compared:
        return not_tried("no kernel starts there (see kernels-start, kernels-own-python)")
    words = {True: "sees the packages in ~/.local", False: "does not see those in ~/.local"}
    findings = [
        Finding(
            name,
            words[run.sees_usersite],
            words[expected],
            profile.source_of_kernel(run.kernel, "usersite"),
            _python(profile, run, "import site; print(site.ENABLE_USER_SITE)"),
        )
        for name, run in compared.items()
        for expected in [wanted[name].usersite]
        if expected is not None and expected != run.sees_usersite
    ]
    return judged(len(compared), findings)


@rule("kernels-clean-list", keys=["kernelspecs.clean"], slow=True)
def test_kernels_clean_list(lists: KernelLists, lab: JupyterServer, profile: Profile) -> Verdict:
    """The list of kernels shows none of a user's and none that a host adds.

    Why: Kernels of the host and of the user do not work inside, and stand in the list beside those
    that do (README of usatlas/ML-Containers, "ML Images in Jupyter").

    Fix: JUPYTER_PATH only puts the image's directory first. Name the image's kernels in
    KernelSpecManager.allowed_kernelspecs of etc/jupyter/jupyter_config.json in the prefix.
    """
    if not profile.expect.kernels():
        return skipped("the profile promises no kernels")
    source = profile.source("kernelspecs", "generation")
    show = ShowRun(("jupyter", "kernelspec", "list"))
    findings = []
    if lists.trouble is not None:
        findings.append(Finding("jupyter_client", lists.trouble, "a list of kernels", show=show))
    shown_lists = [*lists.lists, *([lab.listed] if lab.listed else [])]
    places: dict[tuple[str, str], list[str]] = {}
    for one in shown_lists:
        who = one.how if one.how == "JupyterLab" else f"jupyter kernelspec list ({one.how} set)"
        if one.error is not None:
            findings.append(Finding(who, one.error, "a list of kernels", source, show))
        for name, where in one.foreign.items():
            places.setdefault((where, name), []).append(who)
    for (where, name), shown_by in places.items():
        found = f"{name} is shown by {' and '.join(shown_by)}"
        findings.append(Finding(where, found, "no kernel from there", source, show))
    shown = sum(one.shown for one in shown_lists)
    if shown_lists and not shown and not findings:
        findings.append(Finding("the list", "shows no kernel", "the promised ones", source, show))
    return judged(shown, findings)


def _unbound(kernels: KernelRuns, profile: Profile) -> list[str]:
    """The kernels that were not started for want of a directory of this machine."""
    started = {run.kernel for run in kernels.runs}
    return [
        f"the kernel {name} needs what is outside the image at {', '.join(kernel.mounts)} (--bind)"
        for name, kernel in sorted(profile.expect.kernels().items())
        if kernel.mounts and name not in started
    ]


def _taken_in(runs: list[KernelRun], prefix: str) -> Iterator[tuple[KernelRun, str]]:
    """The runs that harm came to, each hazard alone where that says more, and the harm."""
    harmed = {}
    for run in runs:
        around = " and ".join(_SAID.get(hazard, hazard) for hazard in run.hazards)
        start = f"with {around}: " if around else ""
        if run.error is not None:
            harmed[run.kernel, run.hazards] = run, f"{start}{run.error}"
        elif run.prefix != prefix:
            harmed[run.kernel, run.hazards] = run, f"{start}runs {run.executable} ({run.prefix})"
        elif run.sees_pythonpath and "PYTHONPATH" in run.hazards:
            harmed[run.kernel, run.hazards] = run, f"{start}it imports from there"
    for (kernel, hazards), (run, found) in harmed.items():
        alone = [other for name, other in harmed if name == kernel and len(other) == 1]
        if len(hazards) < 2 or not alone:
            yield run, found


def _promise(run: KernelRun) -> str:
    """The key that promises that a kernel bears its surroundings."""
    if "PATH" in run.hazards:
        return "ignores_programs"
    return "ignores_variables" if run.hazards else "argv"


def _python(profile: Profile, run: KernelRun, code: str) -> ShowRun:
    """The kernel's Python with some code, in its surroundings as far as variables make them."""
    argv = profile.expect.kernels()[run.kernel].argv or ("python3",)
    start = argv[: argv.index("-m")] if "-m" in argv else argv
    variables = (f"{name}=/nowhere" for name in run.hazards if name.startswith("PYTHON"))
    return ShowRun(("env", *variables, *start, "-c", code))


def _by_hand(run: KernelRun) -> ShowRun:
    return ShowRun(("jupyter", "run", f"--kernel={run.kernel}", "/dev/null"))
