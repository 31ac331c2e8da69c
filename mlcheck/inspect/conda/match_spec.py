"""Versions and dependencies of conda packages, as conda, mamba and rattler compare them.

Versions: https://docs.conda.io/projects/conda/en/latest/dev-guide/api/conda/models/version/
Dependencies: https://docs.conda.io/projects/conda/en/latest/dev-guide/api/conda/models/match_spec/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

LENGTH_LIMIT = 2000
"""Characters of a dependency; the longest known one has 200."""

_Atom = tuple[int, int, str]
"""A part of a version: its kind, its number, its letters. Kinds sort as conda sorts them."""
_Part = tuple[_Atom, ...]

_ZERO: _Atom = (3, 0, "")
_NUMBER_OR_TEXT = re.compile(r"[0-9]+|[^0-9]+")
_VERSION = re.compile(r"[0-9a-z_.]+")
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
_FIELD = re.compile(r"""\s*(\w+)\s*=\s*(?:'([^']*)'|"([^"]*)"|([^'",\]]+?))\s*(?:,|$)""")
_OPERATORS = ("==", "!=", "<=", ">=", "~=", "=", "<", ">")
_WITH = "=<>!~"


class NotUnderstood(ValueError):  # noqa: N818 - a finding about the image, not an error
    """A text is no version or dependency of conda's, or of a kind that is not judged."""


@dataclass(frozen=True, slots=True)
class CondaVersion:
    """A version: epoch and public parts, and the parts behind `+`."""

    public: tuple[_Part, ...]
    local: tuple[_Part, ...] = ()

    @classmethod
    def of(cls, text: str) -> CondaVersion:
        """Parse a version.

        Raises:
            NotUnderstood: it is none.
        """
        whole = text.strip().lower()
        epoch, mark, rest = whole.rpartition("!")
        public, plus, local = rest.partition("+")
        if (mark and not (epoch.isascii() and epoch.isdigit())) or (plus and not local):
            raise NotUnderstood(f"{text!r} is no version")
        first = (_number(epoch or "0", text),)
        return cls((first, *_parts(public, text)), _parts(local, text) if plus else ())

    def compared(self, other: CondaVersion) -> int:
        """Return -1, 0 or 1: whether this version is older, the same or newer."""
        return _compared(self.public, other.public) or _compared(self.local, other.local)

    def starts_with(self, other: CondaVersion) -> bool:
        """Return whether this version is `other` or one of its series: 1.2.3 and 1.2a of 1.2."""
        if other.local:
            if _compared(self.public, other.public):
                return False
            mine, theirs = self.local, other.local
        else:
            mine, theirs = self.public, other.public
        *leading, last = theirs
        if _compared(mine[: len(leading)], leading):
            return False
        part = mine[len(leading)] if len(mine) > len(leading) else ()
        end = len(last) - 1
        if _compared([part[:end]], [last[:end]]):
            return False
        atom = part[end] if len(part) > end else _ZERO
        if last[end][2]:
            return bool(atom[2]) and atom[2].startswith(last[end][2])
        return atom == last[end]


def _parts(text: str, whole: str) -> tuple[_Part, ...]:
    text = text.replace("-", "_") if "_" not in text else text
    if not _VERSION.fullmatch(text):
        raise NotUnderstood(f"{whole!r} is no version")
    # A trailing `_` is a letter of the last part, as in OpenSSL's 1.0.1_.
    body, end = (text[:-1], "_") if text.endswith("_") else (text, "")
    parts = (body.replace("_", ".") + end).split(".")
    if not all(parts):
        raise NotUnderstood(f"{whole!r} is no version: a part of it is empty")
    return tuple(_part(one, whole) for one in parts)


def _part(text: str, whole: str) -> _Part:
    atoms = []
    for piece in _NUMBER_OR_TEXT.findall(text):
        if piece.isdigit():
            atoms.append(_number(piece, whole))
        else:
            kind = {"post": 4, "dev": 1}.get(piece, 2)
            atoms.append((kind, 0, piece))
    # Letters at the beginning of a part come after an implied 0: 1.rc1 is 1.0rc1.
    return tuple(atoms) if text[0].isdigit() else (_ZERO, *atoms)


def _number(digits: str, whole: str) -> _Atom:
    if len(digits) > 40:
        raise NotUnderstood(f"{whole[:40]!r} is no version: a number in it is too long")
    return 3, int(digits), ""


def _compared(one: Sequence[_Part], other: Sequence[_Part]) -> int:
    for mine, theirs in zip_longest(one, other, fillvalue=()):
        for left, right in zip_longest(mine, theirs, fillvalue=_ZERO):
            if left != right:
                return -1 if left < right else 1
    return 0


@dataclass(frozen=True, slots=True)
class MatchSpec:
    """A dependency: a name, and what version and build have to be.

    Args:
        fields: what else is asked for, in brackets.
    """

    name: str
    version: str = "*"
    build: str = "*"
    fields: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> MatchSpec:
        """Parse `[channel::]name [version [build]]`, also with fields in brackets.

        Raises:
            NotUnderstood: it is none, or names more than version and build.
        """
        if len(text) > LENGTH_LIMIT:
            raise NotUnderstood(f"has more than {LENGTH_LIMIT} characters")
        rest, fields = _brackets(text.partition("#")[0].strip())
        rest = rest.rpartition("::")[2].strip()
        end = next((i for i, sign in enumerate(rest) if sign in f" {_WITH}"), len(rest))
        name, rest = rest[:end].lower(), rest[end:]
        if not _NAME.fullmatch(name):
            raise NotUnderstood(f"{text!r} names no package")
        version, build = _version_and_build(rest)
        version = fields.pop("version", version)
        return cls(name, version or "*", fields.pop("build", build) or "*", fields)

    def fits(self, version: str, build: str) -> bool:
        """Return whether a package of this version and build fulfils the dependency.

        Raises:
            NotUnderstood: the version, or what it has to be, is of no known kind.
        """
        if self.fields:
            raise NotUnderstood(f"{' and '.join(sorted(self.fields))} of a package is not judged")
        if self.build.startswith("^"):
            raise NotUnderstood(f"the build {self.build!r} is a regular expression")
        return version_fits(version, self.version) and glob_fits(build, self.build)


def _brackets(text: str) -> tuple[str, dict[str, str]]:
    """Split off the fields in brackets at the end."""
    if not text.endswith("]"):
        return text, {}
    before, _, inside = text[:-1].partition("[")
    fields, at = {}, 0
    while at < len(inside):
        match = _FIELD.match(inside, at)
        if match is None:
            raise NotUnderstood(f"{text!r} has fields of an unknown form")
        fields[match[1]] = match[2] or match[3] or match[4] or ""
        at = match.end()
    return before, fields


def _version_and_build(text: str) -> tuple[str, str]:
    """Split ` VERSION BUILD` or `=VERSION=BUILD`, in which blanks may stand behind operators."""
    joined = ""
    for word in text.split():
        together = not joined or joined[-1] in f"{_WITH},|(" or word[0] in ",|)"
        joined += word if together else f" {word}"
    version, _, build = joined.partition(" ")
    if " " in build:
        raise NotUnderstood(f"{text.strip()!r} has more than a version and a build")
    fuzzy = version.startswith("=") and not version.startswith("==")
    if fuzzy and not build and "=" in version[1:] and not set(version[1:]) & set(",|<>!~("):
        version, _, build = version[1:].partition("=")
    elif fuzzy and build and not set(version[1:]) & set(",|<>!~("):
        version = version[1:]  # with a build, conda takes the version to be exact
    return version, build


def version_fits(version: str, wanted: str) -> bool:
    """Return whether a version fits what it has to be: operators and stars, joined by `,` and `|`.

    Raises:
        NotUnderstood: one of them is of no known kind.
    """
    there = CondaVersion.of(version)
    tokens = [token for token in re.split(r"([,|()])", wanted.replace(" ", "")) if token]
    fits, end = _any(tokens, 0, there, 0)
    if end != len(tokens):
        raise NotUnderstood(f"{wanted!r} is no condition of versions")
    return fits


def _any(tokens: Sequence[str], at: int, there: CondaVersion, depth: int) -> tuple[bool, int]:
    fits, at = _all(tokens, at, there, depth)
    while at < len(tokens) and tokens[at] == "|":
        other, at = _all(tokens, at + 1, there, depth)
        fits = fits or other
    return fits, at


def _all(tokens: Sequence[str], at: int, there: CondaVersion, depth: int) -> tuple[bool, int]:
    fits, at = _one(tokens, at, there, depth)
    while at < len(tokens) and tokens[at] == ",":
        other, at = _one(tokens, at + 1, there, depth)
        fits = fits and other
    return fits, at


def _one(tokens: Sequence[str], at: int, there: CondaVersion, depth: int) -> tuple[bool, int]:
    if at >= len(tokens) or tokens[at] in ",|)" or depth > 10:
        raise NotUnderstood(f"{''.join(tokens)!r} is no condition of versions")
    if tokens[at] != "(":
        return _condition(tokens[at], there), at + 1
    fits, at = _any(tokens, at + 1, there, depth + 1)
    if at >= len(tokens) or tokens[at] != ")":
        raise NotUnderstood(f"{''.join(tokens)!r} has a parenthesis without an end")
    return fits, at + 1


def _condition(text: str, there: CondaVersion) -> bool:
    """Return whether a version fulfils one condition: `>=1.2`, `1.2.*`, `=1.2`, `1.2`."""
    if text in ("*", "=*", ">=*", "==*"):
        return True
    operator = next((one for one in _OPERATORS if text.startswith(one)), "")
    rest = text[len(operator) :]
    if rest[:1] in tuple(_WITH):
        raise NotUnderstood(f"{text!r} has no known operator")
    series = rest.endswith("*")
    number = rest.rstrip("*").rstrip(".") if series else rest
    if "*" in number or text.startswith("^") or text.endswith("$"):
        raise NotUnderstood(f"{text!r} is a pattern of another kind")
    wanted = CondaVersion.of(number)
    if operator == "=" or (series and operator in ("", "==")):
        return there.starts_with(wanted)
    if operator == "!=" and series:
        return not there.starts_with(wanted)
    if operator == "~=":
        if series or len(wanted.public) < 3:
            raise NotUnderstood(f"{text!r} has no series")
        return there.compared(wanted) >= 0 and there.starts_with(CondaVersion(wanted.public[:-1]))
    return _COMPARED[operator](there.compared(wanted))


_COMPARED: Mapping[str, Callable[[int], bool]] = {
    "": lambda sign: sign == 0,
    "==": lambda sign: sign == 0,
    "!=": lambda sign: sign != 0,
    "<=": lambda sign: sign <= 0,
    ">=": lambda sign: sign >= 0,
    "<": lambda sign: sign < 0,
    ">": lambda sign: sign > 0,
}


def glob_fits(text: str, pattern: str) -> bool:
    """Return whether a text fits a pattern in which each `*` stands for any characters."""
    first, *others = pattern.split("*")
    if not others:
        return text == first
    *middle, last = others
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return text.endswith(last)
