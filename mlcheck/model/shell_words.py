"""Shell commands for people to copy.

Their words may come from an image: each must be no more than a word to the shell, and must not
control the terminal that it is printed to.
"""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Iterable
from itertools import groupby


def quoted(word: str) -> str:
    """Quote a word for a POSIX shell, using printable characters and newlines only."""
    if all(map(_plain, word)):
        return shlex.quote(word)
    return "".join(
        shlex.quote("".join(run)) if plain else f"\"$(printf '{_octal(''.join(run))}')\""
        for plain, run in groupby(word, _plain)
    )


def joined(words: Iterable[str]) -> str:
    """Join words into a shell command."""
    return " ".join(map(quoted, words))


def _plain(char: str) -> bool:
    return char in "\n\t" or not unicodedata.category(char).startswith("C")


def _octal(text: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(text))
