"""Files against conda's records, requirements of packages, and the base's packages."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mlcheck.inspect.conda.facts import (
    ByteCode,
    CondaRecord,
    CondaRecords,
    FileContents,
    FileDifference,
    FilePresence,
    Replacements,
)
from mlcheck.inspect.conda.match_spec import MatchSpec, NotUnderstood
from mlcheck.inspect.packages.facts import (
    BasePackages,
    Distribution,
    Distributions,
    ListedPackages,
)
from mlcheck.inspect.prefix.facts import CondaPrefix
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

_NOTED = 5
"""Names in a note; the rest is counted."""
# Distributions that conda-forge gives under another name and partly without a dist-info.
_CONDA_NAMES = {
    "graphviz": ("python-graphviz",),
    "matplotlib": ("matplotlib-base",),
    "opencv-python": ("py-opencv", "opencv"),
    "opencv-python-headless": ("py-opencv", "opencv"),
    "tensorflow": ("tensorflow-base", "tensorflow-cpu", "tensorflow-gpu"),
    "tensorflow-cpu": ("tensorflow-base", "tensorflow"),
    "tensorflow-gpu": ("tensorflow-base", "tensorflow"),
    "torch": ("pytorch", "pytorch-gpu", "pytorch-cpu"),
}


@rule("conda-files-present", keys=["prefix"], also=["integrity.removed"])
def test_conda_files_present(
    files: FilePresence, recorded: CondaRecords, profile: Profile
) -> Verdict:
    """Every file that a conda-meta record lists is there, but for what the profile says is removed
    on purpose; byte code may be missing.

    Why: Builds delete files to save space, and conda goes on saying that the package is installed
    (https://github.com/conda/conda/issues/16590).

    Fix: Install the package again; a build that deletes files to save space must remove the
    package, or say in integrity.removed of the profile why they are deleted.
    """
    findings = [
        Finding(p.path, p.what, "a readable record", show=ShowFile("cat -v", p.path))
        for p in recorded.problems
    ]
    removed = []
    for missing in files.missing:
        if _is_named(missing.path, profile.expect.integrity.removed):
            removed.append(missing.path)
        else:
            findings.append(_finding(missing))
    if files.more:
        found = f"{files.more} more recorded files are missing"
        show = ShowFile("ls -la", f"{recorded.prefix}/conda-meta")
        findings.append(Finding(recorded.prefix, found, "the files of its packages", show=show))
    notes = []
    if removed:
        notes.append(f"{len(removed)} are removed on purpose: {_some(removed)}")
    if files.uncompiled:
        notes.append(f"{files.uncompiled} files of byte code are not there: Python makes them anew")
    if not files.compared and not recorded.records and not findings:
        records = f"{recorded.prefix}/conda-meta"
        found = "no package is recorded there"
        show = ShowFile("ls -la", records)
        findings.append(Finding(records, found, "a record of each conda package", show=show))
    nothing = f"none of the {len(recorded.records)} conda packages lists a file"
    return judged(files.compared, findings, notes, nothing=nothing)


@rule(
    "conda-files-unchanged",
    keys=["prefix"],
    also=["integrity.edited", "integrity.replaced"],
    slow=True,
)
def test_conda_files_unchanged(
    conda: CondaPrefix, contents: FileContents, code: ByteCode, profile: Profile
) -> Verdict:
    """Every file of a conda package has the content that its record tells, but for what the profile
    says is edited on purpose; and byte code that Python does not check is of its source.

    Why: What is edited by hand or overwritten by another package is lost with the next update, and
    differs from what others have (https://github.com/conda/conda/issues/13574,
    https://github.com/mamba-org/mamba/issues/3967).

    Fix: Install the package again, or say in integrity.edited of the profile why it is edited.
    """
    integrity = profile.expect.integrity
    named = [*integrity.edited, *integrity.replacements()]
    findings, edited = [], []
    for changed in contents.changed:
        if _is_named(changed.path, named):
            edited.append(changed.path)
        else:
            findings.append(_finding(changed))
    findings += [
        Finding(
            stale.path,
            f"{stale.found}, and says that Python is not to check it",
            f"byte code of {stale.source}",
            show=ShowFile("ls -l", stale.path, (stale.source,)),
        )
        for stale in code.stale
        if not _is_named(stale.path, named)
    ]
    notes = [f"{contents.hashed} files with {contents.size / 1e6:.0f} MB were read"]
    if contents.relocated:
        notes.append(f"{contents.relocated} have the prefix put in, as recorded")
    if edited:
        notes.append(f"{len(edited)} are edited on purpose: {_some(edited)}")
    if contents.rewritten:
        notes.append(
            f"{len(contents.rewritten)} scripts differ in the first line alone: "
            f"{_some(contents.rewritten)}"
        )
    unjudged = [d.path for d in contents.unjudged if not _is_named(d.path, named)]
    untried = [
        f"{len(unjudged)} files could not be judged, because the record only knows them as they "
        f"were before the prefix was put in: {_some(unjudged)}"
    ]
    if not contents.compared and not findings:
        return not_tried(
            "no conda record tells the content of a file that is there (see conda-files-present)"
        )
    return judged(contents.compared, findings, notes, untried if unjudged else ())


@rule("conda-files-replaced", keys=["integrity.replaced"], slow=True)
def test_conda_files_replaced(
    contents: FileContents,
    recorded: CondaRecords,
    replacements: Replacements,
    profile: Profile,
) -> Verdict:
    """The files that the image replaces on purpose are not the conda package's own, and are what
    the profile says; a library is at least a library.

    Why: The AlmaLinux images of usatlas/ML-Containers put the system's OpenSSL in place of conda's;
    an update of the package would silently take it back (their Dockerfiles).

    Fix: Put the replacement there in the image's build, after the last installation.
    """
    promised = profile.expect.integrity.replacements()
    if not promised:
        return skipped("the profile names no file that is replaced on purpose")
    changed = {difference.path for difference in contents.changed}
    problems = {file.path: file for file in replacements.files if file.problem}
    findings = []
    compared = 0
    for glob, one in promised.items():
        why = one.why
        source = profile.source("integrity", "replaced", glob)
        owners = {f.path: f.package for f in recorded.files if fnmatch.fnmatchcase(f.path, glob)}
        if not owners:
            # The last part without `*`: whatever record names it would be shown.
            last = max(re.split(r"[*?\[\]]", glob.rpartition("/")[2]), key=len)
            show = ShowFile(
                shlex.join(["grep", "-rlF", "--", last]), f"{recorded.prefix}/conda-meta"
            )
            wanted = f"a replaced one: {why}"
            findings.append(Finding(glob, "a file of no conda package", wanted, source, show))
        for path, package in owners.items():
            compared += 1
            if path not in changed:
                show = ShowFile("sha256sum", path)
                found = f"the file of the package {package}"
                findings.append(Finding(path, found, f"another one: {why}", source, show))
            elif (file := problems.get(path)) is not None:
                wanted = f"the same as {file.by}: {why}" if file.by else f"a library: {why}"
                show = ShowFile("sha256sum", path, (file.by,) if file.by else ())
                findings.append(Finding(path, file.problem, wanted, source, show))
    return judged(compared, findings)


@rule("python-requirements", keys=["prefix"])
def test_python_requirements(installed: Distributions, recorded: CondaRecords) -> Verdict:
    """Every installed Python package is there once, and finds what it requires, in a version that
    fits, as `pip check` asks.

    Why: pip installs over conda's packages without asking conda, and ends with 0 when the result
    does not fit together (https://pip.pypa.io/en/stable/cli/pip_check/).

    Fix: Install the missing package, or pin the two versions so that they fit.
    """
    versions: defaultdict[str, set[str]] = defaultdict(set)
    for distribution in installed.distributions:
        versions[canonicalize_name(distribution.name)].add(distribution.version)
    conda: dict[str, str] = {
        canonicalize_name(record.name): record.version for record in recorded.records
    }
    environment = _markers(installed, recorded)
    findings = [
        Finding(p.path, p.what, "one version", show=ShowFile("ls", p.path.rsplit("/", 2)[0]))
        for p in installed.doubled
    ]
    strange = []
    compared = 0
    for distribution in installed.distributions:
        for text in distribution.requires:
            if _only_for_an_extra(text):
                continue
            try:
                requirement = Requirement(text)
                applies = not requirement.marker or requirement.marker.evaluate(environment)
            except UndefinedEnvironmentName as unknown:
                # `extras` and `dependency_groups` are variables of lock files alone (PEP 751).
                findings.append(_unanswered(distribution, text, f"its marker asks for {unknown}"))
                continue
            except (InvalidRequirement, ValueError):
                # Metadata of long ago; pip passes it over too.
                strange.append(f"{distribution.name}: {text}")
                continue
            if not applies:
                continue
            compared += 1
            name = canonicalize_name(requirement.name)
            there = versions[name]
            others = [conda[n] for n in (name, *_CONDA_NAMES.get(name, ())) if n in conda]
            try:
                if any(requirement.specifier.contains(v, prereleases=True) for v in _valid(there)):
                    continue
                if not there and _any_fits(requirement, others):
                    continue
            except ValueError as why:  # a number of thousands of digits
                findings.append(_unanswered(distribution, text, str(why)))
                continue
            found = f"{requirement.name} {' and '.join(sorted(there))}" if there else "missing"
            findings.append(
                Finding(
                    f"{distribution.name} -> {requirement.name}",
                    found if there else f"{requirement.name} is not installed",
                    f"{distribution.name} {distribution.version} requires {text}",
                    show=ShowRun(("python3", "-m", "pip", "check")),
                )
            )
    notes = [f"{len(strange)} requirements are not written as PEP 508 asks: {_some(strange)}"]
    # Packages that require nothing have been judged, too.
    return judged(
        compared or len(installed.distributions),
        findings,
        notes if strange else (),
        nothing=f"no Python package is installed in {recorded.prefix}",
    )


@rule("conda-depends", keys=["prefix"])
def test_conda_depends(prefix: CondaPrefix, recorded: CondaRecords) -> Verdict:
    """Every conda package finds what it depends on among the records, in a version and build that
    fit as conda compares them.

    Why: Packages that were removed with --force, or copied in, leave records whose needs nobody
    fulfils; conda itself does not look
    (https://docs.conda.io/projects/conda/en/latest/dev-guide/api/conda/models/records/).

    Fix: Install the missing package with micromamba; never remove packages with --force.
    """
    by_name: defaultdict[str, list[CondaRecord]] = defaultdict(list)
    for record in recorded.records:
        by_name[record.name.lower()].append(record)
    findings = []
    compared = 0
    for record in recorded.records:
        for text in record.depends:
            if text.lstrip().startswith("__"):
                continue  # of the machine, such as its C library
            compared += 1
            name, found = _unfulfilled(text, by_name)
            if not found:
                continue
            there = by_name[name][0].record if by_name.get(name) else None
            findings.append(
                Finding(
                    f"{record.name} -> {name}",
                    found,
                    f"{record.name} {record.version} depends on {text}",
                    show=_needs(record, name, there, prefix),
                )
            )
    if not recorded.records and not findings:
        return not_tried("no conda package is recorded (see conda-files-present)")
    return judged(compared or len(recorded.records), findings)


@rule("packages-of-base", keys=["packages.contains_base"], also=["packages.list"])
def test_packages_of_base(listed: ListedPackages, base: BasePackages, profile: Profile) -> Verdict:
    """Every package of the base image is in this one too; its version may differ.

    Why: A derived image is promised to have all that ml-base has, and a solver may remove packages
    to fulfil a new one (README of usatlas/ML-Containers, "Image Types").

    Fix: Build the image from the base of the same tag, and remove none of its packages.
    """
    there = {canonicalize_name(entry.name) for entry in listed.entries}
    source = profile.source("packages", "contains_base")
    findings = [
        Finding(
            entry.name,
            "not in the list",
            f"a line, as the base has it ({base.path}:{entry.line})",
            source,
            ShowFile(shlex.join(["grep", "-inF", "--", entry.name]), listed.path),
        )
        for entry in base.entries
        if canonicalize_name(entry.name) not in there
    ]
    if not base.entries:
        findings = [Finding(base.path, "no package in it", "the base's packages", source)]
    return judged(len(base.entries), findings)


def _finding(difference: FileDifference) -> Finding:
    packages = " and ".join(difference.packages)
    tool = "sha256sum" if "SHA-256" in difference.found else "ls -ld"
    expected = f"{difference.recorded} of {packages}"
    return Finding(
        difference.path, difference.found, expected, show=ShowFile(tool, difference.path)
    )


def _unanswered(distribution: Distribution, text: str, why: str) -> Finding:
    """A requirement on which `pip check` ends with an error."""
    return Finding(
        f"{distribution.name} -> {text[:80]}",
        f"a requirement that cannot be compared: {why}",
        "one of PEP 508, as pip reads it",
        show=ShowRun(("python3", "-m", "pip", "check")),
    )


def _only_for_an_extra(text: str) -> bool:
    """Whether a requirement's marker plainly is of an extra, as most are: such a one is not
    parsed, which takes 0.1 ms."""
    marker = text.partition(";")[2]
    return "extra ==" in marker and " or " not in marker


def _markers(installed: Distributions, recorded: CondaRecords) -> dict[str, str]:
    """The environment of PEP 508's markers in the image."""
    full = next((r.version for r in recorded.records if r.name == "python"), "")
    full = full or installed.python or "3"
    subdirs = {record.subdir for record in recorded.records} - {"noarch", ""}
    machine = min(subdirs, default="linux-64").partition("-")[2]
    return {
        "extra": "",
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": {"64": "x86_64"}.get(machine, machine),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": ".".join(full.split(".")[:2]),
        "sys_platform": "linux",
    }


def _valid(versions: Iterable[str]) -> list[Version]:
    found = []
    for text in versions:
        try:
            found.append(Version(text))
        except ValueError:  # no version of PEP 440, or one with a number of thousands of digits
            continue
    return found


def _any_fits(requirement: Requirement, versions: Iterable[str]) -> bool:
    """Whether one of conda's versions fits; one that PEP 440 does not know does."""
    return any(
        not _valid([version]) or requirement.specifier.contains(version, prereleases=True)
        for version in versions
    )


def _unfulfilled(text: str, by_name: Mapping[str, Sequence[CondaRecord]]) -> tuple[str, str]:
    """The name that a dependency asks for, and what is there instead of what fits, or ""."""
    try:
        spec = MatchSpec.of(text)
    except NotUnderstood as why:
        return text, f"not understood: {why}"
    there = by_name.get(spec.name)
    if not there:
        return spec.name, f"{spec.name} is not installed"
    try:
        # Of two records of one name, which conda refuses, both have to fit.
        if all(spec.fits(one.version, one.build) for one in there):
            return spec.name, ""
    except NotUnderstood as why:
        return spec.name, f"not understood: {why}"
    # The build is told where it matters.
    build = "" if spec.build == "*" else " {0.build}"
    return spec.name, " and ".join(f"{spec.name} {one.version}{build.format(one)}" for one in there)


def _needs(record: CondaRecord, name: str, other: str | None, prefix: str) -> ShowFile:
    """What the one package asks for, and the version of the other; or that there is none."""
    if other is None:
        return ShowFile("ls", f"{prefix}/conda-meta")
    # A name has no other sign that means something in a pattern.
    pattern = f'"version": *"[^"]*"|"{name.replace(".", "[.]")}( [^"]*)?"'
    return ShowFile(shlex.join(["grep", "-oE", pattern]), record.record, (other,))


def _is_named(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, glob) for glob in globs)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _NOTED} more" if len(listed) > _NOTED else ""
    return ", ".join(listed[:_NOTED]) + more
