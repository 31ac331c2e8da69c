"""The Jupyter kernels."""

from __future__ import annotations

from mlcheck.expectations.jupyter import Kernelspec as Promised
from mlcheck.facts import Kernelspec, Kernelspecs
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Verdict

VALID = Rule(
    "kernelspecs-valid",
    "Every kernel.json is JSON of the shape that jupyter_client documents.",
    "Correct the kernel.json; `argv` is a list of strings, `display_name` and `language` are "
    "strings.",
    "Jupyter leaves a kernel out whose kernel.json it cannot read, and says so in a log alone "
    "(https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs).",
)
PROMISED = Rule(
    "kernelspecs-promised",
    "The kernel list has exactly the image's own kernels: none is missing, none comes from the "
    "host or a user.",
    "Remove the other kernels in the image's build, and set JUPYTER_PATH to the image's own "
    "directory.",
    "Users choose a kernel by its name, and notebooks keep that name; a further one comes from a "
    'package that brought its own (README of usatlas/ML-Containers, "ML Images in Jupyter").',
    keys=("kernelspecs",),
)
ARGV = Rule(
    "kernelspecs-argv",
    "Every kernel starts the image's own Python as its generation says.",
    "Write the kernel.json as the profile's generation has it.",
    "Which Python a kernel starts, with which options, is what one generation of the images "
    'differs in from the next (README of usatlas/ML-Containers, "ML Images in Jupyter").',
    keys=(
        "kernelspecs.generations.*.*.argv",
        "kernelspecs.generations.*.*.display_name",
        "kernelspecs.generations.*.*.language",
        "kernelspecs.generations.*.*.metadata",
    ),
)

_LIST = ShowRun(("jupyter", "kernelspec", "list"))


def valid(fact: Kernelspecs, profile: Profile) -> Verdict:
    """No kernel.json is malformed."""
    if not _expected(profile) and not fact.specs and not fact.problems:
        return VALID.skipped("the profile promises no kernels, and there are none")
    findings = [
        Finding(p.path, p.what, "a kernel.json", show=ShowFile("cat -v", p.path.partition(":")[0]))
        for p in fact.problems
    ]
    if not fact.specs and not findings:
        return VALID.not_tried("the image has no kernel.json (see kernelspecs-promised)")
    return VALID.judged(len(fact.specs), findings)


def promised(fact: Kernelspecs, profile: Profile) -> Verdict:
    """The kernels are those of the profile's generation, in the prefix."""
    expected = _expected(profile)
    if expected is None:
        return PROMISED.skipped("the profile promises no kernels")
    source = profile.source("kernelspecs", "generation")
    findings = []
    there = {spec.name: spec for spec in fact.specs}
    broken = {p.path.partition(":")[0].rpartition("/")[0].rpartition("/")[2] for p in fact.problems}
    for name in sorted(expected):
        if name not in there and name not in broken:
            found = f"not in {', '.join(fact.searched) or 'any directory'}"
            show = ShowFile("ls", fact.searched[0], fact.searched[1:]) if fact.searched else _LIST
            findings.append(Finding(name, found, "a kernel of this name", source, show))
    home = f"{profile.expect.prefix}/share/jupyter/kernels/"
    for spec in fact.specs:
        if spec.name not in expected:
            show = ShowFile("ls -l", spec.path)
            findings.append(Finding(spec.name, spec.path, "no such kernel", source, show))
        elif profile.expect.prefix and not spec.path.startswith(home):
            show = ShowFile("ls -l", spec.path)
            findings.append(Finding(spec.name, spec.path, f"a kernel in {home}", source, show))
    if fact.listed is not None:
        for name in sorted(set(fact.listed) ^ set(expected)):
            if name in (finding.subject for finding in findings) or name in broken:
                continue
            found = fact.listed.get(name, "`jupyter kernelspec list` does not show it")
            wanted = "shown" if name in expected else "no such kernel"
            findings.append(Finding(name, found, wanted, source, _LIST))
    # That there is none may be what is promised.
    compared = len(expected) or 1
    return PROMISED.judged(compared, findings, [fact.note] if fact.note else [])


def argv(fact: Kernelspecs, profile: Profile) -> Verdict:
    """argv, names and metadata of each promised kernel; argv[0] exists on the image's PATH."""
    expected = _expected(profile)
    if not expected:
        return ARGV.skipped("the profile promises no kernels")
    findings = []
    compared = 0
    for spec in fact.specs:
        if spec.name in expected:
            compared += 1
            findings += _deviations(spec, expected[spec.name], profile)
    if not compared and not findings:
        return ARGV.not_tried("none of the promised kernels is there (see kernelspecs-promised)")
    return ARGV.judged(compared, findings)


_OWN_PYTHON = ("python", "python3")
"""Jupyter starts the Python that it runs on itself in place of these (`format_kernel_cmd` in
https://github.com/jupyter/jupyter_client/blob/main/jupyter_client/manager.py). A Debian with
JupyterLab has no `python`, which the kernel.json of ipykernel names."""


def _deviations(spec: Kernelspec, expected: Promised, profile: Profile) -> list[Finding]:
    where = ("kernelspecs", "generations", _generation(profile), spec.name)
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
            findings.append(Finding(spec.name, text, wanted, profile.source(*where, key), show))
    for key, value in expected.metadata.items():
        actual = spec.metadata.get(key)
        if actual != value or type(actual) is not type(value):
            text = f"metadata.{key}: {actual!r}"
            source = profile.source(*where, "metadata", key)
            findings.append(Finding(spec.name, text, repr(value), source, show))
    as_promised = expected.argv is None or spec.argv[0] == expected.argv[0]
    if spec.argv0 is None and as_promised and spec.argv[0] not in _OWN_PYTHON:
        text = f"{spec.argv[0]} is not on the image's PATH"
        findings.append(Finding(spec.name, text, "a program", profile.source(*where), show))
    return findings


def _generation(profile: Profile) -> str:
    return profile.expect.kernelspecs.generation if profile.expect.kernelspecs else ""


def _expected(profile: Profile) -> dict[str, Promised] | None:
    kernelspecs = profile.expect.kernelspecs
    return kernelspecs.generations.get(kernelspecs.generation) if kernelspecs else None
