"""Installed packages of an image, according to each package manager's own records."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import (
    command_result,
    how_it_ended,
    load_json,
    on_path,
    path_of,
    shortened,
)
from mlcheck.inspect.packages import python_packages, rpm_database, system_databases
from mlcheck.inspect.packages.facts import (
    HiddenPackage,
    InstalledPackage,
    InstalledPackages,
    PackageSource,
    Tellers,
)
from mlcheck.inspect.packages.python_packages import RECORD_LIMIT, PythonPackage
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix.facts import Environments, Prefix, Prefixes
from mlcheck.inspect.registry import fact
from mlcheck.model.environment import Environment
from mlcheck.model.errors import NothingRuns
from mlcheck.model.files import Problem

COMMAND_LIMIT_S = 60.0

_RPM_DIRECTORIES = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
_SQLITE = "rpmdb.sqlite"
_RPM_FORMAT = "%{NAME}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"
_NOT_READ = {"pacman": ("/var/lib/pacman/local",)}
_METADATA = (
    *(".dist-info/METADATA", ".egg-info/PKG-INFO", ".egg-info/METADATA", ".egg-info"),
    *(".egg/EGG-INFO/PKG-INFO", ".egg"),
)


@dataclass
class _Found:
    packages: list[InstalledPackage] = field(default_factory=list)
    sources: set[PackageSource] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unasked: set[str] = field(default_factory=set)
    unread: dict[str, str] = field(default_factory=dict)
    hidden: list[HiddenPackage] = field(default_factory=list)

    def problem(self, unreadable: Unreadable) -> None:
        self.problems.append(Problem(unreadable.path, unreadable.what))

    def add(self, fact: InstalledPackages) -> None:
        self.packages += fact.packages
        self.sources |= fact.sources
        self.problems += fact.problems
        self.notes += fact.notes
        self.unasked |= fact.unasked
        self.unread |= fact.unread
        self.hidden += fact.hidden

    def not_read(self, manager: str, why: str) -> None:
        self.notes.append(why)
        self.unread[manager] = why

    def fact(self) -> InstalledPackages:
        return InstalledPackages(
            packages=tuple(sorted(self.packages, key=_order)),
            sources=frozenset(self.sources),
            problems=tuple(self.problems),
            notes=tuple(self.notes),
            unasked=frozenset(self.unasked),
            unread=self.unread,
            hidden=tuple(self.hidden),
        )


@fact()
def installed_packages(image: OpenImage, ask: Ask, environments: Environments) -> InstalledPackages:
    """Find the packages that conda, pip, the system and micromamba have installed."""
    return probe(image, ask, environments)


def probe(image: OpenImage, static: Ask, environments: Prefixes) -> InstalledPackages:
    """Read every package database of the image.

    Args:
        environments: environments to search for packages of conda and Python.

    Raises:
        ProbeError: this machine forbids reading a record.
        EngineError: rpm or micromamba had to be run and the engine failed.
    """
    found = _Found()
    found.add(static(from_files, image.rootfs, environments))
    tellers = static(only_tellers, image.rootfs, image.environment)
    if (path := tellers.rpm_database) is not None:
        try:
            _ask_rpm(image, path, tellers.rpm, found)
        except NothingRuns as error:
            found.not_read("rpm", f"{path} is of a kind that only rpm reads: {error.what}")
    _ask_micromamba(image, tellers.micromamba, found)
    return found.fact()


def with_more(first: InstalledPackages, second: InstalledPackages) -> InstalledPackages:
    """Merge the packages of both."""
    found = _Found()
    found.add(first)
    found.add(second)
    return found.fact()


def from_files(rootfs: RootFS, environments: Prefixes) -> InstalledPackages:
    """Read all that needs no command: everything but micromamba and older rpm databases.

    Raises:
        ProbeError: this machine forbids reading a record.
    """
    found = _Found()
    _python(rootfs, environments, found)
    _notes(environments, found)
    _rpm(rootfs, found)
    for database in (system_databases.dpkg, system_databases.apk):
        found.add(database(rootfs))
    for manager, paths in _NOT_READ.items():
        for path in [path for path in paths if rootfs.resolve(path).final is not None][:1]:
            why = f"{path} is the database of {manager}, which mlcheck does not read."
            found.not_read(manager, why)
    return found.fact()


def only_tellers(rootfs: RootFS, environment: Environment) -> Tellers:
    """Find the programs that have to report what `from_files` cannot read."""
    path = path_of(environment.env)
    database = _rpm_database(rootfs)
    if database is not None and database.endswith(_SQLITE):
        database = None
    return Tellers(
        rpm_database=database,
        rpm=None if database is None else on_path(rootfs, "rpm", path),
        micromamba=on_path(rootfs, _micromamba(environment), path),
    )


def _micromamba(environment: Environment) -> str:
    return environment.env.get("MAMBA_EXE") or "/bin/micromamba"


def _order(package: InstalledPackage) -> tuple[str, str, str, str]:
    return package.source, package.name, package.version, package.record


def _notes(environments: Prefixes, found: _Found) -> None:
    """Note the sources that were looked for and do not exist."""
    named = [prefix.path for prefix in environments.found if not environments.looked_in]
    everywhere = f"in the image's {environments.looked_in} directories."
    if "conda" not in found.sources:
        where = [f"{path}/conda-meta" for path in named if path not in prefixes.SYSTEM]
        said = f"{' and '.join(where)} is no directory." if where else f"no conda-meta {everywhere}"
        if where or not named:
            found.notes.append(f"There are no conda records: {said}")
    if "dist-info" not in found.sources:
        where = [f"{path}/lib*/python*/site-packages" for path in named]
        said = f"no {' or '.join(where)}." if where else f"{environments.searched}."
        found.notes.append(f"There are no Python packages: {said}")
    found.problems += environments.problems


@dataclass
class _Records:
    """conda's records of a prefix, and the Python packages that they list.

    Args:
        owners: metadata, by the path to which it leads, to the name of its record.
        listed: name of a record to the names of the Python packages that it lists.
    """

    packages: list[InstalledPackage] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    listed: dict[str, set[str]] = field(default_factory=dict)


def _conda(rootfs: RootFS, prefix: Prefix, found: _Found) -> _Records:
    """Read conda-meta/*.json."""
    records = _Records()
    directory = f"{prefix.path}/conda-meta"
    if not _is_directory(rootfs, directory):
        return records
    found.sources.add("conda")
    for name in rootfs.listdir(directory):
        if not name.endswith(".json"):
            continue
        try:
            package, files = _conda_record(rootfs, f"{directory}/{name}")
        except Unreadable as unreadable:
            found.problem(unreadable)
            continue
        records.packages.append(dataclasses.replace(package, prefix=prefix.path))
        for file in files:
            if not file.endswith(_METADATA):
                continue
            # Who owns a file is told by where its path leads: lib/python3.1 is a link.
            for path in installed_paths(file, prefix):
                records.owners[rootfs.resolve(path).final_path] = package.name
            key = python_packages.key_of(file)
            records.listed.setdefault(package.name, set()).add(key)
    return records


def installed_paths(file: str, prefix: Prefix) -> list[str]:
    """Return the paths at which a file of a record may be; of a noarch package, the record may name
    it as the package does, in `site-packages/`."""
    if file.startswith("site-packages/"):
        return [f"{path}/{file.partition('/')[2]}" for path in prefix.packages]
    return [f"{prefix.path}/{file}"]


def _conda_record(rootfs: RootFS, path: str) -> tuple[InstalledPackage, list[str]]:
    """Read one record and its files."""
    record = load_json(rootfs.read(path, RECORD_LIMIT), path)
    if not isinstance(record, dict):
        raise Unreadable(path, "is no conda record: no JSON object")
    name, version, files = record.get("name"), record.get("version"), record.get("files", [])
    if not (isinstance(name, str) and name and isinstance(version, str) and version):
        raise Unreadable(path, "is no conda record: $.name and $.version must be text")
    if not (isinstance(files, list) and all(isinstance(file, str) for file in files)):
        raise Unreadable(path, "is no conda record: $.files must be a list of text")
    return InstalledPackage(name, version, "conda", path), files


def _python(rootfs: RootFS, environments: Prefixes, found: _Found) -> None:
    """Read conda's records, and `*.dist-info` and `*.egg-info` (PyPA's core metadata)."""
    records = {prefix.path: _conda(rootfs, prefix, found) for prefix in environments.found}
    for group in _groups(rootfs, environments):
        there = python_packages.find(rootfs, [(prefix.path, prefix.packages) for prefix in group])
        if any(prefix.packages for prefix in group):
            found.sources.add("dist-info")
        found.problems += [*there.problems, *there.doubled]
        found.hidden += there.hidden
        own: dict[str, list[tuple[PythonPackage, str]]] = defaultdict(list)
        for package in there.found:
            owner = records[package.root].owners.get(rootfs.resolve(package.path).final_path, "")
            own[package.key].append((package, owner))
            found.packages.append(
                InstalledPackage(
                    *(package.name, package.version, "dist-info", package.path),
                    owner=owner,
                    prefix=package.root,
                )
            )
        for prefix in group:
            known = records[prefix.path]
            found.packages += [
                dataclasses.replace(one, replaced=_replaced(one, known.listed.get(one.name), own))
                for one in known.packages
            ]


def _groups(rootfs: RootFS, environments: Prefixes) -> list[list[Prefix]]:
    """Return the environments that one Python has on its path together: /usr/local and /usr, unless
    /usr/local has a Python of its own; and what is behind a virtual environment that was given."""
    if (
        not environments.looked_in
        and environments.found[:1]
        and environments.found[0].kind == "venv"
    ):
        return [list(environments.found)]
    by_path = {prefix.path: prefix for prefix in environments.found}
    together = [by_path[path] for path in prefixes.SYSTEM if path in by_path]
    first = together[:1]
    if first and any(
        rootfs.resolve(f"{path.rpartition('/')[0]}/os.py").final for path in first[0].packages
    ):
        together = []
    apart = [[one] for one in environments.found if one not in together]
    return [together, *apart] if together else apart


def _replaced(
    record: InstalledPackage,
    listed: set[str] | None,
    own: Mapping[str, Sequence[tuple[PythonPackage, str]]],
) -> str:
    """Return what Python finds in place of what a record of conda's lists, or ""."""
    for key in sorted(listed or ()):
        there = own.get(key, ())
        if there and all(owner != record.name for _, owner in there):
            package = there[0][0]
            if package.version != record.version:
                return f"{package.version} in {package.path}"
    return ""


def _rpm_database(rootfs: RootFS) -> str | None:
    for name in (_SQLITE, "Packages", "Packages.db"):
        for directory in _RPM_DIRECTORIES:
            if rootfs.resolve(f"{directory}/{name}").file is not None:
                return f"{directory}/{name}"
    return None


def _rpm(rootfs: RootFS, found: _Found) -> None:
    path = _rpm_database(rootfs)
    if path is None:
        found.notes.append("There is no rpm database.")
    elif path.endswith(_SQLITE):
        try:
            found.packages += rpm_database.read_sqlite(rootfs, path)
            found.sources.add("rpm")
        except Unreadable as unreadable:
            found.problem(unreadable)
            found.unread["rpm"] = str(unreadable)


def _ask_rpm(image: OpenImage, path: str, rpm: str | None, found: _Found) -> None:
    """Leave Berkeley DB (CentOS 7) and ndb (SUSE) to the image's own rpm."""
    if rpm is None:
        why = f"{path} was not read: its format needs rpm, which the image has not."
        found.not_read("rpm", why)
        return
    argv = ["rpm", "-qa", "--qf", _RPM_FORMAT]
    result = command_result(image.run(argv, limit_s=COMMAND_LIMIT_S))
    if result.ended != "exited" or result.exit_code != 0:
        why = f"{path} was not read: rpm {how_it_ended(result, COMMAND_LIMIT_S)}."
        found.not_read("rpm", why)
        return
    found.sources.add("rpm")
    for line in result.stdout.splitlines():
        words = line.split("\t")
        if len(words) != 3 or not all(words):
            found.problems.append(Problem(path, f"gives through rpm the line {shortened(line)}"))
            continue
        arch = "" if words[2] == "(none)" else words[2]
        found.packages.append(InstalledPackage(words[0], words[1], "rpm", path, arch))


def _ask_micromamba(image: OpenImage, path: str | None, found: _Found) -> None:
    if path is None:
        program = _micromamba(image.environment)
        found.notes.append(f"There is no micromamba: {program} is no program in the image.")
        return
    try:
        result = command_result(image.run([path, "--version"], limit_s=COMMAND_LIMIT_S))
    except NothingRuns as error:
        found.unasked.add("micromamba")
        found.notes.append(f"The version of micromamba is not known: {error.what}")
        return
    if result.ended != "exited" or result.exit_code != 0:
        how = how_it_ended(result, COMMAND_LIMIT_S)
        found.problems.append(Problem(path, f"--version {how}"))
        return
    lines = result.stdout.split()
    if not lines or not re.fullmatch(r"[0-9][0-9A-Za-z.+-]*", lines[-1]):
        what = f"--version gives no version but {shortened(result.stdout)}"
        found.problems.append(Problem(path, what))
        return
    found.sources.add("micromamba")
    found.packages.append(InstalledPackage("micromamba", lines[-1], "micromamba", path))


def _is_directory(rootfs: RootFS, path: str) -> bool:
    final = rootfs.resolve(path).final
    return final is not None and final.type == "directory"
