"""Mistakes that people make: the table in docs/errors.md, from `mistakes.toml`.

Usage: python -m selftests.mistakes     writes docs/errors.md
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("mistakes.toml")
PAGE = Path(__file__).parents[1] / "docs/errors.md"

_HEAD = """\
# Mistakes, and what mlcheck says

A message says what happened, where, what was expected and what to do; none is a traceback. Each
row is tried for real by a self-test; in `good/` there is a tiny image. This page is written by
`python -m selftests.mistakes` from `selftests/mistakes.toml`.

[Exit codes](options.md#exit-codes) are the same for all commands. A mistake is found before
anything is opened where possible.
"""


@dataclass(frozen=True)
class Mistake:
    """One row.

    Args:
        what: the mistake, in words.
        run: the command, for a shell.
        says: words of the answer, in their order.
        exit: the exit code.
        do: what to do about it.
        given: shell commands that make the circumstances.
        who: "root" (of a mount namespace of its own), "nobody" (an ordinary user: this one, unless
            it is root), or "".
    """

    section: str
    what: str
    run: str
    says: tuple[str, ...]
    exit: int
    do: str
    given: str = ""
    who: str = ""


def mistakes() -> Iterator[Mistake]:
    """All rows, in the order of the file."""
    for section in tomllib.loads(FILE.read_text(encoding="utf-8"))["section"]:
        for row in section["mistake"]:
            fields: dict[str, Any] = {**row, "says": tuple(row["says"]), "who": row.pop("as", "")}
            fields.pop("as", None)
            yield Mistake(section=section["title"], **fields)


def page() -> str:
    """The text of docs/errors.md."""
    lines = [_HEAD]
    section = ""
    for row in mistakes():
        if row.section != section:
            section = row.section
            lines += ["", f"## {section}", ""] if lines[-1:] != [_HEAD] else [f"## {section}", ""]
            lines += ["| mistake | command | mlcheck says | exit code | what to do |"]
            lines += ["|---|---|---|---|---|"]
        command = row.run.removeprefix("exec ").replace("\n", "⏎").replace("$CHECKOUT/", "")
        says = " … ".join(_code(words) for words in row.says) or "(nothing)"
        cells = [row.what, _code(command), says, str(row.exit), row.do]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
