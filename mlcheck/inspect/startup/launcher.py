"""Entrypoints that are launchers, which start the command behind them, and those that are not."""

from __future__ import annotations

import re

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import on_path, opened, path_of
from mlcheck.model.environment import Environment

_TEXT_LIMIT = 64 * 1024
"""Bytes of a script that are read."""

_SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"))

_LAUNCHERS = frozenset(
    (
        *("tini", "tini-static", "docker-init", "dumb-init", "catatonit", "pid1", "init"),
        *("env", "nohup", "nice", "setpriv", "setsid", "gosu", "su-exec", "tini-g"),
        *("conda", "mamba", "micromamba", "pixi"),
    )
)
"""Programs whose arguments are a command. An image's own launcher is known by its text."""

_OF_SHELL = re.compile(
    r"""(?:^|[;&|({!]|\b(?:exec|eval|then|else|do|set|command|time|nohup|tini|"""
    r"""(?:gosu|su-exec)[^\S\n]++(?:\S++|(?=["']))))"""
    r"""[^\S\n]*+(?:-\S*+[^\S\n]++)*+["']?\$\{?[@*]""",
    re.MULTILINE,
)
"""The arguments of a shell script, where a command stands. Nothing is tried twice (`++`, `*+`)."""

_OF_PYTHON = re.compile(r"\b(?:exec[lv]p?e?|Popen|run|call|spawn\w+)\b")


def is_launcher(rootfs: RootFS, config: Environment) -> bool:
    """Return whether the entrypoint is meant to start the command behind it.

    A program such as `python3` takes the words behind it for its own.

    Raises:
        ProbeError: this machine forbids reading it.
    """
    first, *words = config.entrypoint or ("",)
    name = first.rpartition("/")[2]
    if name in _SHELLS and len(words) > 1 and re.fullmatch(r"-[a-z]*c", words[0]):
        # As ENTRYPOINT in shell form: it runs this text alone.
        return _OF_SHELL.search(words[1]) is not None
    path = path_of(config.env)
    if config.cmd and on_path(rootfs, config.cmd[0], path) is not None:
        return True
    found = on_path(rootfs, first, path)
    if found is not None and rootfs.resolve(found).final_path.rpartition("/")[2] in _LAUNCHERS:
        return True
    return name in _LAUNCHERS or (found is not None and _says_so(rootfs, found))


def _says_so(rootfs: RootFS, path: str) -> bool:
    try:
        with opened(rootfs, path) as file:
            text = file.read(_TEXT_LIMIT)
    except Unreadable:
        return False
    first, _, rest = text.decode("utf-8", "replace").partition("\n")
    if not first.startswith("#!"):
        return False
    if "python" in first:
        return "argv" in rest and _OF_PYTHON.search(rest) is not None
    return _OF_SHELL.search(rest) is not None
