"""The packages of R in an image.

A package is a directory of a library with a DESCRIPTION in Debian's control format: "Writing R
Extensions", 1.1.1. The libraries are those of R's own build, of Debian's, and of conda's.
"""

from __future__ import annotations

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.conda import records as conda_records
from mlcheck.inspect.packages.facts import InstalledPackage, InstalledPackages
from mlcheck.inspect.packages.system_databases import stanzas
from mlcheck.inspect.prefix.facts import Prefixes
from mlcheck.model.files import Problem

SIZE_LIMIT = 1024 * 1024
"""Bytes of one DESCRIPTION; real ones have a few KB."""

_LIBRARIES = (
    "/usr/local/lib/R/site-library",
    "/usr/local/lib/R/library",
    "/usr/lib/R/site-library",
    "/usr/lib/R/library",
    "/usr/lib64/R/library",
)


def probe(rootfs: RootFS, environments: Prefixes) -> InstalledPackages:
    """Read the DESCRIPTION of every package of the system and of conda.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    found: list[InstalledPackage] = []
    problems: list[Problem] = []
    owners: dict[str, str] = {}
    libraries = dict.fromkeys(_LIBRARIES, "")
    for prefix in environments.found:
        library = f"{prefix.path}/lib/R/library"
        if library not in libraries and rootfs.listdir(library):
            libraries[library] = prefix.path
            recorded = conda_records.read(rootfs, prefix.path).files
            owners |= {f.path: f.package for f in recorded if f.path.endswith("/DESCRIPTION")}
    for library, path_of_prefix in libraries.items():
        for name in rootfs.listdir(library):
            path = f"{library}/{name}/DESCRIPTION"
            if rootfs.resolve(path).final is None:
                continue
            try:
                content = rootfs.read(path, SIZE_LIMIT).decode("utf-8", "replace")
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
                continue
            fields = next(stanzas(content), {})
            package, version = fields.get("Package", ""), fields.get("Version", "")
            if not package or not version:
                problems.append(Problem(path, "has no Package and Version of a package of R"))
                continue
            owner = owners.get(path, "")
            found.append(
                InstalledPackage(package, version, "R", path, owner=owner, prefix=path_of_prefix)
            )
    return InstalledPackages(tuple(found), frozenset({"R"} if found else ()), tuple(problems))
