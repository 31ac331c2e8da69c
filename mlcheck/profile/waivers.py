"""Files of waivers beside the profiles: a baseline of findings that are accepted for now.

Such a file has the `[[waivers]]` of an `image.toml`, each for the images of one profile or several.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT

from mlcheck.model.verdict import Source
from mlcheck.profile import toml_file
from mlcheck.profile.catalog import Profile
from mlcheck.profile.schema import Waiver
from mlcheck.profile.schema.table import Glob, Table
from mlcheck.profile.toml_lines import Path as KeyPath


class ListedWaiver(Waiver):
    """A waiver in a file of waivers."""

    profile: Glob = "*"
    """The profiles whose images it is for; `*` matches any text."""


class WaiversToml(Table):
    """The whole of a file of waivers."""

    waivers: tuple[ListedWaiver, ...] = ()


@dataclass(frozen=True)
class WaiversFile:
    """A file of waivers.

    Args:
        waivers: each with its line.
    """

    file: Path
    waivers: tuple[tuple[ListedWaiver, Source], ...] = ()

    @classmethod
    def read(cls, file: Path) -> WaiversFile:
        """Read a file.

        Raises:
            UsageError: it cannot be read or is invalid; the message names the line.
        """
        data, lines = toml_file.read(file)
        found = toml_file.validate(WaiversToml, file, data, lines)
        assert found is not None
        places = (
            Source(toml_file.shown(file), lines["waivers", n]) for n in range(len(found.waivers))
        )
        return cls(file, tuple(zip(found.waivers, places, strict=True)))

    def added_to(self, profile: Profile) -> Profile:
        """Return a profile with the waivers that are for it behind its own."""
        mine = [pair for pair in self.waivers if fnmatch.fnmatchcase(profile.name, pair[0].profile)]
        own = profile.expect.waivers
        places: dict[KeyPath, Source] = {
            ("waivers", len(own) + number): place for number, (_, place) in enumerate(mine)
        }
        every = (*own, *(waiver for waiver, _ in mine))
        return dataclasses.replace(
            profile,
            expect=profile.expect.model_copy(update={"waivers": every}),
            sources={**profile.sources, **places},
        )


def for_subject(subject: str) -> str:
    """Return the pattern that matches this subject and no other."""
    return glob.escape(subject)


def updated(file: Path, *, without: Iterable[Source], new: Sequence[ListedWaiver]) -> str:
    """Return the text of a file of waivers after a change, with its comments as they are.

    Args:
        file: read if it exists.
        without: the lines of waivers to leave out.
    """
    if not file.exists():
        document = tomlkit.document()
        for line in _HEAD:
            document.add(tomlkit.comment(line))
        document.add(tomlkit.nl())
        document["waivers"] = _tables(new)
        return re.sub(r"\n{3,}", "\n\n", tomlkit.dumps(document))
    document = tomlkit.parse(file.read_text(encoding="utf-8"))
    gone = set(without)
    known = WaiversFile.read(file).waivers
    listed = document.get("waivers")
    kept = [waiver for waiver, source in known if source not in gone]
    if not isinstance(listed, AoT) or not kept:
        document.pop("waivers", None)
        document["waivers"] = _tables([*kept, *new])
        return tomlkit.dumps(document)
    for index, (_, source) in reversed([*enumerate(known)]):
        if source in gone:
            del listed[index]
    for table in _tables(new):
        listed.append(table)
    return tomlkit.dumps(document)


def _tables(waivers: Iterable[ListedWaiver]) -> AoT:
    tables = tomlkit.aot()
    for waiver in waivers:
        table = tomlkit.table()
        table.update(_fields(waiver))
        table.add(tomlkit.nl())
        tables.append(table)
    return tables


def _fields(waiver: ListedWaiver) -> dict[str, Any]:
    return {key: getattr(waiver, key) for key in ("profile", "check", "match", "reason", "until")}


_HEAD = (
    "Findings that are accepted until a day, by profile and rule. `mlcheck check --waivers FILE`",
    "reads this file, and `mlcheck check --write-waivers FILE` brings it up to date.",
)
