"""A rule: a test function of the suite, registered with its id, its keys and its documentation.

Rules in other projects use the same decorator:

    from mlcheck import Finding, Verdict, judged, rule

    @rule("thing-there", keys=["thing"])
    def test_thing_there(files: Files, profile: Profile) -> Verdict:
        \"\"\"One sentence that must hold.

        Why: the reason, and where it is written.

        Fix: how to fix the image.
        \"\"\"
        ...
        return judged(len(files), findings)
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TypeVar

from mlcheck.model.verdict import Verdict

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PARAGRAPHS = {"Why": "why", "Fix": "fix"}

Check = TypeVar("Check", bound=Callable[..., Verdict])


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the suite.

    Args:
        id: its only name: in reports, waivers, `-k`, `--rule` and `mlcheck explain`. Its function
            has the same name with the prefix `test_`.
        text: what must hold, one sentence.
        why: the reason for the rule, and its source (a document, an issue).
        fix: how to fix an image for which it does not hold.
        keys: keys of a profile that the image is compared with, such as "packages.required"; `*`
            matches any name. The rule is collected for the images whose profile has any of them;
            without keys, for all images.
        also: keys that it takes into account if a profile has them.
        slow: True if `-m "not slow"` leaves it out.
        check: the function: facts and profile in, a verdict out.
        file: the file in which the function stands.
    """

    id: str
    text: str
    why: str
    fix: str
    keys: tuple[str, ...]
    also: tuple[str, ...]
    slow: bool
    check: Callable[..., Verdict]
    file: Path

    @property
    def about(self) -> str:
        """Return one line on the subject of that file."""
        module = inspect.getmodule(self.check) or sys.modules.get(self.check.__module__)
        return ((module.__doc__ or "") if module else "").partition("\n")[0]


_RULES: dict[str, Rule] = {}
_OF_FUNCTIONS: dict[Callable[..., object], Rule] = {}


def rule(
    name: str, *, keys: Sequence[str] = (), also: Sequence[str] = (), slow: bool = False
) -> Callable[[Check], Check]:
    """Register a test function as the rule `name`; the function itself stays as it is.

    Args:
        keys, also, slow: see `Rule`.

    Raises:
        TypeError: `name` is not a valid name of a rule or already used in another file, the
            function is not named after it, or its docstring lacks a paragraph.
    """

    def register(check: Check) -> Check:
        made = _made(name, check, tuple(keys), tuple(also), slow)
        if name in _RULES and _RULES[name].file != made.file:
            raise TypeError(f"the rule {name!r} is in {_RULES[name].file} and in {made.file}")
        _RULES[name] = _OF_FUNCTIONS[check] = made
        return check

    return register


def rule_of(function: object) -> Rule | None:
    """Return the rule that a function implements, or None if it implements none."""
    return _OF_FUNCTIONS.get(function) if isinstance(function, FunctionType) else None


def registered() -> Mapping[str, Rule]:
    """Return the rules of all modules that have been imported, by their ids."""
    return _RULES


def _made(
    name: str,
    check: Callable[..., Verdict],
    keys: tuple[str, ...],
    also: tuple[str, ...],
    slow: bool,
) -> Rule:
    where = f"rule {name!r}"
    if not _ID.fullmatch(name):
        raise TypeError(f"{where}: a rule's name has small letters, digits and single hyphens")
    wanted = f"test_{name.replace('-', '_')}"
    if not isinstance(check, FunctionType) or check.__name__ != wanted:
        raise TypeError(f"{where}: its function is called {wanted}")
    file = Path(check.__code__.co_filename)
    said = {"text": ""} | dict.fromkeys(_PARAGRAPHS.values(), "")
    for paragraph in inspect.cleandoc(check.__doc__ or "").split("\n\n"):
        words = " ".join(paragraph.split())
        title, colon, rest = words.partition(": ")
        if colon and title in _PARAGRAPHS:
            said[_PARAGRAPHS[title]] = rest
        elif not said["text"]:
            said["text"] = words
    for part, content in said.items():
        if not content:
            lacks = "a first sentence" if part == "text" else f"a paragraph `{part.title()}: ...`"
            raise TypeError(f"{where}: its docstring lacks {lacks}")
    return Rule(name, said["text"], said["why"], said["fix"], keys, also, slow, check, file)
