"""What is installed in an image, as each package manager's own records say."""

from __future__ import annotations

import dataclasses
import email.message
import email.parser
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mlcheck.engines.base import Ask, OpenImage, RootFS, Unreadable
from mlcheck.errors import NothingRuns
from mlcheck.facts import (
    Environment,
    InstalledPackage,
    InstalledPackages,
    PackageSource,
    Prefix,
    Prefixes,
    Problem,
    Tellers,
)
from mlcheck.probes import prefixes, rpm_database
from mlcheck.probes.reading import (
    command_result,
    how_it_ended,
    load_json,
    on_path,
    path_of,
    shortened,
)

RECORD_LIMIT = 32 * 1024 * 1024
"""Bytes of one record; conda's largest, with tens of thousands of files, have a few MB."""

DPKG_LIMIT = 64 * 1024 * 1024
"""Bytes of dpkg's status file; a full desktop's has 5 MB."""

COMMAND_LIMIT_S = 60.0

_HEADER_LIMIT = 1024 * 1024

_RPM_DIRECTORIES = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
_SQLITE = "rpmdb.sqlite"
_RPM_FORMAT = "%{NAME}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"
_DPKG_STATUS = "/var/lib/dpkg/status"
_DPKG_STATUS_D = "/var/lib/dpkg/status.d"
_NOT_READ = {
    "apk": ("/lib/apk/db/installed", "/usr/lib/apk/db/installed"),
    "pacman": ("/var/lib/pacman/local",),
}


@dataclass
class _Found:
    packages: list[InstalledPackage] = field(default_factory=list)
    sources: set[PackageSource] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unasked: set[str] = field(default_factory=set)
    unread: dict[str, str] = field(default_factory=dict)

    def problem(self, unreadable: Unreadable) -> None:
        self.problems.append(Problem(unreadable.path, unreadable.what))

    def add(self, fact: InstalledPackages) -> None:
        self.packages += fact.packages
        self.sources |= fact.sources
        self.problems += fact.problems
        self.notes += fact.notes
        self.unasked |= fact.unasked
        self.unread |= fact.unread

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
        )


def probe(image: OpenImage, static: Ask, environments: Prefixes) -> InstalledPackages:
    """Read every package database of the image.

    Args:
        environments: in which to look for packages of conda and Python.

    Raises:
        ProbeError: this machine forbids reading a record.
        EngineError: rpm or micromamba had to be asked and the engine failed.
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
    """The packages of both."""
    found = _Found()
    found.add(first)
    found.add(second)
    return found.fact()


def from_files(rootfs: RootFS, environments: Prefixes) -> InstalledPackages:
    """What can be read without running anything: all but micromamba and older rpm databases.

    Raises:
        ProbeError: this machine forbids reading a record.
    """
    found = _Found()
    for prefix in environments.found:
        _python(rootfs, prefix, _conda(rootfs, prefix, found), found)
    _notes(environments, found)
    _rpm(rootfs, found)
    _dpkg(rootfs, found)
    for manager, paths in _NOT_READ.items():
        for path in [path for path in paths if rootfs.resolve(path).final is not None][:1]:
            why = f"{path} is the database of {manager}, which mlcheck does not read."
            found.not_read(manager, why)
    return found.fact()


def only_tellers(rootfs: RootFS, environment: Environment) -> Tellers:
    """Which programs have to be asked for what `from_files` cannot read."""
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
    """What was looked for and is not there."""
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


def _conda(rootfs: RootFS, prefix: Prefix, found: _Found) -> dict[str, str]:
    """conda-meta/*.json; returns the Python metadata files they list, to the record's name."""
    owners: dict[str, str] = {}
    directory = f"{prefix.path}/conda-meta"
    if not _is_directory(rootfs, directory):
        return owners
    found.sources.add("conda")
    for name in rootfs.listdir(directory):
        if not name.endswith(".json"):
            continue
        try:
            package, files = _conda_record(rootfs, f"{directory}/{name}")
        except Unreadable as unreadable:
            found.problem(unreadable)
            continue
        found.packages.append(dataclasses.replace(package, prefix=prefix.path))
        for file in files:
            if file.endswith((".dist-info/METADATA", ".egg-info/PKG-INFO", ".egg-info")):
                owners[f"{prefix.path}/{file}"] = package.name
    return owners


def _conda_record(rootfs: RootFS, path: str) -> tuple[InstalledPackage, list[str]]:
    """One record and its files."""
    record = load_json(rootfs.read(path, RECORD_LIMIT), path)
    if not isinstance(record, dict):
        raise Unreadable(path, "is no conda record: no JSON object")
    name, version, files = record.get("name"), record.get("version"), record.get("files", [])
    if not (isinstance(name, str) and name and isinstance(version, str) and version):
        raise Unreadable(path, "is no conda record: $.name and $.version must be text")
    if not (isinstance(files, list) and all(isinstance(file, str) for file in files)):
        raise Unreadable(path, "is no conda record: $.files must be a list of text")
    return InstalledPackage(name, version, "conda", path), files


def _python(rootfs: RootFS, prefix: Prefix, owners: dict[str, str], found: _Found) -> None:
    """`*.dist-info` and `*.egg-info` in site-packages (PyPA's core metadata)."""
    for directory in prefix.packages:
        found.sources.add("dist-info")
        for path in metadata_files(rootfs, directory):
            try:
                package = _python_package(rootfs, path, owners.get(path, ""))
            except Unreadable as unreadable:
                found.problem(unreadable)
            else:
                found.packages.append(dataclasses.replace(package, prefix=prefix.path))


def metadata_files(rootfs: RootFS, directory: str) -> Iterator[str]:
    """The metadata of each Python package in the site-packages `directory`."""
    for name in rootfs.listdir(directory):
        path = f"{directory}/{name}"
        if name.endswith(".dist-info"):
            yield f"{path}/METADATA"
        elif name.endswith(".egg-info"):
            # distutils wrote one file, setuptools a directory.
            yield f"{path}/PKG-INFO" if _is_directory(rootfs, path) else path
        elif name.endswith(".egg") and _is_directory(rootfs, path):
            yield f"{path}/EGG-INFO/PKG-INFO"  # easy_install's, which Python finds too


def metadata_header(rootfs: RootFS, path: str) -> email.message.Message:
    """The header of a Python package's metadata.

    Raises:
        Unreadable: there is no such file, or its header is too large.
        ProbeError: this machine forbids reading it.
    """
    content = rootfs.read(path, RECORD_LIMIT)
    # Only the header: the long description behind the first empty line is not ours to parse.
    header = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0]
    if len(header) > _HEADER_LIMIT:
        raise Unreadable(path, f"has a header of more than {_HEADER_LIMIT} bytes")
    return email.parser.BytesHeaderParser().parsebytes(header)


def _python_package(rootfs: RootFS, path: str, owner: str) -> InstalledPackage:
    message = metadata_header(rootfs, path)
    name, version = str(message.get("Name", "")).strip(), str(message.get("Version", "")).strip()
    if not name or not version:
        raise Unreadable(path, "has no Name and Version of a Python package")
    return InstalledPackage(name, version, "dist-info", path, owner=owner)


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
    """Berkeley DB (CentOS 7) and ndb (SUSE) are left to the image's own rpm."""
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


def _dpkg(rootfs: RootFS, found: _Found) -> None:
    # status.d is what distroless images have; it also holds lists of checksums.
    names = (name for name in rootfs.listdir(_DPKG_STATUS_D) if not name.endswith(".md5sums"))
    paths = [f"{_DPKG_STATUS_D}/{name}" for name in names]
    if rootfs.resolve(_DPKG_STATUS).file is not None:
        paths.append(_DPKG_STATUS)
    if not paths:
        found.notes.append("There is no dpkg database.")
    for path in paths:
        try:
            content = rootfs.read(path, DPKG_LIMIT).decode("utf-8", "replace")
        except Unreadable as unreadable:
            found.problem(unreadable)
            found.unread["dpkg"] = str(unreadable)
            continue
        found.sources.add("dpkg")
        for fields in stanzas(content):
            # "install ok installed"; without Status, as in status.d, all that is there is.
            if fields.get("Status", "installed").split()[-1:] != ["installed"]:
                continue
            name, version = fields.get("Package", ""), fields.get("Version", "")
            if not name or not version:
                what = f"has an entry without Package or Version: {shortened(str(fields))}"
                found.problems.append(Problem(path, what))
                continue
            version = version.partition(":")[2] or version
            arch = fields.get("Architecture", "")
            found.packages.append(InstalledPackage(name, version, "dpkg", path, arch))


def stanzas(content: str) -> Iterator[dict[str, str]]:
    """The stanzas of deb822(5), without continuation lines."""
    fields: dict[str, str] = {}
    for line in io.StringIO(content):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            key, _, value = line.partition(":")
            fields[key] = value.strip()
    if fields:
        yield fields


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
