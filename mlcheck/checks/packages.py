"""The package list against what is installed, against its checked-in copy, and the promises."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name

from mlcheck.facts import Imports, InstalledPackage, InstalledPackages, ListedPackage, PackageList
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, Show, ShowFile, ShowHere, ShowRun, Source, Verdict

READABLE = Rule(
    "package-list-readable",
    "The image holds its package list, and every line of it is a package with its version.",
    "Write the list again at the end of the image's build, one `name version` per line.",
    "The list is how users learn what an image has without starting it, and what "
    '`run-ml_container.sh` shows (README of usatlas/ML-Containers, "Listing Packages in ML '
    'Images").',
    keys=("packages.list",),
)
LIST_INSTALLED = Rule(
    "package-list-installed",
    "The package list names exactly what is installed, with its version.",
    "Write the list after the last installation of the image's build, not before.",
    "A list that was written before the last installation, or by hand, tells users of packages "
    "that are not there; `conda list NAME` does not help, it ends with 0 either way "
    "(https://github.com/conda/conda/issues/15074).",
    keys=("packages.list", "packages.system"),
)
LIST_CHECKED_IN = Rule(
    "package-list-checked-in",
    "The package list in the image is the one that is checked in.",
    "If the change is wanted, check the image's list in; if not, pin the package in the build.",
    "The copy in the repository is what a reviewer sees of an update; a rebuild alone brings "
    'other versions (README of usatlas/ML-Containers, "Listing Packages in ML Images").',
    keys=(
        "packages.list",
        "packages.checked_in",
    ),
)
PROMISED = Rule(
    "packages-promised",
    "Every promised package is installed in a promised version.",
    "Install the package in the image's build, or correct the promise in the profile.",
    "The README names these packages, and analyses count on their versions (README of "
    'usatlas/ML-Containers, "Packages in Image ml-base").',
    keys=("packages.required",),
)
IMPORTS = Rule(
    "imports",
    "Every promised module can be imported in the image's own Python.",
    "Import it in the image; the traceback above its last line names what is missing.",
    "An installed package need not import: a library of the system is missing, or another "
    "package has the wrong version. The tests of StatCan/aaw-kubeflow-containers and of "
    "jupyter/docker-stacks import each for that reason.",
    keys=("packages.required",),
)

# What rpm's and dpkg's lists put behind a name (rpm --showrc; Debian's architectures).
_ARCHITECTURE = re.compile(r".+\.(x86_64|aarch64|ppc64le|s390x|i[3-6]86|noarch|amd64|arm64|all)")


def readable(listed: PackageList) -> Verdict:
    """The list exists, has entries, and has no line that is something else."""
    findings = [
        Finding(p.path, p.what, "`name version`", show=ShowFile("cat -A", listed.path))
        for p in listed.problems
    ]
    if not listed.entries and not findings:
        findings.append(
            Finding(
                listed.path,
                "no package in it",
                "one package per line",
                show=ShowFile("cat -A", listed.path),
            )
        )
    return READABLE.judged(len(listed.entries), findings)


@dataclass
class _Versions:
    """All that is known about one package, under its canonical name.

    `due` are the installed packages that the list owes a line, `known` all installed ones.
    """

    listed: list[ListedPackage] = field(default_factory=list)
    due: list[InstalledPackage] = field(default_factory=list)
    known: list[InstalledPackage] = field(default_factory=list)


def list_installed(listed: PackageList, installed: InstalledPackages, profile: Profile) -> Verdict:
    """Compare the list with conda's records, dist-info, the system's database and micromamba.

    Names are compared as PyPA and conda users write them: case, `-`, `_` and `.` alike. One name
    may have several versions (conda's xxhash is a C library, pip's a Python package). A
    dist-info that a conda record lists among its files is that package, and needs no line of its
    own.
    """
    packages: dict[str, _Versions] = defaultdict(_Versions)
    for entry in listed.entries:
        packages[_canonical(entry.name)].listed.append(entry)
    wanted = set(profile.expect.packages.system)
    for package in installed.packages:
        name = package.name
        if package.source in ("rpm", "dpkg"):
            name = f"{package.name}.{package.arch}"
        versions = packages[_canonical(name)]
        versions.known.append(package)
        system = package.source in ("rpm", "dpkg")
        if (not system and not package.owner) or (system and package.name in wanted):
            versions.due.append(package)
    findings = [
        finding
        for name in sorted(packages)
        if name not in installed.unasked
        and (finding := _difference(packages[name], listed, installed, profile)) is not None
    ]
    findings += _system_findings(listed, installed, profile)
    findings += [
        Finding(p.path, p.what, "a readable record", show=ShowFile("cat -v", p.path))
        for p in installed.problems
    ]
    compared = min(len(listed.entries), len(installed.packages))
    if not listed.entries and not findings:
        return LIST_INSTALLED.not_tried(f"{listed.path} has no package (see package-list-readable)")
    untried = installed.notes if installed.unasked else ()
    notes = () if untried else installed.notes
    return LIST_INSTALLED.judged(compared, findings, notes, untried)


def _difference(
    versions: _Versions, listed: PackageList, installed: InstalledPackages, profile: Profile
) -> Finding | None:
    known = {package.version for package in versions.known}
    lines = {entry.version for entry in versions.listed}
    missing = [entry for entry in versions.listed if entry.version not in known]
    extra = [package for package in versions.due if package.version not in lines]
    if missing and _is_system(missing[0].name) and not installed.sources & {"rpm", "dpkg"}:
        missing = []  # _system_findings says it once for all of them
    if not missing and not extra:
        return None
    subject = missing[0].name if missing else extra[0].name
    there = extra or versions.known
    found = " and ".join(sorted({f"{p.version} ({p.source})" for p in there})) or "not installed"
    if missing:
        expected = " and ".join(f"{entry.version} (line {entry.line})" for entry in missing)
    else:
        others = f" beside {', '.join(sorted(lines))}" if lines else ""
        expected = f"a line in {listed.path}{others}"
    if there:
        show = _version_of(there[0])
    elif _is_system(subject):
        show = _in_database(subject.rpartition(".")[0], installed)
    elif installed.packages:
        show = _not_there(subject, installed, profile)
    else:
        show = ShowFile(_grep(subject), listed.path)
    return Finding(subject, found, expected, show=show)


def _system_findings(
    listed: PackageList, installed: InstalledPackages, profile: Profile
) -> Iterator[Finding]:
    """The promised system packages that are not installed or cannot be looked up."""
    if installed.sources & {"rpm", "dpkg"}:
        there = {p.name for p in installed.packages if p.source in ("rpm", "dpkg")}
        for index, name in enumerate(profile.expect.packages.system):
            if name not in there:
                source = profile.source("packages", "system", index)
                found = "not in the system's package database"
                yield Finding(name, found, "installed", source, _in_database(name, installed))
    elif any(_is_system(entry.name) for entry in listed.entries):
        why = "; ".join(installed.notes) or "the image has none"
        yield Finding(
            "system packages",
            f"no database of rpm or dpkg could be read: {why}",
            "the packages that the list names with their architecture",
            show=ShowFile("ls -ld", "/var/lib/rpm", ("/usr/lib/sysimage/rpm", _DPKG)),
        )


def list_checked_in(listed: PackageList, checked_in: PackageList) -> Verdict:
    """Compare the list in the image with its checked-in copy, both ways."""
    there: dict[str, set[str]] = defaultdict(set)
    for entry in listed.entries:
        there[_canonical(entry.name)].add(entry.version)
    wanted: dict[str, list[ListedPackage]] = defaultdict(list)
    for entry in checked_in.entries:
        wanted[_canonical(entry.name)].append(entry)
    names = {_canonical(entry.name): entry.name for entry in (*listed.entries, *checked_in.entries)}
    findings = []
    for name in sorted(names):
        versions = {entry.version for entry in wanted[name]}
        if versions == there[name]:
            continue
        source = Source(checked_in.path, wanted[name][0].line) if wanted[name] else None
        findings.append(
            Finding(
                names[name],
                " and ".join(sorted(there[name])) or "not in the image's list",
                " and ".join(sorted(versions)) or f"not in {checked_in.path}",
                source,
                ShowFile(_grep(names[name]), listed.path),
            )
        )
    findings += [
        Finding(p.path, p.what, "`name version`", show=ShowHere(("cat", "-v", checked_in.path)))
        for p in checked_in.problems
    ]
    if not checked_in.entries and not findings:
        show = ShowHere(("cat", "-v", checked_in.path))
        copy = "a copy of the image's list"
        findings = [Finding(checked_in.path, "no package in it", copy, show=show)]
    return LIST_CHECKED_IN.judged(len(checked_in.entries), findings)


def promised(installed: InstalledPackages, profile: Profile) -> Verdict:
    """Every package of `packages.required` is installed, in a version that fits."""
    required = profile.expect.packages.required
    if not required:
        return PROMISED.skipped("the profile promises no package")
    versions: dict[str, list[InstalledPackage]] = defaultdict(list)
    for package in installed.packages:
        versions[_canonical(package.name)].append(package)
    findings = []
    for name, promise in required.items():
        there = versions[_canonical(name)]
        if any(fnmatch.fnmatchcase(p.version, promise.version) for p in there):
            continue
        if name in installed.unasked:
            continue
        found = " and ".join(sorted({f"{p.version} ({p.source})" for p in there}))
        expected = "any version" if promise.version == "*" else promise.version
        source = profile.source("packages", "required", name, "version")
        show = _version_of(there[0]) if there else _not_there(name, installed, profile)
        findings.append(Finding(name, found or "not installed", expected, source, show))
    compared = len(required.keys() - installed.unasked)
    if not compared:
        return PROMISED.not_tried(" ".join(installed.notes))
    return PROMISED.judged(
        compared, findings, untried=installed.notes if required.keys() & installed.unasked else ()
    )


def imports(results: Imports, profile: Profile) -> Verdict:
    """Every module of the promised packages was imported."""
    modules = profile.expect.packages.modules()
    if not modules:
        return IMPORTS.skipped("the profile promises no module")
    package_of = {module: name for name, module in modules.items()}
    findings = [
        Finding(
            result.module,
            result.error,
            "imports",
            profile.source("packages", "required", package_of.get(result.module, ""), "import"),
            ShowRun(("python3", "-c", f"import {result.module}")),
        )
        for result in results.results
        if result.error is not None
    ]
    tried = {result.module for result in results.results}
    findings += [
        Finding(module, "not tried", "imports", show=ShowRun(("python3", "-c", f"import {module}")))
        for module in modules.values()
        if module not in tried
    ]
    return IMPORTS.judged(len(results.results), findings)


_DPKG = "/var/lib/dpkg/status"


def _grep(name: str) -> str:
    """What shows the lines about a package, or that there is none."""
    return shlex.join(["grep", "-inF", "--", name])


def _version_of(package: InstalledPackage) -> Show:
    """How a person sees the version that a package's record tells."""
    match package.source:
        case "conda":
            return ShowFile(_VERSION, package.record)
        case "dist-info" | "R":
            return ShowFile(_VERSION, package.record)
        case "micromamba":
            return ShowRun((package.record, "--version"))
        case "rpm":
            return ShowRun(("rpm", "-q", package.name))
        case "dpkg":
            words = ["grep", "-A9", "-Fx", f"Package: {package.name}"]
            return ShowFile(shlex.join(words), package.record or _DPKG)


_VERSION = shlex.join(["grep", "-oiE", '"?version"?: *"?[^",]*'])


def _not_there(name: str, installed: InstalledPackages, profile: Profile) -> Show:
    """How a person sees that a package is not installed: where the others of its kind are."""
    records = {p.record for p in installed.packages if p.source in ("conda", "dist-info")}
    prefix = f"{profile.expect.prefix or ''}/"
    places = sorted(
        {_directory(r) for r in records if r.startswith(prefix)} or {_directory(r) for r in records}
    )
    if not places:
        return _in_database(name, installed)
    return ShowFile("ls", places[0], tuple(places[1:]))


def _directory(record: str) -> str:
    """The directory with the records of all packages: conda-meta, or site-packages."""
    parent = record.rpartition("/")[0]
    return parent.rpartition("/")[0] if parent.endswith("-info") else parent


def _in_database(name: str, installed: InstalledPackages) -> Show:
    if "dpkg" in installed.sources:
        return ShowFile(shlex.join(["grep", "-A9", "-Fx", f"Package: {name}"]), _DPKG)
    return ShowRun(
        ("rpm", "-q", name) if "rpm" in installed.sources else ("python3", "-m", "pip", "list")
    )


def _canonical(name: str) -> str:
    """conda's `_libgcc_mutex` and PyPI's `asdf-standard` under one rule (PEP 503)."""
    return canonicalize_name(name)


def _is_system(name: str) -> bool:
    return _ARCHITECTURE.fullmatch(name) is not None
