"""The operating system, files, shells, commands, Python and scripts of an image."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import (
    TOKEN_BYTES,
    command_result,
    load_json,
    on_path,
    opened,
    path_of,
    shortened,
)
from mlcheck.inspect.files.facts import Files, Script, Scripts
from mlcheck.inspect.registry import fact
from mlcheck.inspect.system.facts import (
    Commands,
    NamedPython,
    OsRelease,
    PythonInfo,
    PythonProbe,
    Shell,
    Shells,
)
from mlcheck.inspect.system.second_exec import second_exec
from mlcheck.model.command import CommandResult
from mlcheck.model.files import Problem, ResolvedFile

SIZE_LIMIT = 64 * 1024
"""Bytes of /etc/os-release and /etc/redhat-release."""

LIMIT_S = 60.0
"""Seconds for one shell, command or Python to answer."""

OUTPUT_LIMIT = 1024 * 1024

TERMINAL = "xterm"
"""TERM of `docker run --tty`, where the image does not set it. Programs that draw on the screen
(curses) want one even for their version."""

_RELEASES = tuple(
    f"/etc/{name}-release"
    for name in ("redhat", "centos", "almalinux", "rocky", "oracle", "fedora", "system")
)
_PYTHONS = re.compile(r"python(3\.\d+)?")

_KERNEL_LIMIT = 255
"""Bytes of the first line that Linux reads (execve(2))."""

_HEAD = 4096
"""Bytes of a script that are read to find the end of its first lines."""

_BUILDERS = ("/home/conda/feedstock_root/", "/croot/", "/opt/conda/conda-bld/", "/feedstock_root/")
"""Where conda-forge and Anaconda build packages: nothing of it is in any image."""

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
    releases = {}
    for path in _RELEASES:
        if rootfs.resolve(path).file is not None:
            releases[path] = (_lines(rootfs, path, problems) or [""])[0]
    release = next((releases[path] for path in _RELEASES[:2] if path in releases), None)
    return OsRelease(fields, release or None, tuple(problems), releases)


def _lines(rootfs: RootFS, path: str, problems: list[Problem]) -> list[str]:
    try:
        content = rootfs.read(path, SIZE_LIMIT)
    except Unreadable as unreadable:
        problems.append(Problem(unreadable.path, unreadable.what))
        return []
    return [line.strip() for line in content.decode("utf-8", "replace").splitlines()]


def files(rootfs: RootFS, paths: Sequence[str]) -> Files:
    """Look up each of `paths`.

    Raises:
        ProbeError: this machine forbids looking.
    """
    return Files({path: rootfs.resolve(path) for path in paths})


def commands(image: OpenImage, commands: Mapping[str, Sequence[str]]) -> Commands:
    """Run each command, side by side, as at a terminal.

    Args:
        commands: name to argv.

    Raises:
        EngineError: the engine could not run them.
    """

    env = {"TERM": image.environment.env.get("TERM", TERMINAL)}

    def answer(argv: Sequence[str]) -> CommandResult:
        return command_result(image.run(argv, env=env, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return Commands(dict(zip(commands, pool.map(answer, commands.values()), strict=True)))


def shells(image: OpenImage, static: Ask, paths: Sequence[str]) -> Shells:
    """Start each shell that exists.

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


@fact(runs=True)
def python(image: OpenImage) -> PythonProbe:
    """Run the `python3` on PATH, in a user's environment, and let it describe itself; and the same
    for its other names.

    Raises:
        EngineError: the engine could not run it.
    """
    first = _python(image, "python3")  # where nothing runs, no file is looked at either
    path_env = path_of(image.environment.env)
    directories = [entry for entry in path_env.split(":") if entry.startswith("/")]
    names = {name for one in directories for name in image.rootfs.listdir(one)}
    others = {}
    for name in sorted(filter(_PYTHONS.fullmatch, names)):
        path = on_path(image.rootfs, name, path_env)
        if path is not None:
            others[name] = NamedPython(path, *_python(image, name))
    return PythonProbe(*first, others)


def _python(image: OpenImage, name: str) -> tuple[PythonInfo | None, CommandResult]:
    token = secrets.token_hex(TOKEN_BYTES)
    argv = [name, "-c", _PYTHON.format(token=token)]
    result = command_result(image.run(argv, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT))
    # A banner, or output of sitecustomize, may precede the answer.
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
    return info, result


def scripts(rootfs: RootFS, prefix: str, path_env: str) -> Scripts:
    """Find every script directly in `{prefix}/bin`; symlinks to one of the others are left out. Of
    the executable scripts elsewhere in the prefix, find those that want a program of the prefix, or
    of a machine that builds packages, and do not get it.

    Args:
        path_env: PATH, for `/usr/bin/env`.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    found: list[Script] = []
    problems: list[Problem] = []
    elsewhere: list[Script] = []
    # Python's own cgi.py asks for /usr/local/bin/python, which most systems have not.
    places = _BUILDERS if prefix in ("/usr", "/usr/local") else (f"{prefix}/", *_BUILDERS)
    for path in _programs_elsewhere(rootfs, prefix):
        line = _read_head(rootfs, path, []).partition(b"\n")[0].decode("utf-8", "replace")
        words = tuple(line.removeprefix("#!").split())
        own = words and words[0].startswith(places)
        if line.startswith("#!") and own and on_path(rootfs, words[0], path_env) is None:
            elsewhere.append(Script(path, words, None, 0o755))
    for path, mode in _programs(rootfs, f"{prefix}/bin"):
        head = _read_head(rootfs, path, problems)
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
        resolved, number = None, 1
        if program and words[0].startswith("/") and on_path(rootfs, words[0], path_env):
            resolved = on_path(rootfs, program, path_env)
        if resolved is not None:
            directory = rootfs.resolve(path).final_path.rpartition("/")[0]
            again = second_exec(head.decode("utf-8", "replace"), program, directory)
            if again is not None and again.program is not None:
                number, words = again.number, again.words
                resolved = on_path(rootfs, again.program, path_env)
        found.append(Script(path, words, resolved, mode, number))
    return Scripts(tuple(found), tuple(problems), tuple(elsewhere))


def _read_head(rootfs: RootFS, path: str, problems: list[Problem]) -> bytes:
    try:
        with opened(rootfs, path) as file:
            return file.read(_HEAD)
    except Unreadable as unreadable:
        problems.append(Problem(unreadable.path, unreadable.what))
        return b""


def _programs_elsewhere(rootfs: RootFS, prefix: str) -> Iterator[str]:
    """Yield the executable files of the prefix outside bin/, but for libraries, and for the
    packages in conda's cache, in which the prefix is not put in yet."""
    left_out = tuple(f"{prefix}/{name}/" for name in ("bin", "pkgs", "envs"))
    for file in rootfs.walk(prefix):
        if file.type == "file" and file.mode & 0o111 and file.size:
            name = file.path.rpartition("/")[2]
            if ".so" not in name and not file.path.startswith(left_out):
                yield file.path


def _programs(rootfs: RootFS, directory: str) -> Iterator[tuple[str, int]]:
    real = rootfs.resolve(directory).final_path
    for name in rootfs.listdir(directory):
        if name.endswith("-gdb.py"):
            continue  # gdb loads it beside the program (its manual, "The objfile-gdb.ext file")
        resolved = rootfs.resolve(f"{directory}/{name}")
        if resolved.final is None or resolved.final.type != "file":
            continue
        is_link = resolved.file is not None and resolved.file.type == "symlink"
        if is_link and resolved.final_path.rpartition("/")[0] == real:
            continue
        yield f"{directory}/{name}", resolved.final.mode


def _program(interpreter: str, line: str) -> str:
    """Return the program that runs a script with `line` after its `#!`.

    Linux passes all text after the interpreter as one word, hence `env python3 -I` looks
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
