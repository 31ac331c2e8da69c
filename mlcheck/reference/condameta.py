"""conda's records of installed packages, `conda-meta/NAME-VERSION-BUILD.json`, and its history.

The format is PrefixRecord, as conda, mamba and rattler write it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlcheck.reference import tree
from mlcheck.reference.dist_info import record_rows
from mlcheck.reference.python import PREFIX, SITE, VERSION

META = f"{PREFIX}/conda-meta"
CHANNEL = "https://conda.example/conda-forge"
PLACEHOLDER = "/home/conda/feedstock_root/build_artifacts/reference/_h_env_placehold_placehold_pla"
"""Placeholder for the prefix in a package (conda-build's has 255 characters)."""

INSTALLED = datetime(2025, 4, 15, 12, 0, tzinfo=UTC)

# conda-forge's names of Python packages that differ from the distribution's.
_NAMES = {
    "fastjsonschema": "python-fastjsonschema",
    "matplotlib": "matplotlib-base",
    "plotly-express": "plotly_express",
    "seaborn": "seaborn-base",
    "tensorflow": "tensorflow-base",
    "tensorflow-cpu": "tensorflow-base",
    "torch": "pytorch",
    "tzdata": "python-tzdata",
    "uproot": "uproot-base",
    "xgboost": "py-xgboost",
    "xxhash": "python-xxhash",
}
# Packages of conda-forge that contain only a dependency on the package above.
_META_PACKAGES = {
    "matplotlib-base": "matplotlib",
    "py-xgboost": "xgboost",
    "seaborn-base": "seaborn",
    "tensorflow-base": "tensorflow",
    "uproot-base": "uproot",
}


@dataclass(frozen=True, slots=True)
class CondaPackage:
    """The contents of a package's record.

    Args:
        files: paths below the prefix ("bin/root.exe").
        hashes: (SHA-256 in hex, bytes) of files as the package has them, if they are known already,
            or if the image's builders changed the file.
        requested: the spec by which it was requested, "" for a dependency.
    """

    name: str
    version: str
    build: str
    license: str = ""
    depends: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    hashes: dict[str, tuple[str, int]] = field(default_factory=dict)
    noarch: bool = False
    requested: str = ""

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch else "linux-64"


def build_string(name: str, python: bool = True) -> str:
    """Make a build string as conda-build does: tag, "h", seven hex digits, number."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:7]
    return f"py{VERSION.replace('.', '')}h{digest}_0" if python else f"h{digest}_0"


def write(root: Path, packages: Iterable[CondaPackage]) -> None:
    """Write the records, and a history that mentions them."""
    records = sorted(packages, key=lambda package: package.name)
    for package in records:
        text = json.dumps(_record(root, package), indent=2, sort_keys=True)
        tree.write(root, f"{META}/{package.stem}.json", text + "\n")
    history = tree.at(root, f"{META}/history")
    before = history.read_text() if history.exists() else ""
    specs = [package.requested for package in records if package.requested]
    lines = [
        f"==> {INSTALLED:%Y-%m-%d %H:%M:%S} <==",
        "# cmd: micromamba install -y -c conda-forge " + " ".join(specs),
        *(f"+{CHANNEL}/{package.subdir}::{package.stem}" for package in records),
        f"# update specs: {json.dumps(specs)}",
    ]
    tree.write(root, f"{META}/history", before + "\n".join(lines) + "\n")


def python_packages(
    root: Path, requested: Iterable[str], infos: Iterable[Path] | None = None
) -> list[CondaPackage]:
    """Make records for all dist-info directories, with the files of their RECORD.

    Args:
        infos: use only these dist-info directories.
    """
    asked: set[str] = {canonicalize_name(name) for name in requested}
    found = []
    there = sorted(tree.at(root, SITE).glob("*.dist-info"))
    names = [_metadata(info)["Name"] for info in there]
    conda_names: dict[str, str] = {canonicalize_name(name): _conda_name(name) for name in names}
    for info in there if infos is None else sorted(infos):
        package = _from_dist_info(root, info, asked, conda_names)
        found.append(package)
        meta = _META_PACKAGES.get(package.name)
        if meta:
            found.append(
                CondaPackage(
                    meta,
                    package.version,
                    "pyhd8ed1ab_0",
                    package.license,
                    (f"{package.name} >={package.version}",),
                    noarch=True,
                    requested=meta,
                )
            )
    return found


def files_below(root: Path, *tops: str) -> tuple[str, ...]:
    """List every file below some directories, or the files themselves, relative to the prefix."""
    found = []
    for top in tops:
        start = tree.at(root, top)
        if start.is_dir() and not start.is_symlink():
            for directory, _, names in os.walk(start):
                found += [f"{directory}/{name}" for name in names]
        else:
            found.append(str(start))
    prefix = tree.at(root, PREFIX)
    return tuple(sorted(os.path.relpath(name, prefix) for name in found))


def _metadata(info: Path) -> Message:
    return HeaderParser().parsestr((info / "METADATA").read_text())


def _conda_name(name: str) -> str:
    return _NAMES.get(canonicalize_name(name), name.lower())


def _from_dist_info(
    root: Path, info: Path, asked: set[str], conda_names: Mapping[str, str]
) -> CondaPackage:
    metadata = _metadata(info)
    noarch = "Root-Is-Purelib: true" in (info / "WHEEL").read_text()
    name = metadata["Name"]
    files, hashes = [], {}
    for path, digest, size in record_rows(info / "RECORD"):
        inside = os.path.relpath(f"{SITE}/{path}", PREFIX)
        files.append(inside)
        if digest:
            raw = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "==")
            hashes[inside] = (raw.hex(), int(size))
        if own := _before_builders(inside, tree.at(root, f"{PREFIX}/{inside}")):
            hashes[inside] = (hashlib.sha256(own).hexdigest(), len(own))
        if inside.endswith(".py"):
            cached = cache_from_source(inside)
            if tree.at(root, f"{PREFIX}/{cached}").exists():
                files.append(cached)
    conda_name = _conda_name(name)
    license_line = metadata["License-Expression"] or metadata["License"] or ""
    return CondaPackage(
        conda_name,
        metadata["Version"],
        "pyhd8ed1ab_0" if noarch else build_string(name),
        license_line.splitlines()[0][:80] if license_line else "",
        _depends(metadata.get_all("Requires-Dist") or [], conda_names),
        tuple(sorted(set(files))),
        hashes,
        noarch,
        conda_name if canonicalize_name(name) in asked and conda_name not in _META_PACKAGES else "",
    )


def _before_builders(inside: str, file: Path) -> bytes | None:
    """Return a file as its package has it if the images' builders change it; else None."""
    if inside.startswith("bin/"):
        first, _, rest = file.read_bytes().partition(b"\n")
        if first == b"#!/usr/bin/env python3":
            return f"#!{PREFIX}/bin/python{VERSION}\n".encode() + rest
    elif re.fullmatch(r"share/jupyter/kernels/[^/]+/kernel\.json", inside):
        return file.read_bytes().replace(b"python3-nohome", f"{PREFIX}/bin/python".encode())
    return None


def _depends(requirements: list[str], conda_names: Mapping[str, str]) -> tuple[str, ...]:
    depends = [f"python {VERSION}.*"]
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            name = canonicalize_name(requirement.name)
            depends.append(f"{conda_names.get(name, name)} {requirement.specifier}".strip())
    return tuple(sorted(set(depends)))


def _record(root: Path, package: CondaPackage) -> dict[str, object]:
    file_name = f"{package.stem}.conda"
    digest = hashlib.sha256(file_name.encode())
    return {
        "arch": None if package.noarch else "x86_64",
        "build": package.build,
        "build_number": _build_number(package.build),
        "build_string": package.build,
        "channel": CHANNEL,
        "constrains": [],
        "depends": list(package.depends),
        "extracted_package_dir": f"{PREFIX}/pkgs/{package.stem}",
        "files": list(package.files),
        "fn": file_name,
        "license": package.license,
        "link": {"source": f"{PREFIX}/pkgs/{package.stem}", "type": 1},
        "md5": digest.hexdigest()[:32],
        "name": package.name,
        **({"noarch": "python"} if package.noarch else {}),
        "package_tarball_full_path": f"{PREFIX}/pkgs/{file_name}",
        "paths_data": {
            "paths": [_path(root, package, path) for path in package.files],
            "paths_version": 1,
        },
        "platform": None if package.noarch else "linux",
        "requested_spec": package.requested or "None",
        "sha256": digest.hexdigest(),
        "size": sum(size for _, size in package.hashes.values()),
        "subdir": package.subdir,
        "timestamp": int(INSTALLED.timestamp() * 1000),
        "url": f"{CHANNEL}/{package.subdir}/{file_name}",
        "version": package.version,
    }


def _build_number(build: str) -> int:
    """Extract the number from a build string ("py311h12ab34c_0", "8_cp311", "h1_0_cpython")."""
    return next(int(part) for part in build.split("_") if re.fullmatch(r"\d+", part))


def _path(root: Path, package: CondaPackage, path: str) -> dict[str, object]:
    file = tree.at(root, f"{PREFIX}/{path}")
    if path.endswith(".pyc"):
        return {"_path": path, "path_type": "pyc_file"}
    if package.noarch and path.startswith("bin/"):  # made at installation
        return {"_path": path, "path_type": "unix_python_entry_point"}
    known = package.hashes.get(path)
    if known is None:  # for a symlink, conda records its target
        content = file.read_bytes()
        known = (hashlib.sha256(content).hexdigest(), len(content))
    before = known
    if path.endswith(".pc"):  # the package has the prefix of the machine that built it
        content = file.read_bytes().replace(PREFIX.encode(), PLACEHOLDER.encode())
        before = (hashlib.sha256(content).hexdigest(), len(content))
    return {
        "_path": path,
        "path_type": "softlink" if file.is_symlink() else "hardlink",
        "sha256": before[0],
        "sha256_in_prefix": known[0],
        "size_in_bytes": before[1],
    }
