"""Parity: two images hold the same, but for what the profile allows."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from mlcheck.checks import differences, file_differences
from mlcheck.checks.differences import Aspect, Compared, Difference
from mlcheck.facts import ImageFiles, Side
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowMlcheck, Source, Verdict

_REMEDY = (
    "Build both images from the same recipe, or allow the difference, with the reason, in "
    "[parity{}] of the image.toml."
)
SYSTEM = Rule(
    "parity-os",
    "Both images are of the same operating system.",
    _REMEDY.format(""),
    "The images for CPUs and for GPUs are to hold the same software except for the version of "
    'Ubuntu (README of the older kubeflow containers, "CPU and GPU Ubuntu Versions").',
    keys=("parity.os",),
)
PACKAGES = Rule(
    "parity-packages",
    "Both images have the same packages of conda, pip, R and the system, in the same versions, "
    "installed by the same manager.",
    _REMEDY.format(".packages"),
    "What is promised to be the same drifts apart when nobody compares: TensorFlow was 2.3.1 in "
    'one image and 2.1 in the other (README of the older kubeflow containers, "CPU and GPU '
    'Ubuntu Versions", and their Dockerfiles).',
    keys=("parity.packages",),
)
KERNELS = Rule(
    "parity-kernels",
    "Both images have the same Jupyter kernels: argv, environment and names.",
    _REMEDY.format(".kernels"),
    "A notebook names its kernel: moved to the image for GPUs, it must find the same (README of "
    "the older kubeflow containers).",
    keys=("parity.kernels",),
)
TOOLS = Rule(
    "parity-tools",
    "Both images have the same programs on PATH.",
    _REMEDY.format(".tools"),
    "Scripts of users call these programs, whichever of the two images they are in (README of "
    "the older kubeflow containers).",
    keys=("parity.tools",),
)
ENVIRONMENT = Rule(
    "parity-environment",
    "Both images set the same variables, and start in the same way: entrypoint, cmd, user, "
    "workdir, ports and labels.",
    _REMEDY.format(".environment"),
    "A platform starts both images in the same way, by their entrypoint, user and port (README "
    "of the older kubeflow containers).",
    keys=("parity.environment",),
)
FILES = Rule(
    "parity-files",
    "Both images have the same files: type, mode, owner and content. Files of a package that "
    "differs are told by the package; byte code is left out.",
    _REMEDY.format(".files"),
    "Configuration that was copied into one of two images alone is in no list of packages (asked "
    "of other tools since 2020: https://github.com/anchore/syft/issues/292).",
    keys=("parity.files",),
)
RULES: dict[Aspect, Rule] = {
    "os": SYSTEM,
    "packages": PACKAGES,
    "kernels": KERNELS,
    "tools": TOOLS,
    "environment": ENVIRONMENT,
    "files": FILES,
}

_OF_SYSTEM = (
    *("/etc/os-release", "/usr/lib/os-release", "/etc/lsb-release", "/etc/debian_version"),
    *("/etc/issue", "/etc/issue.net", "/etc/redhat-release", "/etc/system-release"),
)
"""Files that tell the version of the operating system."""


def judge(aspect: Aspect, a: Side, b: Side, profile: Profile) -> Verdict:
    """Everything of one aspect but the files.

    Args:
        a: the image that is judged, whose profile says what may differ.
    """
    return _verdict(aspect, differences.ASPECTS[aspect](a, b), b, profile)


def files(a: Side, b: Side, files_a: ImageFiles, files_b: ImageFiles, profile: Profile) -> Verdict:
    """The files of both images."""
    return _verdict("files", file_difference(a, b, files_a, files_b, profile), b, profile)


def file_difference(
    a: Side, b: Side, files_a: ImageFiles, files_b: ImageFiles, profile: Profile
) -> Compared:
    """In which files two images differ, without those that may."""

    def may(names: Sequence[str]) -> bool:
        if profile.expect.parity.os is not None and names[0] in _OF_SYSTEM:
            return True
        return _entry("files", names, profile) is not None

    changed = differences.changed_packages(a, b)
    owners = a.owns and b.owns
    return file_differences.compare(files_a, files_b, changed, may, owners=owners)


def allowed(difference: Difference, profile: Profile) -> str | None:
    """The reason for which the profile allows a difference; None: it does not."""
    parity = profile.expect.parity
    if parity.os is not None and difference.version_of_system:
        return parity.os
    return _entry(difference.aspect, difference.names, profile)


def _entry(aspect: Aspect, names: Sequence[str], profile: Profile) -> str | None:
    if aspect == "os":
        return None
    entries: dict[str, str] = getattr(profile.expect.parity, aspect)
    for glob, reason in entries.items():
        if any(fnmatch.fnmatchcase(name, glob) for name in names):
            return reason
    return None


def _verdict(aspect: Aspect, compared: Compared, b: Side, profile: Profile) -> Verdict:
    rule = RULES[aspect]
    source = _source(aspect, profile)
    both = ShowMlcheck("diff", (b.name,))
    findings = [
        Finding(d.subject, d.a, f"{d.b}, as in {b.name}", source, d.show or both)
        for d in compared.differences
        if allowed(d, profile) is None
    ]
    if not compared.count and not findings:
        return rule.skipped("; ".join(compared.missed) or "neither image has any")
    may = len(compared.differences) - len(findings)
    notes = [*compared.notes, *(f"not compared: {text}" for text in compared.missed)]
    notes += [f"{may} differences that the profile allows"] if may else []
    return rule.judged(compared.count, findings, notes)


def _source(aspect: Aspect, profile: Profile) -> Source | None:
    """The line behind which an allowed difference would stand."""
    return profile.source("parity", aspect)
