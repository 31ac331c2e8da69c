"""Two images that should be alike: collected with --compare alone."""

from __future__ import annotations

from mlcheck.inspect.parity import allowances
from mlcheck.inspect.parity.differences import ASPECTS, Aspect, Compared
from mlcheck.inspect.parity.facts import ImageFiles, OtherFiles, OtherSide, Side
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowMlcheck, Verdict, judged, skipped
from mlcheck.profile.catalog import Profile


@rule("parity-os", also=["parity.os"])
def test_parity_os(this: Side, other: OtherSide, profile: Profile) -> Verdict:
    """Both images are of the same operating system.

    Why: The images for CPUs and for GPUs are to hold the same software except for the version of
    Ubuntu (README of the older kubeflow containers, "CPU and GPU Ubuntu Versions").

    Fix: Build both images from the same recipe, or allow the difference, with the reason, in
    [parity] of the image.toml.
    """
    return _judged("os", ASPECTS["os"](this, other), other, profile)


@rule("parity-packages", also=["parity.packages", "parity.os"])
def test_parity_packages(this: Side, other: OtherSide, profile: Profile) -> Verdict:
    """Both images have the same packages of conda, pip, R and the system, in the same versions,
    installed by the same manager.

    Why: What is promised to be the same drifts apart when nobody compares: TensorFlow was 2.3.1 in
    one image and 2.1 in the other (README of the older kubeflow containers, "CPU and GPU Ubuntu
    Versions", and their Dockerfiles).

    Fix: Build both images from the same recipe, or allow the difference, with the reason, in
    [parity.packages] of the image.toml.
    """
    return _judged("packages", ASPECTS["packages"](this, other), other, profile)


@rule("parity-kernels", also=["parity.kernels"])
def test_parity_kernels(this: Side, other: OtherSide, profile: Profile) -> Verdict:
    """Both images have the same Jupyter kernels: argv, environment and names.

    Why: A notebook names its kernel: moved to the image for GPUs, it must find the same (README of
    the older kubeflow containers).

    Fix: Build both images from the same recipe, or allow the difference, with the reason, in
    [parity.kernels] of the image.toml.
    """
    return _judged("kernels", ASPECTS["kernels"](this, other), other, profile)


@rule("parity-tools", also=["parity.tools"])
def test_parity_tools(this: Side, other: OtherSide, profile: Profile) -> Verdict:
    """Both images have the same programs on PATH.

    Why: Scripts of users call these programs, whichever of the two images they are in (README of
    the older kubeflow containers).

    Fix: Build both images from the same recipe, or allow the difference, with the reason, in
    [parity.tools] of the image.toml.
    """
    return _judged("tools", ASPECTS["tools"](this, other), other, profile)


@rule("parity-environment", also=["parity.environment"])
def test_parity_environment(this: Side, other: OtherSide, profile: Profile) -> Verdict:
    """Both images set the same variables, and start in the same way: entrypoint, cmd, user,
    workdir, ports and labels.

    Why: A platform starts both images in the same way, by their entrypoint, user and port (README
    of the older kubeflow containers).

    Fix: Build both images from the same recipe, or allow the difference, with the reason, in
    [parity.environment] of the image.toml.
    """
    return _judged("environment", ASPECTS["environment"](this, other), other, profile)


@rule("parity-files", also=["parity.files", "parity.os"], slow=True)
def test_parity_files(
    this: Side,
    other: OtherSide,
    these_files: ImageFiles,
    other_files: OtherFiles,
    profile: Profile,
) -> Verdict:
    """Both images have the same files: type, mode, owner and content. Files of a package that
    differs are told by the package; byte code is left out.

    Why: Configuration that was copied into one of two images alone is in no list of packages (asked
    of other tools since 2020: https://github.com/anchore/syft/issues/292).

    Fix: Build both images from the same recipe, or allow the difference, with the reason, in
    [parity.files] of the image.toml.
    """
    compared = allowances.compare_files(this, other, these_files, other_files, profile)
    return _judged("files", compared, other, profile)


def _judged(aspect: Aspect, compared: Compared, other: Side, profile: Profile) -> Verdict:
    # The line behind which an allowed difference would stand.
    source = profile.source("parity", aspect)
    both = ShowMlcheck("diff", (other.name,))
    findings = [
        Finding(d.subject, d.a, f"{d.b}, as in {other.name}", source, d.show or both)
        for d in compared.differences
        if allowances.reason(d, profile) is None
    ]
    if not compared.count and not findings:
        return skipped("; ".join(compared.missed) or "neither image has any")
    may = len(compared.differences) - len(findings)
    notes = [*compared.notes, *(f"not compared: {text}" for text in compared.missed)]
    notes += [f"{may} differences that the profile allows"] if may else []
    return judged(compared.count, findings, notes)
