"""The files that conda's records list, and whether they are as the records say.

A record is a PrefixRecord: https://docs.conda.io/projects/conda/en/latest/dev-guide/api/conda/models/records/
and libmamba's LinkPackage (https://github.com/mamba-org/mamba/blob/main/libmamba/src/core/link.cpp).
Properties of micromamba's records that must not be taken for faults:

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

import hashlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.cache.layer_facts import BY_LAYER, ByLayer, Known, Parts
from mlcheck.engines.base import Ask, Later
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import opened
from mlcheck.inspect.conda import records, relocation
from mlcheck.inspect.conda.facts import (
    AllRecords,
    CondaRecords,
    FileContents,
    FileDifference,
    FilePresence,
    RecordedFile,
)
from mlcheck.inspect.listing import Listing
from mlcheck.inspect.prefix.facts import CondaPrefix, PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.model.files import File
from mlcheck.profile.catalog import Profile

HASH_LIMIT = 16 * 1024**3
"""Bytes of a file that is read for its hash; the largest known library has 1.6 GB."""

EXPLAIN_LIMIT = 64 * 1024**2
"""Bytes of a file with another hash that is searched for the prefix."""

MOST_MISSING = 100_000
"""Missing files that are named; the others are counted."""

MOST_TRIED = 4
"""Records of one file by which the prefix is taken out of it again."""

_THREADS = min(4, os.cpu_count() or 1)
_BATCH = 100
"""Files that one thread reads in a row."""

_CHUNK = 1024 * 1024
_EMPTY = hashlib.sha256().hexdigest()


@fact()
def all_records(rootfs: RootFS, ask: Ask, prefix: PrefixPath) -> AllRecords:
    """conda's records of a prefix, with every file."""
    return AllRecords(ask.later(records.read, rootfs, prefix))


@fact()
def conda_records(ask: Ask, recorded: AllRecords, profile: Profile) -> CondaRecords:
    """Select the dependencies in conda-meta, and the records of the files that the profile
    names."""
    return ask(records.without_files, recorded, list(profile.expect.integrity.replaced))


@fact()
def conda_files(
    rootfs: RootFS, ask: Ask, recorded: AllRecords, prefix: CondaPrefix
) -> FilePresence:
    """Find the recorded files that exist."""
    return ask(presence, rootfs, recorded)


@fact()
def conda_contents(rootfs: RootFS, ask: Ask, recorded: AllRecords) -> FileContents:
    """Compare the content of every recorded file, all of which are read."""
    return ask(contents, rootfs, recorded)


def presence(rootfs: RootFS, recorded: Later[CondaRecords]) -> FilePresence:
    """Look for every recorded file.

    Raises:
        ProbeError: this machine forbids looking.
    """
    there = Listing(rootfs, recorded.answer.prefix)
    by_path = _by_path(recorded.answer.files)
    missing: list[FileDifference] = []
    more = uncompiled = 0
    for path, entries in by_path.items():
        file = there.lstat(path)
        what = _absence(rootfs, path, file, entries)
        if what is None:
            continue
        if _is_bytecode(path, entries):
            uncompiled += 1
            continue
        if len(missing) == MOST_MISSING:
            more += 1
            continue
        recorded_as = "a directory" if entries[0].type == "directory" else "the file"
        missing.append(FileDifference(path, _packages(entries), what, recorded_as))
    return FilePresence(len(by_path), tuple(missing), uncompiled, more)


def _absence(
    rootfs: RootFS, path: str, file: File | None, entries: Sequence[RecordedFile]
) -> str | None:
    """Return why a file counts as missing, or None if it exists."""
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


def contents(rootfs: RootFS, recorded: Later[CondaRecords]) -> FileContents:
    """Compare the hash of every recorded file that is there; each is read once.

    Side by side in a few threads, since hashing releases the interpreter's lock.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    return _compared((), rootfs, recorded)


def of_layer(layer: RootFS, prefix: str) -> Mapping[str, str]:
    """Hash the files of a layer that its own records list, by path.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    paths = [
        file.path for _, _, file in _work(layer, records.read(layer, prefix)) if not file.target
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda path: _hashed(layer, path)[0], paths)
        return {path: digest for path, digest in zip(paths, found, strict=True) if digest}


def _prefix(_: RootFS, recorded: Later[CondaRecords]) -> str:
    return recorded.answer.prefix


def _compared(
    parts: Parts[Mapping[str, str]], rootfs: RootFS, recorded: Later[CondaRecords]
) -> FileContents:
    """Return the same as `contents`, without reading again the files that layers have hashed."""
    worker = _Contents(rootfs, recorded.answer.prefix, Known(parts))
    work = _work(rootfs, recorded.answer)
    batches = [work[start : start + _BATCH] for start in range(0, len(work), _BATCH)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(worker.judge, batches):
            pass
    # Where one record tells files as they were installed, the same program wrote the others so.
    (worker.changed if worker.relocated else worker.unjudged).extend(worker.doubtful)
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
    """Return the recorded files that exist and have a recorded hash, with their record entries."""
    there = Listing(rootfs, recorded.prefix)
    work: list[tuple[str, Sequence[RecordedFile], File]] = []
    files = (file for file in recorded.files if file.sha256 and file.type != "softlink")
    own = {(file.package, file.sha256): file.path for file in files}
    for path, entries in _by_path(recorded.files).items():
        if _is_bytecode(path, entries) or not any(_wanted(entry) for entry in entries):
            continue
        file = there.lstat(path)
        if file is None or _absence(rootfs, path, file, entries) is not None:
            continue
        if file.type == "symlink":
            # Recorded links are judged by what they lead to, under its own name.
            recorded_as_link = all(entry.type == "softlink" for entry in entries)
            if recorded_as_link and _leads_there(rootfs, path, entries, own):
                continue
            if rootfs.resolve(path).final is None:
                continue
        work.append((path, entries, file))
    # In the order of the disk or archive, as far as inode numbers reveal it.
    work.sort(key=lambda item: item[2].inode)
    return work


def _leads_there(
    rootfs: RootFS,
    path: str,
    entries: Sequence[RecordedFile],
    own: Mapping[tuple[str, str | None], str],
) -> bool:
    """Return whether a link leads to the file of its package that has its hash; True if there is
    none, as where it leads to another package's."""
    final = rootfs.resolve(path).final_path
    meant = [own[e.package, e.sha256] for e in entries if (e.package, e.sha256) in own]
    return not meant or any(rootfs.resolve(one).final_path == final for one in meant)


class _Contents:
    """Results of several threads that compare the files' contents."""

    def __init__(self, rootfs: RootFS, prefix: str, known: Known[str]) -> None:
        self._rootfs = rootfs
        self._known = known
        self._prefix = prefix
        self._lock = threading.Lock()
        self.hashed = self.size = self.relocated = 0
        self.changed: list[FileDifference] = []
        self.rewritten: list[str] = []
        self.unjudged: list[FileDifference] = []
        self.doubtful: list[FileDifference] = []

    def judge(self, batch: Iterable[tuple[str, Sequence[RecordedFile], File]]) -> None:
        for path, entries, file in batch:
            try:
                self._judge(path, entries, file)
            except Unreadable as unreadable:
                self._add(self.changed, path, entries, unreadable.what)

    def _judge(self, path: str, entries: Sequence[RecordedFile], file: File) -> None:
        # Another size is another content, without reading it, unless the prefix was put in.
        sizes = {entry.size for entry in entries}
        plain = all(relocation.plain(entry) for entry in entries)
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
        """Return the SHA-256 of a file or of a symlink's target, or None if it is too large."""
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
        if any(_sha256(one) in good for one in relocation.other_shebangs(content, self._prefix)):
            # Only the first line differs: it has to start the Python of this image.
            gone = relocation.missing_python(self._rootfs, content, self._prefix)
            if gone:
                self._add(self.changed, path, entries, gone)
                return
            with self._lock:
                self.rewritten.append(path)
            return
        prefix = self._prefix.encode()
        for entry in [one for one in entries if one.placeholder][-MOST_TRIED:]:
            assert entry.placeholder is not None
            before = relocation.before(content, prefix, entry.placeholder.encode(), entry.binary)
            if _sha256(before) == entry.sha256:
                with self._lock:
                    self.relocated += 1
                return
        if relocation.has_placeholder(content):
            self._add(self.changed, path, entries, f"{found}, with conda-build's placeholder")
        elif any(relocation.may_be_relocated(entry, content, prefix) for entry in entries):
            self._add(self.doubtful, path, entries, found)
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
        size = f"{last.size} bytes, " if last.size is not None and relocation.plain(last) else ""
        recorded = f"{size}SHA-256 {digest[:16]}..."
        with self._lock:
            to.append(FileDifference(path, _packages(entries), found, recorded))


def _hashed(rootfs: RootFS, path: str) -> tuple[str | None, int]:
    """Return the SHA-256 in hex of a file, or None if it is too large, and the number of bytes
    read."""
    digest, size = hashlib.sha256(), 0
    with opened(rootfs, path) as content:
        while chunk := content.read(_CHUNK):
            size += len(chunk)
            if size > HASH_LIMIT:
                return None, size
            digest.update(chunk)
    return digest.hexdigest(), size


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


def _sha256(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _path(difference: FileDifference) -> str:
    return difference.path
