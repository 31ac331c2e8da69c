"""The files that conda's records list, and whether they are as the records say.

A record is a PrefixRecord: https://docs.conda.io/projects/conda/en/latest/dev-guide/api/conda/models/records/
and libmamba's LinkPackage (https://github.com/mamba-org/mamba/blob/main/libmamba/src/core/link.cpp).
What micromamba writes there, and must not be taken for a fault:

- Of a file without the prefix in it, the hash is the package's (mamba-org/mamba#1338); of one with
  it, `sha256_in_prefix` is of the file as installed, `sha256` and `size_in_bytes` are of before.
  `prefix_placeholder` is never written, so the step cannot be done again. Some environments have
  the package's hash as `sha256_in_prefix` all the same (mamba-org/mamba#3701, #3967).
- Byte code is listed without a hash, also where compiling failed; Python makes it anew
  (conda/conda#13370, #14873).
- Entry points of noarch packages are listed without a hash: they are made at installation.
- The hash of a symlink is of what it leads to, and of no bytes at all when that was nowhere
  (conda/conda#14836). A file that is judged under its own name is not judged again through links.
- Two packages may list one file; the later one's stays (conda/conda#13574).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.engines.base import RootFS, Unreadable
from mlcheck.facts import (
    CondaRecord,
    CondaRecords,
    File,
    FileContents,
    FileDifference,
    FilePresence,
    Problem,
    RecordedFile,
)
from mlcheck.layered import BY_LAYER, ByLayer, Known, Parts
from mlcheck.probes.installed import RECORD_LIMIT
from mlcheck.probes.reading import load_json, opened, shortened

HASH_LIMIT = 16 * 1024**3
"""Bytes of a file that is read for its hash; the largest known library has 1.6 GB."""

EXPLAIN_LIMIT = 64 * 1024**2
"""Bytes of a file with another hash that is searched for the prefix."""

_THREADS = min(4, os.cpu_count() or 1)
_BATCH = 100
"""Files that one thread reads in a row."""

_CHUNK = 1024 * 1024
_HASH = re.compile(r"[0-9a-f]{64}")
_EMPTY = hashlib.sha256().hexdigest()
_PLACEHOLDER = re.compile(rb"/[^\0\s:'\"]*_placehold_placehold[^\0\s:'\"/]*")
"""How conda-build fills up the prefix of the machine that builds a package."""


def records(rootfs: RootFS, prefix: str = "/opt/conda") -> CondaRecords:
    """Read conda-meta.

    Raises:
        ProbeError: this machine forbids reading a record.
    """
    found: list[CondaRecord] = []
    files: list[RecordedFile] = []
    problems: list[Problem] = []
    directory = f"{prefix}/conda-meta"
    for name in rootfs.listdir(directory):
        if not name.endswith(".json"):
            continue
        path = f"{directory}/{name}"
        try:
            data = load_json(rootfs.read(path, RECORD_LIMIT), path)
            record, listed = _record(data, path, prefix)
        except Unreadable as unreadable:
            problems.append(Problem(unreadable.path, unreadable.what))
            continue
        found.append(record)
        files += listed
    return CondaRecords(prefix, tuple(found), tuple(files), tuple(problems))


def _record(data: object, path: str, prefix: str) -> tuple[CondaRecord, list[RecordedFile]]:
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
    site = next((item for item in listed if "/site-packages/" in item), "")
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
    """A path below the prefix; `site` is another of the same record in site-packages.

    rattler keeps the names that files of noarch packages have in the package (conda/rattler#471).
    """
    if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise Unreadable(record, f"lists {shortened(path)}, which is no path below the prefix")
    if path.startswith("site-packages/") and site:
        return f"{site.partition('/site-packages/')[0]}/{path}"
    if path.startswith("python-scripts/"):
        return f"bin/{path.removeprefix('python-scripts/')}"
    return path


def without_files(recorded: CondaRecords, globs: Sequence[str]) -> CondaRecords:
    """The records, with those of their files alone whose paths fit one of `globs`."""
    named = (f for f in recorded.files if any(fnmatch.fnmatchcase(f.path, g) for g in globs))
    return dataclasses.replace(recorded, files=tuple(named))


def presence(rootfs: RootFS, recorded: CondaRecords) -> FilePresence:
    """Look for every recorded file.

    Raises:
        ProbeError: this machine forbids looking.
    """
    there = {file.path: file for file in rootfs.walk(recorded.prefix)}
    by_path = _by_path(recorded.files)
    missing = []
    uncompiled = 0
    for path, entries in by_path.items():
        file = there.get(path) or rootfs.lstat(path)
        what = _absence(rootfs, path, file, entries)
        if what is None:
            continue
        if _is_bytecode(path, entries):
            uncompiled += 1
            continue
        recorded_as = "a directory" if entries[0].type == "directory" else "the file"
        missing.append(FileDifference(path, _packages(entries), what, recorded_as))
    return FilePresence(len(by_path), tuple(missing), uncompiled)


def _absence(
    rootfs: RootFS, path: str, file: File | None, entries: Sequence[RecordedFile]
) -> str | None:
    """Why a file counts as missing; None: it is there."""
    if file is None:
        return "missing"
    if all(entry.type == "directory" for entry in entries):
        final = rootfs.resolve(path).final
        return None if final and final.type == "directory" else f"a {file.type}"
    if file.type == "directory":
        return None if any(entry.type in ("softlink", "") for entry in entries) else "a directory"
    if file.type == "symlink":
        # A link that led nowhere when it was installed may rightly lead nowhere.
        led_somewhere = all(entry.in_prefix not in (None, _EMPTY) for entry in entries)
        led_somewhere = led_somewhere or all(entry.type == "hardlink" for entry in entries)
        resolved = rootfs.resolve(path)
        if led_somewhere and resolved.final is None:
            return f"a symlink to {file.target}, which leads nowhere"
    return None


def contents(rootfs: RootFS, recorded: CondaRecords) -> FileContents:
    """Compare the hash of every recorded file that is there; each is read once.

    Side by side in a few threads, since hashing releases the interpreter's lock.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    return _compared((), rootfs, recorded)


def of_layer(layer: RootFS, prefix: str) -> Mapping[str, str]:
    """Hashes of a layer's files that its own records list, by path.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    paths = [file.path for _, _, file in _work(layer, records(layer, prefix)) if not file.target]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda path: _hashed(layer, path)[0], paths)
        return {path: digest for path, digest in zip(paths, found, strict=True) if digest}


def _prefix(_: RootFS, recorded: CondaRecords) -> str:
    return recorded.prefix


def _compared(
    parts: Parts[Mapping[str, str]], rootfs: RootFS, recorded: CondaRecords
) -> FileContents:
    """What `contents` finds, without reading what layers have told."""
    worker = _Contents(rootfs, recorded.prefix, Known(parts))
    work = _work(rootfs, recorded)
    batches = [work[start : start + _BATCH] for start in range(0, len(work), _BATCH)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(worker.judge, batches):
            pass
    return FileContents(
        compared=len(work),
        hashed=worker.hashed,
        size=worker.size,
        changed=tuple(sorted(worker.changed, key=_path)),
        relocated=worker.relocated,
        rewritten=tuple(sorted(worker.rewritten)),
        unjudged=tuple(sorted(worker.unjudged, key=_path)),
    )


BY_LAYER[contents] = ByLayer(of_layer, _prefix, _compared)


def _work(rootfs: RootFS, recorded: CondaRecords) -> list[tuple[str, Sequence[RecordedFile], File]]:
    """The recorded files that are there and have a recorded hash, with what is recorded of each."""
    there = {file.path: file for file in rootfs.walk(recorded.prefix)}
    work: list[tuple[str, Sequence[RecordedFile], File]] = []
    for path, entries in _by_path(recorded.files).items():
        if _is_bytecode(path, entries) or not any(_wanted(entry) for entry in entries):
            continue
        file = there.get(path) or rootfs.lstat(path)
        if file is None or _absence(rootfs, path, file, entries) is not None:
            continue
        if file.type == "symlink":
            # Recorded links are judged by what they lead to, under its own name.
            recorded_as_link = all(entry.type == "softlink" for entry in entries)
            if recorded_as_link or rootfs.resolve(path).final is None:
                continue
        work.append((path, entries, file))
    # As they lie on the disk or in the archive, as far as their numbers tell.
    work.sort(key=lambda item: item[2].inode)
    return work


class _Contents:
    """What several threads find out about the files' contents."""

    def __init__(self, rootfs: RootFS, prefix: str, known: Known[str]) -> None:
        self._rootfs = rootfs
        self._known = known
        self._prefix = prefix
        self._lock = threading.Lock()
        self.hashed = self.size = self.relocated = 0
        self.changed: list[FileDifference] = []
        self.rewritten: list[str] = []
        self.unjudged: list[FileDifference] = []

    def judge(self, batch: Iterable[tuple[str, Sequence[RecordedFile], File]]) -> None:
        for path, entries, file in batch:
            try:
                self._judge(path, entries, file)
            except Unreadable as unreadable:
                self._add(self.changed, path, entries, unreadable.what)

    def _judge(self, path: str, entries: Sequence[RecordedFile], file: File) -> None:
        # Another size is another content, without reading it, unless the prefix was put in.
        sizes = {entry.size for entry in entries}
        plain = all(_plain(entry) for entry in entries)
        if plain and file.type == "file" and None not in sizes and file.size not in sizes:
            self._explain(path, entries, file, f"{file.size} bytes")
            return
        digest = self._digest(file)
        if digest is None:
            self._add(self.unjudged, path, entries, "too large to be read")
        elif any(digest == entry.in_prefix for entry in entries):
            if not plain:
                with self._lock:
                    self.relocated += 1
        elif any(digest == entry.sha256 and not entry.in_prefix for entry in entries):
            return
        elif any(digest == entry.sha256 for entry in entries):
            self._add(self.changed, path, entries, "as in the package: the prefix was not put in")
        else:
            self._explain(path, entries, file, f"SHA-256 {digest[:16]}...")

    def _digest(self, file: File) -> str | None:
        """SHA-256 of a file, or of what a symlink leads to; None where that is too large."""
        known = self._known.of(file)
        digest, size = (known, file.size) if known else _hashed(self._rootfs, file.path)
        if digest is not None:
            with self._lock:
                self.hashed += 1
                self.size += size
        return digest

    def _explain(self, path: str, entries: Sequence[RecordedFile], file: File, found: str) -> None:
        """Find out how a file differs from the recorded one."""
        if file.type == "symlink":
            found = f"a symlink to {file.target}: {found}"
        if file.size > EXPLAIN_LIMIT:
            self._add(self.changed, path, entries, found)
            return
        content = self._rootfs.read(path, EXPLAIN_LIMIT)
        good = {digest for entry in entries for digest in (entry.in_prefix, entry.sha256)} - {None}
        if any(_sha256(content) in good for content in _other_shebangs(content, self._prefix)):
            with self._lock:
                self.rewritten.append(path)
            return
        prefix = self._prefix.encode()
        for entry in entries:
            if entry.placeholder is None:
                continue
            before = _before(content, prefix, entry.placeholder.encode(), entry.binary)
            if _sha256(before) == entry.sha256:
                with self._lock:
                    self.relocated += 1
                return
        if _PLACEHOLDER.search(content):
            self._add(self.changed, path, entries, f"{found}, with conda-build's placeholder")
        elif any(_may_be_relocated(entry, content, prefix) for entry in entries):
            self._add(self.unjudged, path, entries, found)
        else:
            self._add(self.changed, path, entries, found)

    def _add(
        self,
        to: list[FileDifference],
        path: str,
        entries: Sequence[RecordedFile],
        found: str,
    ) -> None:
        last = entries[-1]
        digest = last.in_prefix or last.sha256 or ""
        size = f"{last.size} bytes, " if last.size is not None and _plain(last) else ""
        recorded = f"{size}SHA-256 {digest[:16]}..."
        with self._lock:
            to.append(FileDifference(path, _packages(entries), found, recorded))


def _hashed(rootfs: RootFS, path: str) -> tuple[str | None, int]:
    """SHA-256 in hex of a file, None where it is too large; and how many bytes were read."""
    digest, size = hashlib.sha256(), 0
    with opened(rootfs, path) as content:
        while chunk := content.read(_CHUNK):
            size += len(chunk)
            if size > HASH_LIMIT:
                return None, size
            digest.update(chunk)
    return digest.hexdigest(), size


def _other_shebangs(content: bytes, prefix: str) -> list[bytes]:
    """A script as it may have been before its first line was rewritten."""
    if not content.startswith(b"#!"):
        return []
    first, _, rest = content.partition(b"\n")
    version = re.search(rb"python(\d[\d.]*)", rest + first)
    names = ["python", "python3", *([f"python{version[1].decode()}"] if version else [])]
    names += [f"python3.{minor}" for minor in range(6, 20)]
    return [f"#!{prefix}/bin/{name}\n".encode() + rest for name in names]


def _before(content: bytes, prefix: bytes, placeholder: bytes, binary: bool) -> bytes:
    """A file as it was in its package, as far as that can be told from the installed one."""
    if not binary:
        return content.replace(prefix, placeholder)
    pad = len(placeholder) - len(prefix)

    def undone(match: re.Match[bytes]) -> bytes:
        times = match[1].count(prefix)
        zeros = len(match[2]) - times * pad
        return match[1].replace(prefix, placeholder) + b"\0" * max(zeros, 0)

    return re.sub(rb"([^\0]*" + re.escape(prefix) + rb"[^\0]*)(\0*)", undone, content)


def _may_be_relocated(entry: RecordedFile, content: bytes, prefix: bytes) -> bool:
    """Whether the record may only know the file as it was before the prefix was put in."""
    if not _plain(entry) or entry.size is None:
        return False
    times = content.count(prefix)
    if b"\0" in content:
        return times > 0 and entry.size == len(content)
    # The placeholder has up to 255 bytes (conda-build), and as many wherever it stands.
    grown = entry.size - len(content)
    return any(
        grown > 0 and grown % n == 0 and grown // n + len(prefix) in range(80, 256)
        for n in range(1, times + 1)
    )


def _plain(entry: RecordedFile) -> bool:
    """Whether the record tells of no prefix in the file."""
    return entry.placeholder is None and entry.in_prefix in (None, entry.sha256)


def _wanted(entry: RecordedFile) -> bool:
    return bool(entry.sha256 or entry.in_prefix) and entry.in_prefix != _EMPTY


def _is_bytecode(path: str, entries: Sequence[RecordedFile]) -> bool:
    return path.endswith(".pyc") or entries[0].type == "pyc_file"


def _by_path(files: Iterable[RecordedFile]) -> dict[str, list[RecordedFile]]:
    found: defaultdict[str, list[RecordedFile]] = defaultdict(list)
    for file in files:
        found[file.path].append(file)
    return dict(found)


def _packages(entries: Sequence[RecordedFile]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.package for entry in entries))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _path(difference: FileDifference) -> str:
    return difference.path
