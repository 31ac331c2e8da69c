"""The Jupyter kernels that the image offers."""

from __future__ import annotations

from mlcheck.inspect.jupyter.facts import Kernelspec, Kernelspecs, KernelsPrefix
from mlcheck.model.rule import rule
from mlcheck.model.verdict import (
    Finding,
    ShowFile,
    ShowRun,
    Verdict,
    judged,
    not_tried,
    skipped,
)
from mlcheck.profile.catalog import Profile
from mlcheck.profile.schema.jupyter import Kernelspec as Promised

_LIST = ShowRun(("jupyter", "kernelspec", "list"))
_OWN_PYTHON = ("python", "python3")
"""Jupyter starts the Python that it runs on itself in place of these (`format_kernel_cmd` in
https://github.com/jupyter/jupyter_client/blob/main/jupyter_client/manager.py). A Debian with
JupyterLab has no `python`, which the kernel.json of ipykernel names."""


@rule("kernelspecs-valid", also=["kernelspecs"])
def test_kernelspecs_valid(kernels: Kernelspecs, profile: Profile) -> Verdict:
    """Every kernel.json is JSON of the shape that jupyter_client documents.

    Why: Jupyter leaves a kernel out whose kernel.json it cannot read, and says so in a log alone
    (https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs).

    Fix: Correct the kernel.json; `argv` is a list of strings, `display_name` and `language` are
    strings.
    """
    if not _expected(profile) and not kernels.specs and not kernels.problems:
        return skipped("the profile promises no kernels, and there are none")
    findings = [
        Finding(p.path, p.what, "a kernel.json", show=ShowFile("cat -v", p.path.partition(":")[0]))
        for p in kernels.problems
    ]
    if not kernels.specs and not findings:
        return not_tried("the image has no kernel.json (see kernelspecs-promised)")
    return judged(len(kernels.specs), findings)


@rule("kernelspecs-promised", keys=["kernelspecs"], also=["prefix"])
def test_kernelspecs_promised(
    kernels: Kernelspecs, prefix: KernelsPrefix | None, profile: Profile
) -> Verdict:
    """The kernel list has exactly the image's own kernels: none is missing, none comes from the
    host or a user.

    Why: Users choose a kernel by its name, and notebooks keep that name; a further one comes from a
    package that brought its own (README of usatlas/ML-Containers, "ML Images in Jupyter").

    Fix: Remove the other kernels in the image's build, and set JUPYTER_PATH to the image's own
    directory.
    """
    expected = _expected(profile)
    if expected is None:
        return skipped("the profile promises no kernels")
    source = profile.source("kernelspecs", "generation")
    findings = []
    there = {spec.name: spec for spec in kernels.specs}
    broken = {
        p.path.partition(":")[0].rpartition("/")[0].rpartition("/")[2] for p in kernels.problems
    }
    for name in sorted(expected):
        if name not in there and name not in broken:
            found = f"not in {', '.join(kernels.searched) or 'any directory'}"
            show = (
                ShowFile("ls", kernels.searched[0], kernels.searched[1:])
                if kernels.searched
                else _LIST
            )
            findings.append(Finding(name, found, "a kernel of this name", source, show))
    home = f"{prefix}/share/jupyter/kernels/"
    for spec in kernels.specs:
        if spec.name not in expected:
            show = ShowFile("ls -l", spec.path)
            findings.append(Finding(spec.name, spec.path, "no such kernel", source, show))
        elif prefix and not spec.path.startswith(home):
            show = ShowFile("ls -l", spec.path)
            findings.append(Finding(spec.name, spec.path, f"a kernel in {home}", source, show))
    if kernels.listed is not None:
        for name in sorted(set(kernels.listed) ^ set(expected)):
            if name in (finding.subject for finding in findings) or name in broken:
                continue
            found = kernels.listed.get(name, "`jupyter kernelspec list` does not show it")
            wanted = "shown" if name in expected else "no such kernel"
            findings.append(Finding(name, found, wanted, source, _LIST))
    # That there is none may be what is promised.
    compared = len(expected) or 1
    notes = [kernels.note] if kernels.note else []
    notes += [f"{path} is shadowed by {by}" for path, by in kernels.shadowed.items()]
    return judged(compared, findings, notes)


@rule(
    "kernelspecs-argv",
    keys=["kernelspecs"],
    also=[
        "kernelspecs.generations.*.*.argv",
        "kernelspecs.generations.*.*.display_name",
        "kernelspecs.generations.*.*.language",
        "kernelspecs.generations.*.*.metadata",
    ],
)
def test_kernelspecs_argv(kernels: Kernelspecs, profile: Profile) -> Verdict:
    """Every kernel starts the image's own Python as its generation says.

    Why: Which Python a kernel starts, with which options, is what one generation of the images
    differs in from the next (README of usatlas/ML-Containers, "ML Images in Jupyter").

    Fix: Write the kernel.json as the profile's generation has it.
    """
    expected = _expected(profile)
    if not expected:
        return skipped("the profile promises no kernels")
    findings = []
    compared = 0
    for spec in kernels.specs:
        if spec.name in expected:
            compared += 1
            findings += _deviations(spec, expected[spec.name], profile)
    if not compared and not findings:
        return not_tried("none of the promised kernels is there (see kernelspecs-promised)")
    return judged(compared, findings)


def _deviations(spec: Kernelspec, expected: Promised, profile: Profile) -> list[Finding]:
    show = ShowFile("cat -v", spec.path)
    findings = []
    for key, found, wanted in (
        (
            "argv",
            " ".join(spec.argv),
            " ".join(expected.argv) if expected.argv is not None else None,
        ),
        ("display_name", spec.display_name, expected.display_name),
        ("language", spec.language, expected.language),
    ):
        if wanted is not None and found != wanted:
            text = f"{key}: {found}"
            findings.append(
                Finding(spec.name, text, wanted, profile.source_of_kernel(spec.name, key), show)
            )
    for key, value in expected.metadata.items():
        actual = spec.metadata.get(key)
        if actual != value or type(actual) is not type(value):
            text = f"metadata.{key}: {actual!r}"
            source = profile.source_of_kernel(spec.name, "metadata", key)
            findings.append(Finding(spec.name, text, repr(value), source, show))
    as_promised = expected.argv is None or spec.argv[0] == expected.argv[0]
    if spec.argv0 is None and as_promised and spec.argv[0] not in _OWN_PYTHON:
        text = f"{spec.argv[0]} is not on the image's PATH"
        findings.append(
            Finding(spec.name, text, "a program", profile.source_of_kernel(spec.name), show)
        )
    return findings


def _expected(profile: Profile) -> dict[str, Promised] | None:
    kernelspecs = profile.expect.kernelspecs
    return kernelspecs.generations.get(kernelspecs.generation) if kernelspecs else None
