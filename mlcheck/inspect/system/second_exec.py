"""Scripts that a shell starts, and that then hand themselves on to another interpreter.

pip, distlib, conda and uv write them where the first line would be too long for Linux, or have a
blank in it. Python takes the line with `exec` for a string:

    #!/bin/sh
    '''exec' /a/long/path/python "$0" "$@"
    ' '''
"""

from __future__ import annotations

import contextlib
import re
import shlex
from typing import NamedTuple

_SHELLS = frozenset(("sh", "bash", "dash", "ash", "ksh", "zsh"))
_LINES = 10
"""The first lines, among which it stands."""
_ITSELF = frozenset(("$0", "${0}", "$BASH_SOURCE", "${BASH_SOURCE}", "${BASH_SOURCE[0]}"))
# uv writes the first of these for environments that can be moved.
_FIND = r'\$\(dirname (?:-- )?(?:"?\$\((?:realpath|readlink -f) (?:-- )?"?\$0"?\)"?|"?\$0"?)\)'
_DIRECTORY = re.compile(f'"{_FIND}"|{_FIND}')
_HERE = "@directory@"
"""Stands for the script's directory while its line is parted into words."""


class SecondExec(NamedTuple):
    """The line with `exec`.

    Args:
        number: of the line.
        words: the interpreter and its arguments as written, before the script itself.
        program: the interpreter, with the script's directory in place of a command that finds it,
            or None if the shell has more to work out.
    """

    number: int
    words: tuple[str, ...]
    program: str | None


def second_exec(head: str, shell: str, directory: str) -> SecondExec | None:
    """Find the line by which a script of a shell hands itself on.

    Args:
        head: the first lines.
        shell: the interpreter of its first line.
        directory: the script's own, without symlinks.
    """
    if shell.rpartition("/")[2] not in _SHELLS:
        return None
    for number, line in enumerate(head.split("\n")[1:_LINES], 2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = _words(_DIRECTORY.sub(_HERE, line))
        if words[:1] != ["exec"] or _ITSELF.isdisjoint(words):
            if words[:1] == ["set"]:
                continue
            return None
        words = words[1 : next(n for n, word in enumerate(words) if word in _ITSELF)]
        if words[:1] == ["--"]:
            del words[0]
        if not words or words[0].startswith("-"):
            return None
        unknown = "$" in words[0] or "`" in words[0]
        program = None if unknown else words[0].replace(_HERE, directory)
        written = [word.replace(_HERE, "$(dirname $0)") for word in words]
        return SecondExec(number, tuple(written), program)
    return None


def _words(line: str) -> list[str]:
    # conda ends the line with a comment that closes Python's string.
    for text in (line, line.rpartition(" #")[0]):
        with contextlib.suppress(ValueError):
            return shlex.split(text)
    return []
