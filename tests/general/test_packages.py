"""The package list, the installed packages, and the promised ones."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Sequence

from packaging.utils import canonicalize_name

from mlcheck.inspect.packages import list_differences, shown
from mlcheck.inspect.packages.facts import (
    CheckedInPackages,
    InstalledPackage,
    InstalledPackages,
    ListedPackage,
    ListedPackages,
    ModuleImports,
)
from mlcheck.model.rule import rule
from mlcheck.model.verdict import (
    Finding,
    ShowFile,
    ShowHere,
    ShowRun,
    Source,
    Verdict,
    judged,
    not_tried,
    skipped,
)
from mlcheck.profile.catalog import Profile
from mlcheck.profile.schema.contents import Package


@rule("package-list-readable", keys=["packages.list"], also=["packages.sorted"])
def test_package_list_readable(listed: ListedPackages, profile: Profile) -> Verdict:
    """The image holds its package list, and every line of it is a package with its version, in the
    promised order.

    Why: The list is how users learn what an image has without starting it, and what
    `run-ml_container.sh` shows (README of usatlas/ML-Containers, "Listing Packages in ML Images").

    Fix: Write the list again at the end of the image's build, one `name version` per line.
    """
    findings = [
        Finding(p.path, p.what, "`name version`", show=ShowFile("cat -A", listed.path))
        for p in listed.problems
    ]
    late = _out_of_order(listed.entries) if profile.expect.packages.sorted else []
    if late:
        more = f", and {len(late) - 1} more" if len(late) > 1 else ""
        found = f"{late[0].name} {late[0].version} comes after a later line{more}"
        source = profile.source("packages", "sorted")
        show = ShowFile("cat -n", listed.path)
        subject = f"{listed.path}:{late[0].line}"
        findings.append(Finding(subject, found, "sorted regardless of case", source, show))
    if not listed.entries and not findings:
        findings.append(
            Finding(
                listed.path,
                "no package in it",
                "one package per line",
                show=ShowFile("cat -A", listed.path),
            )
        )
    return judged(len(listed.entries), findings)


def _out_of_order(entries: Sequence[ListedPackage]) -> list[ListedPackage]:
    keys = [f"{entry.name} {entry.version}".upper() for entry in entries]
    return [entries[at] for at in range(1, len(keys)) if keys[at] < keys[at - 1]]


@rule("package-list-installed", keys=["packages.list"], also=["packages.system"])
def test_package_list_installed(
    listed: ListedPackages, installed: InstalledPackages, profile: Profile
) -> Verdict:
    """The package list names exactly what is installed, with its version.

    Why: A list that was written before the last installation, or by hand, tells users of packages
    that are not there; `conda list NAME` does not help, it ends with 0 either way
    (https://github.com/conda/conda/issues/15074).

    Fix: Write the list after the last installation of the image's build, not before.
    """
    findings = list_differences.differences(listed, installed, profile)
    compared = min(len(listed.entries), len(installed.packages))
    if not listed.entries and not findings:
        return not_tried(f"{listed.path} has no package (see package-list-readable)")
    unread = list_differences.unread(installed)
    untried = installed.notes if installed.unasked else unread
    notes = () if untried else installed.notes
    return judged(compared, findings, notes, untried)


@rule("package-list-checked-in", keys=["packages.list"], also=["packages.checked_in"])
def test_package_list_checked_in(listed: ListedPackages, checked_in: CheckedInPackages) -> Verdict:
    """The package list in the image is the one that is checked in.

    Why: The copy in the repository is what a reviewer sees of an update; a rebuild alone brings
    other versions (README of usatlas/ML-Containers, "Listing Packages in ML Images").

    Fix: If the change is wanted, check the image's list in; if not, pin the package in the build.
    """
    there: dict[str, set[str]] = defaultdict(set)
    for entry in listed.entries:
        there[canonicalize_name(entry.name)].add(entry.version)
    wanted: dict[str, list[ListedPackage]] = defaultdict(list)
    for entry in checked_in.entries:
        wanted[canonicalize_name(entry.name)].append(entry)
    names = {
        canonicalize_name(entry.name): entry.name
        for entry in (*listed.entries, *checked_in.entries)
    }
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
                ShowFile(shown.lines_about(names[name]), listed.path),
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
    return judged(len(checked_in.entries), findings)


@rule("packages-promised", keys=["packages.required"])
def test_packages_promised(installed: InstalledPackages, profile: Profile) -> Verdict:
    """Every promised package is installed in a promised version; of a Python package, it is the one
    that Python finds.

    Why: The README names these packages, and analyses count on their versions (README of
    usatlas/ML-Containers, "Packages in Image ml-base").

    Fix: Install the package in the image's build, or correct the promise in the profile.
    """
    required = profile.expect.packages.required
    versions: dict[str, list[InstalledPackage]] = defaultdict(list)
    for package in installed.packages:
        versions[canonicalize_name(package.name)].append(package)
    hidden: dict[str, list[str]] = defaultdict(list)
    for one in installed.hidden:
        hidden[canonicalize_name(one.name)].append(f"{one.version} in {one.path}, but {one.why}")
    unread = () if profile.expect.prefix else list_differences.unread(installed)
    directories = shown.records(installed, profile)
    findings, untried = [], set()
    for name, promise in required.items():
        there = versions[canonicalize_name(name)]
        if _is_kept(promise, there):
            continue
        if name in installed.unasked:
            untried.add(name)
            continue
        if not there and unread and promise.module is False:
            untried.add(name)  # it may be one of the system's
            continue
        found = " and ".join(sorted({_told(p) for p in there}) or hidden[canonicalize_name(name)])
        expected = "any version" if promise.version == "*" else promise.version
        source = profile.source("packages", "required", name, "version")
        show = (
            shown.version_of(there[0]) if there else shown.not_there(name, installed, directories)
        )
        findings.append(Finding(name, found or "not installed", expected, source, show))
    compared = len(required.keys() - untried - installed.unasked)
    why = installed.notes if untried & installed.unasked else unread
    if not compared:
        return not_tried(" ".join(why or installed.notes))
    return judged(compared, findings, untried=why if untried else ())


def _is_kept(promise: Package, there: Sequence[InstalledPackage]) -> bool:
    """Return whether the packages of a promised name are of a promised version.

    One name may be two things: conda's xxhash is a library in C, pip's a Python package. Of what
    is imported, the version that Python finds counts, or that of conda's record for it.
    """

    def fits(package: InstalledPackage) -> bool:
        return fnmatch.fnmatchcase(package.version, promise.version)

    python = [p for p in there if p.source == "dist-info"]
    owners = {(p.owner, p.prefix) for p in python}
    conda = {(p.name, p.prefix): p for p in there if p.source == "conda"}
    records = [conda.get((p.owner, p.prefix)) for p in python]
    imported = bool(python) and all(
        fits(p) or (record is not None and fits(record))
        for p, record in zip(python, records, strict=True)
    )
    if imported or (python and promise.module is not False):
        return imported
    others: dict[tuple[str, str], list[InstalledPackage]] = defaultdict(list)
    for p in there:
        if p not in python and not p.replaced and (p.name, p.prefix) not in owners:
            others[p.source, p.prefix].append(p)
    return any(all(map(fits, alike)) for alike in others.values())


def _told(package: InstalledPackage) -> str:
    replaced = f", but Python finds {package.replaced}" if package.replaced else ""
    return f"{package.version} ({package.source}{replaced})"


@rule("imports", keys=["packages.required"], slow=True)
def test_imports(imports: ModuleImports, installed: InstalledPackages, profile: Profile) -> Verdict:
    """Every promised module can be imported in the image's own Python, from its own package in its
    installed version.

    Why: An installed package need not import: a library of the system is missing, or another
    package has the wrong version. The tests of StatCan/aaw-kubeflow-containers and of
    jupyter/docker-stacks import each for that reason.

    Fix: Import it in the image; the traceback above its last line names what is missing.
    """
    modules = profile.expect.packages.modules()
    if not modules:
        return skipped("the profile promises no module")
    package_of = {module: name for name, module in modules.items()}
    findings = [
        Finding(
            result.module,
            result.error,
            "imports",
            profile.source("packages", "required", package_of.get(result.module, ""), "import"),
            ShowRun(("python3", "-c", f"import {result.module}")),
        )
        for result in imports.results
        if result.error is not None
    ]
    versions: dict[str, set[str]] = defaultdict(set)
    for package in installed.packages:
        if package.source == "dist-info":
            versions[canonicalize_name(package.name)].add(package.version)
    for result in imports.results:
        name = package_of.get(result.module, "")
        there = versions[canonicalize_name(name)]
        if result.version and there and result.version not in there:
            found = f"Python finds {name} {result.version}"
            expected = f"{' or '.join(sorted(there))}, which is installed"
            program = f"from importlib.metadata import distribution as d; print(d({name!r})._path)"
            show = ShowRun(("python3", "-c", program))
            source = profile.source("packages", "required", name)
            findings.append(Finding(result.module, found, expected, source, show))
    tried = {result.module for result in imports.results}
    findings += [
        Finding(module, "not tried", "imports", show=ShowRun(("python3", "-c", f"import {module}")))
        for module in modules.values()
        if module not in tried
    ]
    return judged(len(imports.results), findings)
