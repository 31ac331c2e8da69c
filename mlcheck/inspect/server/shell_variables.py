"""Variables of a shell script, as far as its text shows their values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_PLAIN = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")
_DEFAULT = re.compile(r"\$\{(\w+)(:?[-=])([^{}]*)\}")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_DECLARES = frozenset({"export", "readonly", "declare", "typeset", "local"})
_OPENS = frozenset({"if", "case", "for", "while", "until", "select"})
_CLOSES = frozenset({"fi", "esac", "done"})
_NESTED = 4
"""Most defaults within defaults."""
_LONGEST = 4096
"""Most characters of a value and of a word: PATH_MAX of Linux; longer ones are unknown."""
_UNKNOWN = "$"
"""Stands for what only a shell could tell."""


class Variables:
    """Variables while a script is read, command by command.

    A variable that is set in a branch or loop, or by a file that the script sources, is unknown.

    Args:
        env: the variables that the script is started with.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._own: dict[str, str] = {}
        self._depth = 0
        self._sourced = False

    def expanded(self, word: str) -> str | None:
        """Return a word with its variables replaced, or None if only a shell could do so."""
        for _ in range(_NESTED):
            if len(word) > _LONGEST:
                return None
            word, count = _DEFAULT.subn(self._or_default, _PLAIN.sub(self._value, word))
            if not count:
                break
        return None if re.search(r"[$`*?]|\[", word) else word

    def _value(self, match: re.Match[str]) -> str:
        return self._known(match[1] or match[2], "") or _UNKNOWN

    def _or_default(self, match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        found = self._known(name, default)
        if operator.endswith("=") and name not in self._own and name not in self._env:
            self._set(name, found)
        # `-` asks whether the variable is set, `:-` also whether it is empty.
        return found or (default if operator.startswith(":") else "")

    def _known(self, name: str, otherwise: str) -> str:
        if name in self._own:
            return self._own[name]
        if name in self._env:
            return self._short(self._env[name])
        # Digits are arguments; a sourced file may set anything.
        return _UNKNOWN if self._sourced or name.isdigit() else otherwise

    def read(self, words: Sequence[str]) -> None:
        """Learn from a command what it sets.

        Args:
            words: of a simple command, without quotes.
        """
        words = [word for word in words if word not in ("then", "else", "do", "{", "!")]
        if not words:
            return
        first = words[0]
        if first in _OPENS:
            self._depth += 1
            if first in ("for", "select") and len(words) > 1:
                self._own[words[1]] = _UNKNOWN
            return
        if first in _CLOSES:
            self._depth = max(self._depth - 1, 0)
        elif first in (".", "source"):
            self._sourced = True
            self._own = dict.fromkeys(self._own, _UNKNOWN)
        elif first in ("read", "mapfile", "unset", "getopts"):
            self._own.update(dict.fromkeys(words[1:], _UNKNOWN))
        elif first == ":":
            for word in words[1:]:
                self.expanded(word)
        elif first in _DECLARES or _ASSIGNMENT.fullmatch(first):
            self._assign(words[1:] if first in _DECLARES else words)

    def _assign(self, words: Sequence[str]) -> None:
        pairs = [match for word in words if (match := _ASSIGNMENT.fullmatch(word))]
        if len(pairs) < sum(not word.startswith("-") for word in words) and "=" in words[0]:
            return  # for the command behind them alone
        for match in pairs:
            value = self.expanded(match[2])
            self._set(match[1], _UNKNOWN if value is None else value)

    def _set(self, name: str, value: str) -> None:
        self._own[name] = _UNKNOWN if self._depth else self._short(value)

    @staticmethod
    def _short(value: str) -> str:
        # Variables of variables of variables grow without end.
        return value if len(value) <= _LONGEST else _UNKNOWN
