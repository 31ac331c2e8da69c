"""Packages that were requested by name, among hundreds, and the modules to import of them.

conda writes it into `conda-meta/history` (see requested.py), pip and uv mark it with a file
REQUESTED: https://packaging.python.org/en/latest/specifications/recording-installed-packages/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.conda.facts import CondaRecords
from mlcheck.inspect.packages.facts import (
    AskedFor,
    AskedPackage,
    Distributions,
    InstalledPackage,
    InstalledPackages,
    Requested,
)

RECORD_LIMIT = 16 * 1024 * 1024
MANY = 60
"""Number of packages that nobody requests by name: a tool marked all that it installed."""

_MODULE = re.compile(r"(?:^|.*/site-packages/)([A-Za-z_]\w*)(?:/__init__|(?:\.[\w-]+)?)\.(?:py|so)")


def probe(
    rootfs: RootFS,
    installed: InstalledPackages,
    history: Requested,
    records: CondaRecords | None,
    distributions: Distributions,
) -> AskedFor:
    """Find the packages of conda's history and those with a mark of pip's; if there are neither,
    those that no other package requires.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    conda = [p for p in installed.packages if p.source == "conda" and p.name in history.names]
    own = [p for p in installed.packages if p.source == "dist-info" and not p.owner]
    marked = [p for p in own if _is_marked(rootfs, p)]
    how = [history.source] if conda else []
    if len(marked) > MANY:
        marked = _leaves(marked, distributions)
        how += ["pip's marks, but for what another package requires"]
    elif marked:
        how += ["pip's marks (REQUESTED)"]
    leaves = not conda and not marked
    if leaves:
        every = [p for p in installed.packages if p.source == "dist-info"]
        marked = _leaves(every, distributions)[:MANY]
        how = ["what no other package requires"]
    by_package = _modules_of_conda(records) if records else {}
    # A package without files represents others: matplotlib for matplotlib-base.
    all_modules = {module for modules in by_package.values() for module in modules}
    found = [_asked(p, by_package.get(p.name) or _named_alike(p.name, all_modules)) for p in conda]
    found += [_asked(p, _modules_of(rootfs, p)) for p in marked]
    once = {canonicalize_name(p.name): p for p in reversed(found)}
    return AskedFor(tuple(once[name] for name in sorted(once)), "; ".join(how), leaves)


def module_of(package: AskedPackage) -> str | bool:
    """Return the name by which Python imports a package; True: its own name; False: none."""
    own = package.name.replace("-", "_")
    if own in package.modules:
        return True
    alike = [m for m in package.modules if m.lower() == own.lower()]
    short = [m for m in package.modules if m.lower() in own.lower() or own.lower() in m.lower()]
    best = [*alike, *short, *package.modules]
    return best[0] if best else False


def _asked(package: InstalledPackage, modules: Iterable[str]) -> AskedPackage:
    public = sorted({name for name in modules if not name.startswith("_")})
    return AskedPackage(package.name, package.version, package.source, tuple(public))


def _is_marked(rootfs: RootFS, package: InstalledPackage) -> bool:
    return rootfs.lstat(f"{_metadata(package)}/REQUESTED") is not None


def _metadata(package: InstalledPackage) -> str:
    """Return the directory `NAME.dist-info` of a package, whose record is a file in it."""
    return package.record.rpartition("/")[0]


def _leaves(
    packages: Sequence[InstalledPackage], distributions: Distributions
) -> list[InstalledPackage]:
    needed = set()
    for one in distributions.distributions:
        for line in one.requires:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            if requirement.marker is None or "extra" not in str(requirement.marker):
                needed.add(canonicalize_name(requirement.name))
    return [p for p in packages if canonicalize_name(p.name) not in needed]


def _named_alike(name: str, modules: Iterable[str]) -> list[str]:
    own = name.replace("-", "_").lower()
    return [module for module in modules if module.lower() == own]


def _modules_of_conda(records: CondaRecords) -> dict[str, set[str]]:
    """Return the modules at the top of site-packages that each package brings."""
    found: dict[str, set[str]] = {}
    for file in records.files:
        if "/site-packages/" in file.path and file.path.endswith((".py", ".so")):
            match = _MODULE.fullmatch(file.path)
            if match is not None:
                found.setdefault(file.package, set()).add(match[1])
    return found


def _modules_of(rootfs: RootFS, package: InstalledPackage) -> list[str]:
    """Return the modules that a package's RECORD lists at the top of site-packages."""
    try:
        record = rootfs.read(f"{_metadata(package)}/RECORD", RECORD_LIMIT)
    except Unreadable:
        return []
    paths = (line.partition(",")[0] for line in record.decode("utf-8", "replace").splitlines())
    return [match[1] for path in paths if (match := _MODULE.fullmatch(path))]
