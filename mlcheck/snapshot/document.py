"""Expectations as the text of an `image.toml`.

The contents of an image may be hostile. tomlkit writes names and values, so that a name cannot
become a key of its own; unprintable characters are escaped, in comments too.
"""

from __future__ import annotations

import datetime
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tomlkit

from mlcheck.model.errors import MlcheckError

Value = str | int | bool | list[str] | dict[str, Any]
KeyPath = tuple[str, ...]

WIDTH = 100


@dataclass(frozen=True)
class Entry:
    """One expectation.

    Args:
        path: keys that lead to it; the last one is on the line itself.
        otherwise: weaker expectation to try if this one does not hold; None for none.
        tells: it describes the image or the file, so no rule judges it.
    """

    path: KeyPath
    value: Value
    otherwise: Value | None = None
    tells: bool = False


@dataclass(frozen=True, slots=True)
class Waived:
    """A waiver for findings of a rule that no expectation causes."""

    check: str
    match: str
    reason: str
    until: datetime.date


@dataclass(frozen=True)
class Document:
    """The whole contents of the file.

    Args:
        head, tail: comments at the beginning and the end, lines of any length.
        notes: comments on tables.
    """

    entries: tuple[Entry, ...]
    waivers: tuple[Waived, ...] = ()
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    notes: Mapping[KeyPath, str] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Return the data that parsing the file gives."""
        found: dict[str, Any] = {}
        for entry in self.entries:
            table = found
            for key in entry.path[:-1]:
                table = table.setdefault(key, {})
            value = entry.value
            table[entry.path[-1]] = {**value} if isinstance(value, dict) else value
        if self.waivers:
            found["waivers"] = [
                {"check": w.check, "match": w.match, "reason": w.reason, "until": w.until}
                for w in self.waivers
            ]
        return found

    def text(self) -> str:
        """Return the text of the file.

        Raises:
            MlcheckError: the text would not parse back to `data`, which is a bug in mlcheck.
        """
        lines = [*_comments(self.head), ""]
        for table, entries in self._tables():
            if table:
                lines += ["", *_comments([self.notes[table]] if table in self.notes else [])]
                lines.append(f"[{_keys(table)}]")
            for entry in entries:
                lines += _line(entry.path[-1], entry.value)
        for one in self.waivers:
            lines += ["", "[[waivers]]", *_line("check", one.check), *_line("match", one.match)]
            lines += [*_line("reason", one.reason), f"until = {one.until.isoformat()}"]
        if self.tail:
            lines += ["", *_comments(self.tail)]
        text = "\n".join(lines).strip() + "\n"
        if tomllib.loads(text) != self.data():
            raise MlcheckError("The expectations cannot be written as TOML.", "Report this.")
        return text

    def _tables(self) -> Iterator[tuple[KeyPath, list[Entry]]]:
        """Yield the tables in the order of their first line, each followed by its subtables."""
        tables: dict[KeyPath, list[Entry]] = {(): []}
        for entry in self.entries:
            if isinstance(entry.value, dict) and not entry.value:
                tables.setdefault(entry.path, [])  # an empty table: `[deployed]`
            else:
                tables.setdefault(entry.path[:-1], []).append(entry)
        first = {path[:1]: index for index, path in reversed([*enumerate(tables)])}
        order = sorted(tables, key=lambda path: (first[path[:1]], [*tables].index(path)))
        for path in order:
            yield path, tables[path]


def writable(value: object) -> bool:
    """Return whether TOML can hold a value: file names need not be Unicode."""
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, Mapping):
        return all(writable(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple):
        return all(map(writable, value))
    return True


def _line(key: str, value: Value) -> list[str]:
    line = f"{_keys((key,))} = {_value(value)}"
    if len(line) > WIDTH and isinstance(value, list):
        array = tomlkit.array()
        array.extend(value)
        line = f"{_keys((key,))} = {array.multiline(True).as_string()}"
    return [_escaped(one) for one in line.split("\n")]


def _value(value: Value) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{_keys((key,))} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}"
    if isinstance(value, str) and re.search(r'[\\"]', value):
        plain = "'" not in value and value.isprintable()
        return tomlkit.string(value, literal=plain).as_string()  # literals are easier to read
    return tomlkit.item(value).as_string()


def _keys(path: Sequence[str]) -> str:
    return _escaped(".".join(tomlkit.key(part).as_string() for part in path))


def _escaped(line: str) -> str:
    """Escape characters that tomlkit keeps and a terminal may act on."""
    if line.isprintable():
        return line
    return "".join(
        char
        if char.isprintable()
        else f"\\u{ord(char):04x}"
        if ord(char) < 1 << 16
        else f"\\U{ord(char):08x}"
        for char in line
    )


def _comments(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        plain = "".join(char if char.isprintable() else " " for char in line)
        indent = plain[: len(plain) - len(plain.lstrip())]
        wrapped = textwrap.wrap(
            plain,
            WIDTH,
            initial_indent="# ",
            subsequent_indent=f"# {indent}",
            drop_whitespace=True,
            break_on_hyphens=False,
            break_long_words=False,
        )
        yield from wrapped or ["#"]
