"""The operating system, files, shells, commands, Python and scripts of an image."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.engines.base import Ask, OpenImage, RootFS, Unreadable
from mlcheck.facts import (
    CommandResult,
    Commands,
    Files,
    OsRelease,
    Problem,
    PythonInfo,
    PythonProbe,
    ResolvedFile,
    Script,
    Scripts,
    Shell,
    Shells,
)
from mlcheck.probes.reading import (
    TOKEN_BYTES,
    command_result,
    load_json,
    on_path,
    opened,
    shortened,
)

SIZE_LIMIT = 64 * 1024
"""Bytes of /etc/os-release and /etc/redhat-release."""

LIMIT_S = 60.0
"""Seconds for one shell, command or Python to answer."""

OUTPUT_LIMIT = 1024 * 1024

_KERNEL_LIMIT = 255
"""Bytes of the first line that Linux reads (execve(2))."""

_HEAD = 4096
"""Bytes of a script that are read to find the end of its first line."""

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_PYTHON = """\
import json, os, platform, sys
said = [sys.executable, sys.prefix, platform.python_version()]
os.write(1, ("\\n{token} " + json.dumps(said) + "\\n").encode())
"""


def os_release(rootfs: RootFS) -> OsRelease:
    """os-release(5), and the release file of Red Hat's family.

    Raises:
        ProbeError: this machine forbids reading it.
    """
    problems: list[Problem] = []
    fields: dict[str, str] = {}
    paths = ("/etc/os-release", "/usr/lib/os-release")
    path = next((path for path in paths if rootfs.resolve(path).file), paths[0])
    for number, line in enumerate(_lines(rootfs, path, problems), start=1):
        if not line or line.startswith("#"):
            continue
        assignment = _ASSIGNMENT.fullmatch(line)
        try:
            words = shlex.split(assignment[2]) if assignment else []
        except ValueError:
            assignment = None
        if assignment is None or len(words) > 1:
            what = f"is no assignment of os-release(5): {shortened(line)}"
            problems.append(Problem(f"{path}:{number}", what))
        else:
            # shlex leaves two of the shell's escapes that os-release(5) allows.
            fields[assignment[1]] = re.sub(r"\\([$`])", r"\1", words[0]) if words else ""
    release = None
    for path in ("/etc/redhat-release", "/etc/centos-release"):
        if rootfs.resolve(path).file is not None:
            lines = _lines(rootfs, path, problems)
            release = lines[0] if lines else None
            break
    return OsRelease(fields, release, tuple(problems))


def _lines(rootfs: RootFS, path: str, problems: list[Problem]) -> list[str]:
    try:
        content = rootfs.read(path, SIZE_LIMIT)
    except Unreadable as unreadable:
        problems.append(Problem(unreadable.path, unreadable.what))
        return []
    return [line.strip() for line in content.decode("utf-8", "replace").splitlines()]


def files(rootfs: RootFS, paths: Sequence[str]) -> Files:
    """What is at each of `paths`.

    Raises:
        ProbeError: this machine forbids looking.
    """
    return Files({path: rootfs.resolve(path) for path in paths})


def commands(image: OpenImage, commands: Mapping[str, Sequence[str]]) -> Commands:
    """Run each command, side by side.

    Args:
        commands: name to argv.

    Raises:
        EngineError: the engine could not run them.
    """

    def answer(argv: Sequence[str]) -> CommandResult:
        return command_result(image.run(argv, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return Commands(dict(zip(commands, pool.map(answer, commands.values()), strict=True)))


def shells(image: OpenImage, static: Ask, paths: Sequence[str]) -> Shells:
    """Start each shell that is there.

    Args:
        paths: absolute.

    Raises:
        EngineError: the engine could not run them.
    """
    there = static(files, image.rootfs, paths).files
    return Shells(tuple(_shell(image, path, there[path]) for path in paths))


def _shell(image: OpenImage, path: str, resolved: ResolvedFile) -> Shell:
    if resolved.final is None:
        return Shell(path, None, None)
    # The shell has to work something out: a program that only repeats its words is no shell.
    # csh has no $((...)).
    script = "echo mlcheck-`echo 42`" if path.endswith("csh") else "echo mlcheck-$((6*7))"
    completed = image.run([path, "-c", script], limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT)
    return Shell(path, resolved.final_path, command_result(completed))


def python(image: OpenImage) -> PythonProbe:
    """Ask the `python3` that PATH starts who it is, in the environment that a user has.

    Raises:
        EngineError: the engine could not run it.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    argv = ["python3", "-c", _PYTHON.format(token=token)]
    result = command_result(image.run(argv, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT))
    # A banner, or what sitecustomize prints, may stand before the answer.
    _, found, answer = result.stdout.rpartition(f"\n{token} ")
    info = None
    if found:
        try:
            said = load_json(answer.partition("\n")[0].encode(), "its answer")
        except Unreadable:
            said = None
        match said:
            case [str(executable), str(prefix), str(version)]:
                info = PythonInfo(executable, prefix, version)
    return PythonProbe(info, result)


def scripts(rootfs: RootFS, prefix: str, path_env: str) -> Scripts:
    """Every script directly in `{prefix}/bin`; symlinks to one of the others are left out.

    Args:
        path_env: PATH, for `/usr/bin/env`.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    found: list[Script] = []
    problems: list[Problem] = []
    for path, mode in _programs(rootfs, f"{prefix}/bin"):
        try:
            with opened(rootfs, path) as file:
                head = file.read(_HEAD)
        except Unreadable as unreadable:
            problems.append(Problem(unreadable.path, unreadable.what))
            continue
        if not head.startswith(b"#!"):
            continue
        first = head.partition(b"\n")[0]
        # A carriage return stays: to Linux it is a part of the interpreter's name.
        line = first[2:].decode("utf-8", "replace").strip(" \t")
        if len(first) > _KERNEL_LIMIT:
            what = f"has a first line of more than {_KERNEL_LIMIT} bytes: {shortened(line)}"
            problems.append(Problem(path, what))
        elif not line:
            problems.append(Problem(path, "names no interpreter after #!"))
        words = tuple(re.split(r"[ \t]+", line)) if line else ()
        program = _program(words[0], line) if words else ""
        resolved = None
        if program and words[0].startswith("/") and on_path(rootfs, words[0], path_env):
            resolved = on_path(rootfs, program, path_env)
        found.append(Script(path, words, resolved, mode))
    return Scripts(tuple(found), tuple(problems))


def _programs(rootfs: RootFS, directory: str) -> Iterator[tuple[str, int]]:
    real = rootfs.resolve(directory).final_path
    for name in rootfs.listdir(directory):
        resolved = rootfs.resolve(f"{directory}/{name}")
        if resolved.final is None or resolved.final.type != "file":
            continue
        is_link = resolved.file is not None and resolved.file.type == "symlink"
        if is_link and resolved.final_path.rpartition("/")[0] == real:
            continue
        yield f"{directory}/{name}", resolved.final.mode


def _program(interpreter: str, line: str) -> str:
    """The program that runs a script with `line` after its `#!`.

    Linux hands all that follows the interpreter over as one word, hence `env python3 -I` looks
    for a program "python3 -I"; `env -S` splits it.
    """
    argument = line.removeprefix(interpreter).strip(" \t")
    if interpreter.rpartition("/")[2] != "env" or not argument:
        return interpreter
    for option in ("-S", "--split-string="):
        if argument.startswith(option):
            words = argument.removeprefix(option).split()
            rest = [word for word in words if not word.startswith("-") and "=" not in word]
            return rest[0] if rest else interpreter
    return argument
