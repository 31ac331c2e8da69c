"""Commands as a person types them. What is in them may come from an image: none of it may be more
than a word to the shell, or steer the terminal that it is printed to."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Iterable
from itertools import groupby


def quoted(word: str) -> str:
    """A word for a POSIX shell, in signs that can be printed, and newlines."""
    if all(map(_plain, word)):
        return shlex.quote(word)
    return "".join(
        shlex.quote("".join(run)) if plain else f"\"$(printf '{_octal(''.join(run))}')\""
        for plain, run in groupby(word, _plain)
    )


def joined(words: Iterable[str]) -> str:
    """A command of these words."""
    return " ".join(map(quoted, words))


def _plain(char: str) -> bool:
    return char in "\n\t" or not unicodedata.category(char).startswith("C")


def _octal(text: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(text))
