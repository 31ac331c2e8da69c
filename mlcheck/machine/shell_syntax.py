"""The syntax of shell scripts, which this machine's shells read without running anything."""

from __future__ import annotations

import shutil
import subprocess

_LIMIT_S = 20.0

# `case` with +(a|b) needs bash's option extglob, with which `!(cmd)` is a pattern: either will do.
_READERS = {
    "bash": (("bash", "--norc", "--noprofile", "-n"), ("bash", "-O", "extglob", "-n")),
    "zsh": (("zsh", "-f", "-n"),),
    "csh": (("tcsh", "-f", "-n"),),
}


class NotRead(Exception):  # noqa: N818 - nothing is wrong with the script
    """No shell of this machine could read a script; the text says why, to follow its path."""


def here() -> tuple[str, ...]:
    """Return the shells that can read scripts on this machine ("bash", "zsh", "csh")."""
    return tuple(name for name, ways in _READERS.items() if shutil.which(ways[0][0]))


def syntax_error(script: bytes, shell: str) -> str | None:
    """Return what a shell says of a script, or None if it says nothing.

    Args:
        shell: "bash" for all that are like sh, "zsh" or "csh".

    Raises:
        NotRead: the shell is not here, or does not end.
    """
    said = None
    for argv in _READERS[shell]:
        program = shutil.which(argv[0])
        if program is None:
            raise NotRead(f"was not read: this machine has no {argv[0]}")
        try:
            done = subprocess.run(
                [program, *argv[1:]],
                input=script,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"LC_ALL": "C"},
                cwd="/",
                timeout=_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotRead(f"was not read by this machine's {argv[0]}: {error}") from error
        if done.returncode == 0:
            return None
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        said = said or (lines[0].partition(": ")[2] if lines else "") or "syntax error"
    return said
