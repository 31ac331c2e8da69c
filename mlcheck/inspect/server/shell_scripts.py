"""Programs and files that shell scripts of an image use, as far as their text shows.

Nothing is run. A word that only a shell could make (`$(...)`, an unknown variable, a pattern) is
left out, and so are files that the script itself tests or makes before.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import on_path, path_of
from mlcheck.inspect.server import python_wrappers
from mlcheck.inspect.server.facts import Program, Programs, ReadFile, ReadFiles
from mlcheck.inspect.server.shell_variables import Variables
from mlcheck.model.files import Problem

LIMIT = 64 * 1024
"""Bytes of a script that is read; a longer one is no wrapper."""

_CALLS_LIMIT = 100
"""Different programs that a wrapper may call."""

_TESTS_LIMIT = 300_000
"""Commands times tests for files, of one script; a longer one is no wrapper."""

_SHELLS = ("sh", "bash", "dash", "zsh", "ksh")
_WORDS_BEFORE = ("exec", "command", "nohup", "sudo", "then", "else", "do", "if", "!", "{", "time")
_BUILTIN = {"[", "[[", "declare", "echo", "eval", "export", "local", "printf", "return", "set"}
_BUILTIN |= {"case", "for", "function", "shift", "test"}
_READERS = {"cat": None, ".": 1, "source": 1, "sh": 1, "bash": 1, "cp": -1, "mv": -1}
"""Commands, each with the arguments that are files to read: all, the first, all but the last."""
_MADE = frozenset({"mkdir", "touch"})
_RUNTIME = ("/proc", "/sys", "/dev", "/run", "/var/run")
"""Directories whose files exist only when a container runs."""
_OPERATORS = re.compile(r"[();<>|&]+")
_HEREDOC = re.compile(r"<<-?\s*[\"']?(\w+)")


def programs(rootfs: RootFS, patterns: Sequence[str], env: Mapping[str, str]) -> Programs:
    """Find the programs whose paths match, and the missing programs that wrappers among them call.

    Args:
        patterns: paths with `*` in their last part.
        env: variables of the image, with its PATH.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    found: list[Program] = []
    problems: list[Problem] = []
    no_directories: list[str] = []
    for pattern in patterns:
        directory, _, last = pattern.rpartition("/")
        at = rootfs.resolve(directory or "/").final
        if at is None or at.type != "directory":
            no_directories.append(directory)
            continue
        for name in rootfs.listdir(directory or "/"):
            path = f"{directory}/{name}"
            final = rootfs.resolve(path).final
            if not fnmatchcase(name, last) or final is None or final.type != "file":
                continue
            try:
                kind, text = _script(rootfs, path, final.size)
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
                continue
            calls: tuple[str, ...] = ()
            if kind == "shell":
                calls = _missing_calls(rootfs, text, env)
            elif kind == "python":
                calls = _missing(rootfs, python_wrappers.called(text, env), env)
            found.append(Program(path, final.mode, calls))
    return Programs(tuple(found), tuple(problems), tuple(no_directories))


def read_files(
    rootfs: RootFS, commands: Sequence[str], env: Mapping[str, str], home: str
) -> ReadFiles:
    """Find the files that the shell scripts among the first words of some commands read.

    Args:
        commands: programs, found on PATH.
        home: of the user who runs them.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    known = {"HOME": home, **env}
    scripts, files = [], []
    for command in commands:
        path = on_path(rootfs, command, path_of(env))
        final = rootfs.resolve(path).final if path else None
        if path is None or final is None:
            continue
        try:
            kind, text = _script(rootfs, path, final.size)
        except Unreadable:
            continue
        if kind == "shell":
            scripts.append(path)
            for line, file in _reads(text, known):
                there = rootfs.resolve(file).final is not None
                files.append(ReadFile(f"{path}:{line}", file, there))
    return ReadFiles(tuple(scripts), tuple(files))


def _script(rootfs: RootFS, path: str, size: int) -> tuple[str, str]:
    """Return "shell" or "python" and the text of such a script, or "" and "" for anything else."""
    with rootfs.open(path) as file:
        head = file.read(128)
        first = head.partition(b"\n")[0]
        words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
        # `/usr/bin/env -S NAME` is a way to give options.
        names = {posixpath.basename(word) for word in words[:3]}
        kind = "shell" if names & {*_SHELLS} else ""
        if not kind and any(re.fullmatch(r"python[\d.]*", name) for name in names):
            kind = "python"
        if not kind or size > LIMIT:
            return "", ""
        return kind, (head + file.read(LIMIT)).decode("utf-8", "replace")


def _commands(text: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield simple commands: number of the line, words without quotes, and the operator before them
    ("<", ">", "|", ...)."""
    pending, start, ends = "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if ends:
            ends = "" if line.strip() == ends else ends
            continue
        start = start or number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        whole, pending, first, start = pending + line, "", start, 0
        if (here := _HEREDOC.search(whole)) and "<<<" not in whole:
            ends = here[1]
        try:
            lexer = shlex.shlex(whole, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # quotes over several lines
            continue
        part: list[str] = []
        before = ""
        for word in words:
            if _OPERATORS.fullmatch(word):
                yield first, part, before
                part, before = [], word
            else:
                part.append(word)
        yield first, part, before


def _missing_calls(rootfs: RootFS, text: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the missing programs that get the script's own arguments."""
    names: dict[str, None] = {}
    variables = Variables(env)
    for _, words, _ in _commands(text):
        variables.read(words)
        if not any(word in ("$@", "$*", "${@}") for word in words):
            continue
        rest = [word for word in words if not re.match(r"\w+=", word)]
        while rest and rest[0] in _WORDS_BEFORE:
            rest = rest[1:]
        # A variable that holds several words is split.
        expanded = (variables.expanded(rest[0]) or "").split() if rest else []
        if expanded and expanded[0] not in _BUILTIN and not expanded[0].startswith("-"):
            names[expanded[0]] = None
    first = list(names)[:_CALLS_LIMIT]
    return _missing(rootfs, [name for name in first if not _is_known_to(text, name)], env)


def _missing(rootfs: RootFS, names: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    found = names[:_CALLS_LIMIT]
    return tuple(name for name in found if on_path(rootfs, name, path_of(env)) is None)


def _is_known_to(text: str, name: str) -> bool:
    """Return whether a script has a function of this name, or tests for such a program."""
    called = re.escape(name)
    own = rf"^[ \t]*(?:function[ \t]+)?{called}[ \t]*\(\)"
    looks = rf"(?:-[ex]|command -v|which|type)[ \t]+[\"']?{called}"
    return bool(re.search(own, text, re.MULTILINE) or re.search(looks, text))


def _reads(text: str, env: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Yield line and path of each file that is read before the script itself makes it."""
    made: set[str] = set()
    variables = Variables(env)
    asked = set(re.findall(r"(?:\[|\btest|!)\s+-[defrsx]\s+[\"']?([^\s\"';\]]+)", text))
    tested = {path for word in asked if (path := _path(word, variables))}
    asked = {word for word in asked if "$" in word}
    left = _TESTS_LIMIT
    for line, words, before in _commands(text):
        # A variable has the value that it has here where the file is tested, too.
        tested |= {path for word in asked if (path := _path(word, variables))}
        left -= len(asked)
        if left < 0:
            return
        if words[:1] not in (["."], ["source"]):
            variables.read(words)
        target = words[:1] if before in (">", ">>", "<") else []
        for word in target:
            if path := _path(word, variables):
                if before == "<" and not _comes_later(path, made, tested):
                    yield line, path
                made.add(path)
        if before in (">", ">>", "<", "<<"):
            continue
        rest = [word for word in words if not re.match(r"\w+=", word)]
        while rest and rest[0] in _WORDS_BEFORE:
            rest = rest[1:]
        if not rest:
            continue
        arguments = [word for word in rest[1:] if not word.startswith("-")]
        if rest[0] in _MADE:
            made.update(path for word in arguments if (path := _path(word, variables)))
        if rest[0] not in _READERS:
            continue
        count = _READERS[rest[0]]
        for word in arguments[:count]:
            path = _path(word, variables)
            if path and not _comes_later(path, made, tested):
                yield line, path
        if count == -1 and arguments and (path := _path(arguments[-1], variables)):
            made.add(path)
        variables.read(rest)


def _comes_later(path: str, made: set[str], tested: set[str]) -> bool:
    parts = path.split("/")
    above = {"/".join(parts[: n + 1]) for n in range(1, len(parts))}
    return path in tested or not above.isdisjoint(made) or not above.isdisjoint(_RUNTIME)


def _path(word: str, variables: Variables) -> str | None:
    known = variables.expanded(re.sub(r"^~(?=/)", "$HOME", word))
    if known is None or not known.startswith("/"):
        return None
    return posixpath.normpath(known)
