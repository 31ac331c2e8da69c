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


def syntax_error(script: bytes, shell: str) -> str | None:
    """Return what a shell says of a script, or None if it says nothing or is not here.

    Args:
        shell: "bash" for all that are like sh, "zsh" or "csh".
    """
    said = None
    for argv in _READERS[shell]:
        program = shutil.which(argv[0])
        if program is None:
            return None
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
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode == 0:
            return None
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        said = said or (lines[0].partition(": ")[2] if lines else "") or "syntax error"
    return said
