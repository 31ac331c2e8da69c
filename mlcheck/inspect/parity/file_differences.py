"""Differences between the files of two images, by package and directory, not one by one."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mlcheck.inspect.parity.differences import MISSING, Compared, Difference
from mlcheck.inspect.parity.facts import FileContent, ImageFiles
from mlcheck.model.verdict import ShowFile

SHOWN = 40
"""Findings about files that no package owns; more are grouped by directory."""


class _Differs(NamedTuple):
    path: str
    a: str
    b: str
    package: str
    what: str


def compare(
    a: ImageFiles,
    b: ImageFiles,
    changed: frozenset[tuple[str, str]],
    allowed: Callable[[Sequence[str]], bool],
    *,
    owners: bool,
) -> Compared:
    """Compare type, mode, owner, size and content of every file.

    Args:
        changed: packages that are already reported (`differences.changed_packages`), and whose
            files are not reported again.
        allowed: returns whether a profile allows a file, by its path and its package.
        owners: True if the owners of files are the images' own on both sides; set-uid, set-gid and
            sticky bits go with them.
    """
    here = {file.path: file for file in a.files}
    there = {file.path: file for file in b.files}
    by_package: defaultdict[str, list[_Differs]] = defaultdict(list)
    loose: dict[str, _Differs] = {}
    explained: set[str] = set()
    told = left_out = 0
    for path in sorted({*here, *there}):
        one, other = here.get(path), there.get(path)
        differs = _difference(path, one, other, owners=owners)
        if differs is None:
            continue
        packages = {file.package for file in (one, other) if file is not None}
        if any(_is_told(file, changed) for file in (one, other) if file is not None):
            told += 1
            explained.update(_above(path))
        elif allowed((path, *packages)):
            left_out += 1
            explained.update(_above(path))
        elif differs.package:
            by_package[differs.package].append(differs)
        else:
            loose[path] = differs
    # A directory on only one side exists because of the files that were just explained.
    loose = {
        path: differs
        for path, differs in loose.items()
        if path not in explained or MISSING not in (differs.a, differs.b)
    }
    found = [_of_package(package, by_package[package]) for package in sorted(by_package)]
    whole = _whole_directories(loose)
    for directory, paths in _by_directory(list(whole)).items():
        if len(paths) == 1:
            found.append(_one(loose[paths[0]], whole[paths[0]]))
        else:
            found.append(_several(directory, [loose[path] for path in paths]))
    notes = []
    if told:
        notes.append(f"{told} files of packages that differ: told by the package")
    if left_out:
        notes.append(f"{left_out} files that the profile allows to differ")
    if not owners:
        notes.append("owners are not compared: one of the images is a directory of this machine")
    large = a.unread + b.unread
    missed = [f"{large} files are too large to read: compared by size"] if large else []
    return Compared(len({*here, *there}), tuple(found), tuple(notes), tuple(missed))


def _is_told(file: FileContent, changed: frozenset[tuple[str, str]]) -> bool:
    return not changed.isdisjoint(((file.prefix, file.package), (file.prefix, file.prefix)))


def _above(path: str) -> Iterator[str]:
    """Return the directories that contain a file."""
    while path := path.rpartition("/")[0]:
        yield path


def _difference(
    path: str, one: FileContent | None, other: FileContent | None, *, owners: bool
) -> _Differs | None:
    if one is None or other is None:
        texts = (_text(one), _text(other))
        file = one or other
        assert file is not None
        side = "only in the other" if one is None else "only here"
        return _Differs(path, *texts, file.package, side)
    bits = 0o7777 if owners else 0o777
    pairs = [
        ("type", one.type, other.type),
        ("target", one.target or "", other.target or ""),
        ("size", f"{one.size} bytes", f"{other.size} bytes"),
    ]
    if one.type == "symlink":
        del pairs[2]  # the size repeats the target; modes of symlinks do not count
    else:
        pairs.append(("mode", f"mode {one.mode & bits:04o}", f"mode {other.mode & bits:04o}"))
    if owners:
        pairs.append(("owner", f"owner {one.uid}:{one.gid}", f"owner {other.uid}:{other.gid}"))
    if one.size == other.size and one.digest and other.digest:
        texts = (f"content {one.digest[:12]}...", f"content {other.digest[:12]}...")
        pairs.append(("content", *texts) if one.digest != other.digest else ("", "", ""))
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    if not differing:
        return None
    a, b = (", ".join(pair[side] for pair in differing) for side in (1, 2))
    what = " and ".join(pair[0] for pair in differing)
    return _Differs(path, a, b, one.package or other.package, what)


def _text(file: FileContent | None) -> str:
    return MISSING if file is None else f"a {file.type}"


def _whole_directories(loose: Mapping[str, _Differs]) -> dict[str, int]:
    """Return the differing paths without those in a directory that only one side has; with each the
    number of those."""
    found: dict[str, int] = {}
    above: list[str] = []
    for path in sorted(loose, key=lambda path: path.split("/")):
        while above and not path.startswith(f"{above[-1]}/"):
            above.pop()
        if above:
            found[above[0]] += 1
        else:
            found[path] = 0
        if MISSING in (loose[path].a, loose[path].b):
            above.append(path)
    return found


def _by_directory(paths: Sequence[str]) -> dict[str, list[str]]:
    """Group paths into at most SHOWN groups, by directories as deep as that allows; the directory
    with the most differences is divided first. A group of one path is that path."""
    done: dict[str, list[str]] = {}
    waiting: list[tuple[int, str, list[str]]] = []

    def put(directory: str, group: list[str]) -> None:
        if len(group) == 1:
            done[group[0]] = group
        else:
            heapq.heappush(waiting, (-len(group), directory, group))

    if paths:
        put("", list(paths))
    while waiting:
        _, directory, group = heapq.heappop(waiting)
        parts: defaultdict[str, list[str]] = defaultdict(list)
        for path in group:
            name = path[len(directory) + 1 :].partition("/")[0] if path != directory else ""
            parts[f"{directory}/{name}" if name else directory + "/"].append(path)
        if len(done) + len(waiting) + len(parts) > SHOWN and len(parts) > 1:
            done[f"{directory}/"] = group
        else:
            for part, members in parts.items():
                put(part, members)
    return {path: done[path] for path in sorted(done)}


def _one(differs: _Differs, below: int) -> Difference:
    texts = [differs.a, differs.b]
    if below:
        texts = [text if text == MISSING else f"{text} with {below} files" for text in texts]
    show = ShowFile("ls -ld", differs.path) if differs.a != MISSING else None
    return Difference("files", differs.path, texts[0], texts[1], (differs.path,), show=show)


def _several(directory: str, group: Sequence[_Differs]) -> Difference:
    counts = Counter(differs.what for differs in group)
    said = ", ".join(f"{count} in {what}" for what, count in counts.most_common(4))
    said = said.replace(" in only", " only")
    first = ", ".join(differs.path for differs in group[:3])
    text = f"{len(group)} paths differ: {said} ({first}, ...)"
    show = ShowFile("ls -l", directory) if directory else None
    return Difference("files", directory, text, "the same", (directory,), show=show)


def _of_package(package: str, group: Sequence[_Differs]) -> Difference:
    if len(group) == 1:
        differs = group[0]
        texts = f"{differs.path}: {differs.a}", f"{differs.path}: {differs.b}"
        return Difference("files", package, *texts, (package,))
    several = _several("", group)
    return Difference("files", package, several.a, several.b, (package,))
