"""conda's records of packages and their files, `conda-meta/NAME-VERSION-BUILD.json`."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence

from mlcheck.engines.base import Later
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import load_json, shortened
from mlcheck.inspect.conda.facts import CondaRecord, CondaRecords, RecordedFile
from mlcheck.inspect.packages.python_packages import RECORD_LIMIT
from mlcheck.inspect.prefix.probe import package_directories
from mlcheck.model.files import Problem
from mlcheck.model.units import binary

FILES_LIMIT = 500_000
"""Files of all records of a prefix; one with TensorFlow and the scientific stack has 54,000."""

SIZE_LIMIT = 256 * 1024 * 1024
"""Bytes of all records of a prefix; those of 54,000 files have about 20 MB."""

_HASH = re.compile(r"[0-9a-f]{64}")


def read(rootfs: RootFS, prefix: str = "/opt/conda") -> CondaRecords:
    """Read conda-meta.

    Raises:
        ProbeError: this machine forbids reading a record.
    """
    found: list[CondaRecord] = []
    files: list[RecordedFile] = []
    problems: list[Problem] = []
    site = next(
        (p for p in package_directories(rootfs, prefix) if p.endswith("/site-packages")), ""
    )
    site = f"{site.removeprefix(f'{prefix}/')}/" if site else ""
    seen: dict[str, str] = {}
    size = 0
    directory = f"{prefix}/conda-meta"
    for name in rootfs.listdir(directory):
        if not name.endswith(".json"):
            continue
        path = f"{directory}/{name}"
        try:
            content = rootfs.read(path, RECORD_LIMIT)
            size += len(content)
            if size > SIZE_LIMIT:
                what = f"brings the size of all records to more than {binary(SIZE_LIMIT)}"
                raise Unreadable(path, what)
            data = load_json(content, path)
            record, listed = _record(data, path, prefix, site)
        except Unreadable as unreadable:
            problems.append(Problem(unreadable.path, unreadable.what))
            continue
        if (first := seen.setdefault(record.name.lower(), path)) != path:
            what = f"is a second record of {record.name}, beside {first}: conda refuses both"
            problems.append(Problem(path, what))
        found.append(record)
        if len(files) + len(listed) > FILES_LIMIT:
            what = f"brings the files of all records to more than {FILES_LIMIT}"
            problems.append(Problem(path, what))
            continue
        files += listed
    return CondaRecords(prefix, tuple(found), tuple(files), tuple(problems))


def _record(
    data: object, path: str, prefix: str, site: str
) -> tuple[CondaRecord, list[RecordedFile]]:
    if not isinstance(data, dict) or not _text(data, "name") or not _text(data, "version"):
        raise Unreadable(path, "is no conda record: $.name and $.version must be text")
    depends, listed = data.get("depends", []), data.get("files", [])
    paths_data = data.get("paths_data", {})
    paths = paths_data.get("paths", []) if isinstance(paths_data, dict) else None
    if not (isinstance(depends, list) and all(isinstance(item, str) for item in depends)):
        raise Unreadable(path, "is no conda record: $.depends must be a list of text")
    if not (isinstance(listed, list) and all(isinstance(item, str) for item in listed)):
        raise Unreadable(path, "is no conda record: $.files must be a list of text")
    if not (isinstance(paths, list) and all(isinstance(item, dict) for item in paths)):
        raise Unreadable(path, "is no conda record: $.paths_data.paths must be a list of objects")
    name = _text(data, "name")
    record = CondaRecord(
        name,
        _text(data, "version"),
        _text(data, "build"),
        _text(data, "subdir"),
        tuple(depends),
        path,
    )
    site = next((item for item in listed if "/site-packages/" in item), site)
    files: dict[str, RecordedFile] = {}
    for entry in paths:
        inside = _inside(_text(entry, "_path"), path, site)
        size = entry.get("size_in_bytes")
        files[inside] = RecordedFile(
            path=f"{prefix}/{inside}",
            package=name,
            record=path,
            type=_text(entry, "path_type"),
            sha256=_hash(entry, "sha256"),
            in_prefix=_hash(entry, "sha256_in_prefix"),
            size=size if isinstance(size, int) and size >= 0 else None,
            placeholder=_text(entry, "prefix_placeholder") or None,
            binary=entry.get("file_mode") == "binary",
        )
    for item in listed:
        inside = _inside(item, path, site)
        files.setdefault(inside, RecordedFile(f"{prefix}/{inside}", name, path, ""))
    return record, list(files.values())


def _text(holder: Mapping[str, object], key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def _hash(entry: Mapping[str, object], key: str) -> str | None:
    value = _text(entry, key)
    return value if _HASH.fullmatch(value) else None


def _inside(path: str, record: str, site: str) -> str:
    """Return a path below the prefix; `site` is another of the same record in site-packages.

    rattler keeps the names that files of noarch packages have in the package (conda/rattler#471).
    """
    if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise Unreadable(record, f"lists {shortened(path)}, which is no path below the prefix")
    if path.startswith("site-packages/") and site:
        return f"{site.partition('/site-packages/')[0]}/{path}"
    if path.startswith("python-scripts/"):
        return f"bin/{path.removeprefix('python-scripts/')}"
    return path


def without_files(recorded: Later[CondaRecords], globs: Sequence[str]) -> CondaRecords:
    """Keep only the records' files whose paths match one of `globs`."""
    every = recorded.answer
    named = (f for f in every.files if any(fnmatch.fnmatchcase(f.path, g) for g in globs))
    return dataclasses.replace(every, files=tuple(named))
