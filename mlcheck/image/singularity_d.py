"""The configuration of an unpacked image, from its `/.singularity.d`.

apptainer, singularity and CVMFS unpack an image of a registry into a plain directory, which has no
place for the image's configuration. Instead, they write it into scripts below `/.singularity.d`.
These are read as text, in the form in which those tools write them, and never run.

The form: `insertEnv`, `insertRunScript` and `insertOCILabels` in
https://github.com/apptainer/apptainer/blob/main/internal/pkg/build/sources/conveyorPacker_oci.go
and https://github.com/cvmfs/cvmfs/blob/devel/ducc/singularity/startup_files.go
"""

from __future__ import annotations

import json
import re

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.model.environment import Environment
from mlcheck.model.files import Problem

DIRECTORY = "/.singularity.d"
ENV_FILE = f"{DIRECTORY}/env/10-docker2singularity.sh"
RUNSCRIPT = f"{DIRECTORY}/runscript"
LABELS = f"{DIRECTORY}/labels.json"

LIMIT = 1024 * 1024
"""Most bytes of each of these files; real ones have a few thousand."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_DOUBLE_QUOTED = r'"((?:[^"\\]|\\.)*+)"'
_EXPORT = re.compile(
    rf'export (?P<name>{_NAME})=(?:"\$\{{(?P=name):-(?:{_DOUBLE_QUOTED})?\}}"'
    rf"|{_DOUBLE_QUOTED}|'([^']*+)'|([^\s\"'`$\\;&|<>()#*?]*+))[ \t]*(?=\n|\Z)",
    re.DOTALL,
)
_COMMENT_OR_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?=\n|\Z)")
_OCI_VARIABLE = re.compile(r"^(OCI_ENTRYPOINT|OCI_CMD)=", re.MULTILINE)
# apptainer writes a single quote in an argument as '"'"'.
_SINGLE_QUOTED = re.compile(r"""'((?:[^']|'"'"')*+)'(?=\n|\Z)""")
_ARGUMENTS = re.compile(rf"(?:{_DOUBLE_QUOTED}(?: |\Z))*+", re.DOTALL)
_ARGUMENT = re.compile(_DOUBLE_QUOTED, re.DOTALL)
_SHELL_ESCAPED = re.compile(r'(?:[^\\"`$]|\\[\\"`$])*+')
_GO_ESCAPE = re.compile(
    rb"\\(?:([abfnrtv\\\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))", re.DOTALL
)
_GO_LETTERS = dict(zip(b'abfnrtv\\"', b'\a\b\f\n\r\t\v\\"', strict=True))


def read_environment(rootfs: RootFS) -> Environment:
    """Read from `/.singularity.d` how the image is started.

    User, working directory and exposed ports are not recorded there. Variables that a script would
    compute at start ("$PATH:...") are problems, not values.

    Raises:
        ProbeError: this machine's permissions do not allow reading it.
    """
    problems: list[Problem] = []
    read = [path for path in (ENV_FILE, RUNSCRIPT, LABELS) if rootfs.lstat(path) is not None]
    texts = {path: _text(rootfs, path, problems) for path in read}
    env = _env(texts.get(ENV_FILE) or "", problems)
    entrypoint, cmd = _start(texts.get(RUNSCRIPT) or "", problems)
    labels_text = texts.get(LABELS)
    labels = None if labels_text is None else _labels(labels_text, problems)
    source = ", ".join(read) or f"nothing: the directory has no configuration in {DIRECTORY}"
    return Environment(
        env=env,
        entrypoint=entrypoint,
        cmd=cmd,
        user=None,
        workdir=None,
        exposed=None,
        labels=labels,
        source=source,
        problems=tuple(problems),
    )


def _text(rootfs: RootFS, path: str, problems: list[Problem]) -> str | None:
    try:
        return rootfs.read(path, LIMIT).decode("utf-8", "surrogateescape")
    except Unreadable as error:
        problems.append(Problem(path, error.what))
        return None


def _env(text: str, problems: list[Problem]) -> dict[str, str]:
    env: dict[str, str] = {}
    at, line = 0, 1
    while at < len(text):
        if export := _EXPORT.match(text, at):
            name, default, double, single, bare = export.groups()
            end = export.end()
            quoted = double if default is None else default
            value = single if quoted is None else _value(quoted)
            if value is None and quoted is not None:
                what = f"sets {name} to what a shell would compute at start; that is not followed"
                problems.append(Problem(f"{ENV_FILE}:{line}", what))
            elif value is None and bare is not None:
                value = bare
            # `${NAME:-}` denotes a variable that the image names without a value.
            if value is not None:
                env[name] = value
        elif blank := _COMMENT_OR_BLANK.match(text, at):
            end = blank.end()
        else:
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            what = f'is no `export NAME="VALUE"`: {text[at : min(end, at + 80)]!r}'
            problems.append(Problem(f"{ENV_FILE}:{line}", what))
        line += text.count("\n", at, end + 1)
        at = end + 1
    return env


def _value(quoted: str) -> str | None:
    """Return the variable's value from the text between the double quotes.

    Newer versions escape a value for the shell and then quote it as a Go string; older ones only
    escape it. Text that came from the newer ones is always valid both ways, and for values without
    backslash, quote, backtick and dollar both give the same.
    """
    unquoted = _go_unquoted(quoted)
    value = None if unquoted is None else _unescaped(unquoted)
    return _unescaped(quoted) if value is None else value


def _unescaped(text: str) -> str | None:
    """Undo apptainer's shell.Escape; return None if the text cannot come from it."""
    if not _SHELL_ESCAPED.fullmatch(text):
        return None
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _go_unquoted(text: str) -> str | None:
    """Undo Go's %q, without the enclosing quotes; return None if the text cannot come from it.

    Escapes: https://go.dev/ref/spec#String_literals, without the octal ones, which %q never uses.
    """
    wrong = False

    def plain(escape: re.Match[bytes]) -> bytes:
        nonlocal wrong
        letter, byte, short, long, other = escape.groups()
        if letter is not None:
            return bytes([_GO_LETTERS[letter[0]]])
        if byte is not None:
            return bytes([int(byte, 16)])
        code = int(short or long or b"0", 16)
        wrong = wrong or other is not None or code > 0x10FFFF or 0xD800 <= code < 0xE000
        return b"" if wrong else chr(code).encode()

    value = _GO_ESCAPE.sub(plain, text.encode("utf-8", "surrogateescape"))
    return None if wrong else value.decode("utf-8", "surrogateescape")


def _start(
    text: str, problems: list[Problem]
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return entrypoint and command; both None if the runscript was not made from an OCI image."""
    found: dict[str, tuple[str, ...]] = {}
    for match in _OCI_VARIABLE.finditer(text):
        quoted = _SINGLE_QUOTED.match(text, match.end())
        arguments = "" if quoted is None else quoted[1].replace("'\"'\"'", "'")
        values = [_unescaped(value) for value in _ARGUMENT.findall(arguments)]
        if quoted is None or not _ARGUMENTS.fullmatch(arguments) or None in values:
            line = text.count("\n", 0, match.start()) + 1
            shown = text[match.end() : match.end() + 80].partition("\n")[0]
            what = f"{match[1]} is no list of quoted arguments: {shown}"
            problems.append(Problem(f"{RUNSCRIPT}:{line}", what))
        else:
            found[match[1]] = tuple(value for value in values if value is not None)
    return found.get("OCI_ENTRYPOINT"), found.get("OCI_CMD")


def _labels(text: str, problems: list[Problem]) -> dict[str, str] | None:
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(Problem(LABELS, f"is not valid JSON: {error}"))
        return None
    if labels is None:  # Go's form of an image without labels
        return {}
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        problems.append(Problem(LABELS, "is no JSON object of texts"))
        return None
    return labels
