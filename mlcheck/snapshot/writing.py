"""Write the `image.toml` of an open image, from what was found in it to the text."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlcheck
from mlcheck.model.rule import Rule
from mlcheck.profile.catalog import Catalog, Profile
from mlcheck.snapshot import infer
from mlcheck.snapshot.document import Document, Entry, KeyPath
from mlcheck.snapshot.found import Found
from mlcheck.snapshot.revision import Judge, Settled, settle


@dataclass(frozen=True)
class Subject:
    """The subject of the file.

    Args:
        image, engine: the image as the user wrote it, and the engine that opened it.
        name: name of the profile, which is its folder.
        parent: the profile that it extends.
        fits: profiles that it could extend.
    """

    image: str
    engine: str
    name: str
    parent: Profile | None = None
    fits: tuple[str, ...] = ()


def write(
    found: Found, subject: Subject, rules: Mapping[str, Rule], judge: Judge, today: datetime.date
) -> Settled:
    """Infer expectations, have the image judged, and remove those that fail, with comments.

    Raises:
        EngineError: the suite could not be run.
    """
    entries = infer.entries(found)
    if subject.parent is not None:
        entries = beyond(entries, subject.parent)
    tables = {entry.path[:n] for entry in entries for n in range(1, len(entry.path) + 1)}
    notes = {path: note for path, note in infer.NOTES.items() if path in tables}
    if ("packages", "required") in notes:
        of = f"Asked for by name: {found.asked.how}. "
        notes["packages", "required"] = of + notes["packages", "required"]
    head = _head(subject, today)
    settled = settle(Document(tuple(entries), (), head, (), notes), rules, judge, today)
    return _told(settled, found, subject)


def beyond(entries: list[Entry], parent: Profile) -> list[Entry]:
    """Return the entries that say more than the parent."""
    said = json.loads(parent.expect.model_dump_json(by_alias=True))
    specs = {name: kernel.model_dump() for name, kernel in parent.expect.kernels().items()}
    own = {
        entry.path[3]
        for entry in entries
        if entry.path[:2] == ("kernelspecs", "generations") and len(entry.path) > 3
    }
    same_kernels = (
        bool(specs)
        and own == set(specs)
        and all(
            _plain(specs[entry.path[3]].get(entry.path[4])) == entry.value
            for entry in entries
            if entry.path[:2] == ("kernelspecs", "generations")
            and entry.path[4] in ("argv", "display_name")
        )
    )
    left = [Entry(("extends",), parent.name, tells=True)]
    for entry in entries:
        if entry.path[0] == "tags" or (entry.path[0] == "kernelspecs" and same_kernels):
            continue
        there = _at(said, entry.path)
        enough = entry.path[:-1] in _NAMED or entry.path in _LISTS
        if there is None or not (enough or there == entry.value):
            left.append(entry)
    return sorted(left, key=lambda entry: entry.path[0] not in ("description", "extends"))


_LISTS = {("shells",), ("scripts", "speaking"), ("scripts", "portable"), ("scripts", "installed")}
_LISTS |= {("packages", "system"), ("jupyterlab", "terminals"), ("user", "writable")}
"""Lists of which the parent's elements need not be repeated."""
_NAMED = {("packages", "required"), ("commands",), ("files",), ("packages", "requested")}
"""Tables of which the parent's keys need not be repeated."""


def _at(said: Any, path: KeyPath) -> Any:
    for part in path:
        said = said.get(part) if isinstance(said, dict) else None
    return said


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def fitting(catalog: Catalog, found: Found) -> tuple[str, ...]:
    """Return the profiles whose packages, variables, kernels and entrypoint this image has: first
    that of its own name, then those that promise most."""
    installed = {package.name for package in found.packages.packages}
    kernels = {spec.name for spec in found.kernels.specs}
    fits = []
    for name in catalog.names():
        expect = catalog.load(name).expect
        promised = set(expect.packages.required)
        known = catalog.name_of(found.name) == name
        if (
            (promised or known)
            and promised <= installed
            and expect.environment.equals.items() <= dict(found.environment.env).items()
            and set(expect.kernels()) <= kernels
            and (
                expect.entrypoint is None or expect.entrypoint.argv == found.environment.entrypoint
            )
        ):
            fits.append((not known, -len(promised), name))
    return tuple(name for _, _, name in sorted(fits))


def profile_name(name: str) -> str:
    """Turn a name into a folder's name that --profile accepts."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "image"


def _head(subject: Subject, today: datetime.date) -> tuple[str, ...]:
    return (
        f"What {subject.image} was on {today.isoformat()}: written by `mlcheck snapshot` "
        f"{mlcheck.__version__}, engine {subject.engine}.",
        "Each line was inferred, and then judged on that image by the suite: it holds. Keep what "
        "you promise, and take out the rest. All keys: mlcheck schema image.",
        f"Use: DIR/{subject.name}/image.toml, then mlcheck check IMAGE --profiles DIR "
        f"--profile {subject.name}",
    )


def _told(settled: Settled, found: Found, subject: Subject) -> Settled:
    """Add comments on whatever is not promised."""
    tail: list[str] = []
    waived = {one.check for one in settled.document.waivers}
    told = waived | {"conda-files-unchanged"}  # its files are all listed in integrity.edited
    left_out = {check: said for check, said in settled.broken.items() if check not in told}
    if left_out:
        tail += ["Not promised, because the image does not hold it:"]
        tail += _lines(left_out)
    if waived:
        tail += ["Waived above, because the rule holds for every image, and not for this one:"]
        tail += _lines({check: settled.broken.get(check, []) for check in sorted(waived)})
    if settled.untried:
        tail += [f"Not promised, because the engine {subject.engine} could not try it:"]
        tail += [f"  {key}: {why}" for key, why in settled.untried.items()]
    if subject.fits:
        tail += [
            f"The suite's profile {subject.fits[0]} fits this image: `mlcheck snapshot --extends "
            f"{subject.fits[0]}` takes over what it promises, with its own tests."
        ]
    frameworks = sorted(
        {p.name for p in found.packages.packages} & {"tensorflow", "torch", "pytorch"}
    )
    if frameworks and subject.parent is None:
        tail += [
            f"Not promised: that {' and '.join(frameworks)} computes, or of which CUDA it is. The "
            "tests for that are those of the profiles that extend framework and gpu (--extends)."
        ]
    document = settled.document
    tables = {e.path[:n] for e in document.entries for n in range(1, len(e.path) + 1)}
    settled.document = Document(
        document.entries,
        document.waivers,
        document.head,
        tuple(tail),
        {path: note for path, note in document.notes.items() if path in tables},
    )
    return settled


_TOLD = 3
_LONG = 200


def _lines(said: Mapping[str, list[str]]) -> list[str]:
    lines = []
    for check, findings in said.items():
        short = [one if len(one) <= _LONG else f"{one[:_LONG]} ..." for one in findings[:_TOLD]]
        lines += [f"  {check}: {one}" for one in short]
        if len(findings) > _TOLD:
            lines += [f"  {check}: and {len(findings) - _TOLD} more"]
    return lines
