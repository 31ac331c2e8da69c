"""What shell scripts of an image call and read, as far as their text tells it.

Nothing is run. A word that only a shell could make (`$(...)`, an unknown variable, a pattern) is
left out, and so is what the script itself tests or makes before.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from mlcheck.engines.base import RootFS, Unreadable
from mlcheck.facts import Problem, Program, Programs, ReadFile, ReadFiles
from mlcheck.probes.reading import on_path, path_of

LIMIT = 64 * 1024
"""Bytes of a script that is read; a longer one is no wrapper."""

_CALLS_LIMIT = 100
"""Different programs that a wrapper may call."""

_SHELLS = ("sh", "bash", "dash", "zsh", "ksh")
_WORDS_BEFORE = ("exec", "command", "nohup", "sudo", "then", "else", "do", "if", "!", "{", "time")
_BUILTIN = {"[", "[[", "declare", "echo", "eval", "export", "local", "printf", "return", "set"}
_BUILTIN |= {"case", "for", "function", "shift", "test"}
_READERS = {"cat": None, ".": 1, "source": 1, "sh": 1, "bash": 1, "cp": -1, "mv": -1}
"""Command to which of its arguments are files that it reads: all, the first, all but the last."""
_MADE = frozenset({"mkdir", "touch"})
_RUNTIME = ("/proc", "/sys", "/dev", "/run", "/var/run")
"""Where files come from when a container starts."""
_OPERATORS = re.compile(r"[();<>|&]+")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_HEREDOC = re.compile(r"<<-?\s*[\"']?(\w+)")


def programs(rootfs: RootFS, patterns: Sequence[str], env: Mapping[str, str]) -> Programs:
    """The programs whose paths fit, and what the wrappers among them call in vain.

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
                text = _script(rootfs, path, final.size)
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
                continue
            calls = _missing_calls(rootfs, text, env) if text else ()
            found.append(Program(path, final.mode, calls))
    return Programs(tuple(found), tuple(problems), tuple(no_directories))


def read_files(
    rootfs: RootFS, commands: Sequence[str], env: Mapping[str, str], home: str
) -> ReadFiles:
    """What the shell scripts among the first words of some commands read.

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
            text = _script(rootfs, path, final.size)
        except Unreadable:
            continue
        if text:
            scripts.append(path)
            for line, file in _reads(text, known):
                there = rootfs.resolve(file).final is not None
                files.append(ReadFile(f"{path}:{line}", file, there))
    return ReadFiles(tuple(scripts), tuple(files))


def _script(rootfs: RootFS, path: str, size: int) -> str:
    """The text of a shell script; "" for anything else."""
    with rootfs.open(path) as file:
        head = file.read(128)
        first = head.partition(b"\n")[0]
        words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
        names = {posixpath.basename(word) for word in words[:2]}
        if not names & {*_SHELLS} or size > LIMIT:
            return ""
        return (head + file.read(LIMIT)).decode("utf-8", "replace")


def _commands(text: str) -> Iterator[tuple[int, list[str], str]]:
    """Simple commands: number of the line, words with quotes taken away, and what stood before
    them ("<", ">", "|", ...)."""
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
    """The programs that get the script's own arguments, and are not there."""
    names: dict[str, None] = {}
    for _, words, _ in _commands(text):
        if not any(word in ("$@", "$*", "${@}") for word in words):
            continue
        rest = [word for word in words if not re.match(r"\w+=", word)]
        while rest and rest[0] in _WORDS_BEFORE:
            rest = rest[1:]
        name = _known(rest[0], env) if rest else None
        if name is not None and name not in _BUILTIN and not name.startswith("-"):
            names[name] = None
    return tuple(
        name
        for name in list(names)[:_CALLS_LIMIT]
        if not _is_known_to(text, name) and on_path(rootfs, name, path_of(env)) is None
    )


def _is_known_to(text: str, name: str) -> bool:
    """Whether a script has a function of this name, or looks whether there is such a program."""
    called = re.escape(name)
    own = rf"^[ \t]*(?:function[ \t]+)?{called}[ \t]*\(\)"
    looks = rf"(?:-[ex]|command -v|which|type)[ \t]+[\"']?{called}"
    return bool(re.search(own, text, re.MULTILINE) or re.search(looks, text))


def _reads(text: str, env: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Line and path of each file that is read before the script itself makes it."""
    made: set[str] = set()
    tested = {
        path
        for word in re.findall(r"(?:\[|\btest|!)\s+-[defrsx]\s+[\"']?([^\s\"';\]]+)", text)
        if (path := _path(word, env))
    }
    for line, words, before in _commands(text):
        target = words[:1] if before in (">", ">>", "<") else []
        for word in target:
            if path := _path(word, env):
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
            made.update(path for word in arguments if (path := _path(word, env)))
        if rest[0] not in _READERS:
            continue
        count = _READERS[rest[0]]
        for word in arguments[:count]:
            path = _path(word, env)
            if path and not _comes_later(path, made, tested):
                yield line, path
        if count == -1 and arguments and (path := _path(arguments[-1], env)):
            made.add(path)


def _comes_later(path: str, made: set[str], tested: set[str]) -> bool:
    parts = path.split("/")
    above = {"/".join(parts[: n + 1]) for n in range(1, len(parts))}
    return path in tested or not above.isdisjoint(made) or not above.isdisjoint(_RUNTIME)


def _known(word: str, env: Mapping[str, str]) -> str | None:
    """A word with the image's variables put in; None when only a shell could tell it."""
    filled = _VARIABLE.sub(lambda match: env.get(match[1] or match[2], "$"), word)
    return None if re.search(r"[$`*?]|\[", filled) else filled


def _path(word: str, env: Mapping[str, str]) -> str | None:
    known = _known(re.sub(r"^~(?=/)", "$HOME", word), env)
    if known is None or not known.startswith("/"):
        return None
    return posixpath.normpath(known)
