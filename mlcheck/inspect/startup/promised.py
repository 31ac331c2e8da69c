"""Facts about a start that the profile promises: the entrypoint's program, and the banner."""

from __future__ import annotations

import posixpath
import re
from typing import Literal

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect import answers
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.inspect.server.users import PASSWD
from mlcheck.inspect.startup import probe
from mlcheck.inspect.startup.facts import Banner, EntrypointProgram, StartProgram
from mlcheck.inspect.system import probe as system
from mlcheck.model.errors import needed
from mlcheck.profile.catalog import Profile

_FIRST_LINE = 256
"""Bytes of a script's first line that the kernel reads: execve(2)."""


@fact()
def entrypoint_program(image: OpenImage, ask: Ask, profile: Profile) -> EntrypointProgram:
    """The program that the promised entrypoint starts; one without a slash is found on PATH."""
    expected = needed(profile.expect.entrypoint, "the profile promises no entrypoint")
    path_env = answers.path_of(image.environment.env)
    found = ask(answers.on_path, image.rootfs, expected.argv[0], path_env)
    path = found or expected.argv[0]
    return EntrypointProgram(ask(system.files, image.rootfs, [path]).files[path])


@fact()
def start_program(image: OpenImage, ask: Ask) -> StartProgram | None:
    """Find the program that ENTRYPOINT, or else CMD, starts; None if neither is known."""
    config = image.environment
    instruction, words = ("ENTRYPOINT", config.entrypoint)
    if not words:
        instruction, words = ("CMD", config.cmd)
    if not words:
        return None
    path_env = answers.path_of(config.env)
    path: str | None = posixpath.join(config.workdir or "/", words[0])
    if "/" not in words[0]:
        path = ask(answers.on_path, image.rootfs, words[0], path_env)
    if path is None:
        return StartProgram(instruction, words[0], None, path_env)
    file = ask(system.files, image.rootfs, [path]).files[path]
    if file.final is None:
        return StartProgram(instruction, words[0], file, path_env)
    line = _first_bytes(image.rootfs, path)
    interpreter = _interpreter(line)
    steps = posixpath.dirname(file.final_path).strip("/").split("/")
    way = ["/" + "/".join(steps[:count]) for count in range(1, len(steps) + 1) if steps[0]]
    passwd = image.rootfs.resolve(PASSWD).final
    return StartProgram(
        instruction,
        words[0],
        file,
        path_env,
        kind=_kind(line),
        interpreter=interpreter,
        interpreter_there=not interpreter or image.rootfs.resolve(interpreter).final is not None,
        way=tuple(found for one in way if (found := image.rootfs.resolve(one).final)),
        owners_known=passwd is not None and passwd.uid == 0,
    )


def _first_bytes(rootfs: RootFS, path: str) -> bytes | None:
    try:
        with rootfs.open(path) as file:
            return file.read(_FIRST_LINE)
    except Unreadable:
        return None


def _kind(start: bytes | None) -> Literal["script", "elf", "other"] | None:
    if start is None:
        return None
    return "script" if start[:2] == b"#!" else "elf" if start[:4] == b"\x7fELF" else "other"


def _interpreter(start: bytes | None) -> str:
    """Return the interpreter that the first line of a script names, as the kernel takes it; "" for
    a file that is no script.

    A line that ends as on Windows names a program whose name ends with a carriage return.
    """
    if start is None or _kind(start) != "script":
        return ""
    words = start[2:].partition(b"\n")[0].decode("utf-8", "replace").strip(" \t")
    return re.split("[ \t]", words, maxsplit=1)[0]


@fact(runs=True)
def banner(image: OpenImage, ask: Ask, profile: Profile, prefix: PrefixPath) -> Banner:
    """Source the banner by itself, and print it in a start."""
    expected = needed(profile.expect.banner, "the profile promises no banner")
    return probe.banner(image, ask, expected.script, expected.silenced_by, prefix)
