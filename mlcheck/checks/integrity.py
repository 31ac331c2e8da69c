"""conda's records against the files, what packages need of each other, and the base's packages."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from mlcheck.facts import (
    CondaRecord,
    CondaRecords,
    Distributions,
    FileContents,
    FileDifference,
    FilePresence,
    PackageList,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Verdict

PRESENT = Rule(
    "conda-files-present",
    "Every file that a conda-meta record lists is there; byte code may be missing.",
    "Install the package again; a build that deletes files to save space must remove the package.",
    "Builds delete files to save space, and conda goes on saying that the package is installed "
    "(https://github.com/conda/conda/issues/16590).",
    keys=("prefix",),
)
UNCHANGED = Rule(
    "conda-files-unchanged",
    "Every file of a conda package has the content that its record tells, but for what the "
    "profile says is edited on purpose.",
    "Install the package again, or say in integrity.edited of the profile why it is edited.",
    "What is edited by hand or overwritten by another package is lost with the next update, and "
    "differs from what others have (https://github.com/conda/conda/issues/13574, "
    "https://github.com/mamba-org/mamba/issues/3967).",
    keys=("prefix",),
)
REPLACED = Rule(
    "conda-files-replaced",
    "The files that the image replaces on purpose are not the conda package's own.",
    "Put the replacement there in the image's build, after the last installation.",
    "The AlmaLinux images of usatlas/ML-Containers put the system's OpenSSL in place of conda's; "
    "an update of the package would silently take it back (their Dockerfiles).",
    keys=("integrity.replaced",),
)
REQUIREMENTS = Rule(
    "python-requirements",
    "Every installed Python package finds what it requires, in a version that fits, as `pip check` "
    "asks.",
    "Install the missing package, or pin the two versions so that they fit.",
    "pip installs over conda's packages without asking conda, and ends with 0 when the result "
    "does not fit together (https://pip.pypa.io/en/stable/cli/pip_check/).",
    keys=("prefix",),
)
DEPENDS = Rule(
    "conda-depends",
    "Every conda package finds what it depends on among the records.",
    "Install the missing package with micromamba; never remove packages with --force.",
    "Packages that were removed with --force, or copied in, leave records whose needs nobody "
    "fulfils; conda itself does not look "
    "(https://docs.conda.io/projects/conda/en/latest/dev-guide/api/conda/models/records/).",
    keys=("prefix",),
)
BASE = Rule(
    "packages-of-base",
    "Every package of the base image is in this one too; its version may differ.",
    "Build the image from the base of the same tag, and remove none of its packages.",
    "A derived image is promised to have all that ml-base has, and a solver may remove packages "
    'to fulfil a new one (README of usatlas/ML-Containers, "Image Types").',
    keys=("packages.contains_base",),
)

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


def present(fact: FilePresence, recorded: CondaRecords) -> Verdict:
    """Every recorded file, and every record, can be found."""
    findings = [
        Finding(p.path, p.what, "a readable record", show=ShowFile("cat -v", p.path))
        for p in recorded.problems
    ]
    findings += [_finding(missing) for missing in fact.missing]
    notes = []
    if fact.uncompiled:
        notes.append(f"{fact.uncompiled} files of byte code are not there: Python makes them anew")
    if not fact.compared and not recorded.records and not findings:
        records = f"{recorded.prefix}/conda-meta"
        found = "no package is recorded there"
        show = ShowFile("ls -la", records)
        findings.append(Finding(records, found, "a record of each conda package", show=show))
    nothing = f"none of the {len(recorded.records)} conda packages lists a file"
    return PRESENT.judged(fact.compared, findings, notes, nothing=nothing)


def unchanged(fact: FileContents, profile: Profile) -> Verdict:
    """Hashes of all files, but for those that the profile names."""
    integrity = profile.expect.integrity
    named = [*integrity.edited, *(glob for glob, why in integrity.replaced.items() if why)]
    findings, edited = [], []
    for changed in fact.changed:
        if any(fnmatch.fnmatchcase(changed.path, glob) for glob in named):
            edited.append(changed.path)
        else:
            findings.append(_finding(changed))
    notes = [f"{fact.hashed} files with {fact.size / 1e6:.0f} MB were read"]
    if fact.relocated:
        notes.append(f"{fact.relocated} have the prefix put in, as recorded")
    if edited:
        notes.append(f"{len(edited)} are edited on purpose: {_some(edited)}")
    if fact.rewritten:
        notes.append(
            f"{len(fact.rewritten)} scripts differ in the first line alone: {_some(fact.rewritten)}"
        )
    if fact.unjudged:
        notes.append(
            f"{len(fact.unjudged)} could not be judged, because the record only knows them as "
            f"they were before the prefix was put in: {_some([d.path for d in fact.unjudged])}"
        )
    if not fact.compared and not findings:
        return UNCHANGED.not_tried(
            "no conda record tells the content of a file that is there (see conda-files-present)"
        )
    return UNCHANGED.judged(fact.compared, findings, notes)


def replaced(fact: FileContents, recorded: CondaRecords, profile: Profile) -> Verdict:
    """Files of `integrity.replaced` belong to a package and are not as it has them."""
    promised = {glob: why for glob, why in profile.expect.integrity.replaced.items() if why}
    if not promised:
        return REPLACED.skipped("the profile names no file that is replaced on purpose")
    changed = {difference.path for difference in fact.changed}
    findings = []
    compared = 0
    for glob, why in promised.items():
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
    return REPLACED.judged(compared, findings)


def _finding(difference: FileDifference) -> Finding:
    packages = " and ".join(difference.packages)
    tool = "sha256sum" if "SHA-256" in difference.found else "ls -ld"
    expected = f"{difference.recorded} of {packages}"
    return Finding(
        difference.path, difference.found, expected, show=ShowFile(tool, difference.path)
    )


def requirements(fact: Distributions, recorded: CondaRecords) -> Verdict:
    """Requires-Dist of every package, with markers for the image's own Python and machine.

    Extras are off, as for `pip check`. A requirement that no dist-info fulfils may be fulfilled by
    a conda package of that name: some of conda-forge's have none.
    """
    versions: defaultdict[str, set[str]] = defaultdict(set)
    for distribution in fact.distributions:
        versions[canonicalize_name(distribution.name)].add(distribution.version)
    conda: dict[str, str] = {
        canonicalize_name(record.name): record.version for record in recorded.records
    }
    environment = _markers(fact, recorded)
    findings, strange = [], []
    compared = 0
    for distribution in fact.distributions:
        for text in distribution.requires:
            if _only_for_an_extra(text):
                continue
            try:
                requirement = Requirement(text)
                applies = not requirement.marker or requirement.marker.evaluate(environment)
            except (InvalidRequirement, ValueError):
                # Metadata of long ago; pip passes it over too.
                strange.append(f"{distribution.name}: {text}")
                continue
            if not applies:
                continue
            compared += 1
            name = canonicalize_name(requirement.name)
            there = versions[name]
            if any(requirement.specifier.contains(v, prereleases=True) for v in _valid(there)):
                continue
            others = [conda[n] for n in (name, *_CONDA_NAMES.get(name, ())) if n in conda]
            if not there and _any_fits(requirement, others):
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
    return REQUIREMENTS.judged(
        compared or len(fact.distributions),
        findings,
        notes if strange else (),
        nothing=f"no Python package is installed in {recorded.prefix}",
    )


def _only_for_an_extra(text: str) -> bool:
    """Whether a requirement's marker plainly is of an extra, as most are: such a one is not
    parsed, which takes 0.1 ms."""
    marker = text.partition(";")[2]
    return "extra ==" in marker and " or " not in marker


def _markers(fact: Distributions, recorded: CondaRecords) -> dict[str, str]:
    """The environment of PEP 508's markers in the image."""
    full = next((r.version for r in recorded.records if r.name == "python"), "")
    full = full or fact.python or "3"
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
        except InvalidVersion:
            continue
    return found


def _any_fits(requirement: Requirement, versions: Iterable[str]) -> bool:
    """Whether one of conda's versions fits; one that PEP 440 does not know does."""
    return any(
        not _valid([version]) or requirement.specifier.contains(version, prereleases=True)
        for version in versions
    )


def depends(recorded: CondaRecords) -> Verdict:
    """`depends` of every record: by name, and by version as far as PEP 440 knows it too.

    Virtual packages (`__glibc`) are the machine's. Builds are not compared.
    """
    versions: Mapping[str, str] = {record.name: record.version for record in recorded.records}
    records = {record.name: record.record for record in recorded.records}
    findings = []
    compared = 0
    for record in recorded.records:
        for text in record.depends:
            # MatchSpec: [channel::]name [version [build]], or with a bracket of fields.
            match = re.match(r"(?:\S+::)?([A-Za-z0-9_.-]+)\s*([^\s\[]*)", text.strip())
            if match is None or match[1].startswith("__"):
                continue
            compared += 1
            name, spec = match[1].lower(), match[2]
            if name not in versions:
                found = f"{name} is not installed"
            elif not conda_version_fits(versions[name], spec):
                found = f"{name} {versions[name]}"
            else:
                continue
            findings.append(
                Finding(
                    f"{record.name} -> {name}",
                    found,
                    f"{record.name} {record.version} depends on {text}",
                    show=_needs(record, name, records.get(name), recorded.prefix),
                )
            )
    if not recorded.records and not findings:
        return DEPENDS.not_tried("no conda package is recorded (see conda-files-present)")
    return DEPENDS.judged(compared or len(recorded.records), findings)


def _needs(record: CondaRecord, name: str, other: str | None, prefix: str) -> ShowFile:
    """What the one package asks for, and the version of the other; or that there is none."""
    if other is None:
        return ShowFile("ls", f"{prefix}/conda-meta")
    # A name has no other sign that means something in a pattern.
    pattern = f'"version": *"[^"]*"|"{name.replace(".", "[.]")}( [^"]*)?"'
    return ShowFile(shlex.join(["grep", "-oE", pattern]), record.record, (other,))


_CONSTRAINT = re.compile(r"(>=|<=|==|!=|>|<)([0-9][0-9a-z.]*)")


def conda_version_fits(version: str, spec: str) -> bool:
    """Whether a version fits a version spec of conda.

    True also for what is not judged: fuzzy and compatible versions (`=1.2`, `~=1.2`, a bare
    `1.2`) other than with a star at the end, and versions that PEP 440 does not know.
    """
    return any(
        all(_constraint_fits(version, constraint) for constraint in alternative.split(","))
        for alternative in spec.split("|")
    )


def _constraint_fits(version: str, constraint: str) -> bool:
    if re.fullmatch(r"[0-9][0-9.]*\.\*", constraint):
        return f"{version}.".startswith(constraint[:-1])
    match = _CONSTRAINT.fullmatch(constraint)
    pair = _valid([version, match[2]]) if match else []
    if match is None or len(pair) != 2:
        return True
    there, wanted = pair
    match match[1]:
        case ">=":
            return there >= wanted
        case "<=":
            return there <= wanted
        case ">":
            return there > wanted
        case "<":
            return there < wanted
        case "==":
            return there == wanted
        case _:
            return there != wanted


def of_base(listed: PackageList, base: PackageList | None, profile: Profile) -> Verdict:
    """The names of the base image's package list are among this image's.

    Args:
        base: None when the profile extends no other.
    """
    if not profile.expect.packages.contains_base:
        return BASE.skipped("the profile does not promise its base's packages")
    if base is None:
        return BASE.skipped(f"{profile.name} extends no other image")
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
    return BASE.judged(len(base.entries), findings)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _NOTED} more" if len(listed) > _NOTED else ""
    return ", ".join(listed[:_NOTED]) + more
