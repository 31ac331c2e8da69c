"""An unpacked image as a virtual environment on the host (`source IMAGE_DIR/setupMe-on-host.sh`).

"The host" is a sandbox that has this machine's system and the image, and nothing else of it
(`mlcheck.engines.sandbox.host`): an image's script is never run on the machine itself.
"""

from __future__ import annotations

import posixpath
import secrets
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mlcheck.engines.base import HostView, OpenImage
from mlcheck.image.api import Unreadable
from mlcheck.inspect.answers import TOKEN_BYTES, command_result, framed, how_it_ended, load_json
from mlcheck.inspect.elf.loader_trace import loaded
from mlcheck.inspect.host_use.facts import (
    HostCommands,
    HostLibraries,
    HostShell,
    InsideSetup,
    LoadedFiles,
)
from mlcheck.model.command import CommandResult

LIMIT_S = 120.0
OUTPUT_LIMIT = 4 * 1024 * 1024
_MOST_FILES = 20_000

VARIABLES = (
    *("MAMBA_EXE", "CONDA_PREFIX", "MAMBA_ROOT_PREFIX", "JUPYTER_PATH", "SSL_CERT_FILE"),
    *("EnvTopDir", "PYTHONHOME", "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH"),
)
"""The variables that the script's documentation covers, and those by which it would change what
the host's own programs load."""

_SET_BEFORE = {"LD_LIBRARY_PATH": "/nowhere/lib", "PYTHONPATH": "/nowhere/python"}
"""What other software on a host has set, as modules and views of CVMFS do."""

_SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "-c"),
    "zsh": ("zsh", "-f", "-c"),
}

# Works with Python 3.8 and later. The answer goes to the descriptor, and the process ends without
# the threads and exit handlers of what it imported.
_LOADED = """\
import importlib, json, os, sys
failed = {{}}
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = (type(error).__name__ + ": " + str(error))[:500]
with open("/proc/self/maps") as maps:
    fields = [line.rstrip("\\n").split(None, 5) for line in maps]
files = {{line[5] for line in fields if len(line) > 5}}
files |= {{getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}}
files |= {{entry for entry in sys.path if os.path.exists(entry)}}
answer = {{"files": sorted(f for f in files if f.startswith("/"))[:{most}], "failed": failed}}
os.write(1, ("\\n{token} " + json.dumps(answer) + "\\n").encode())
os._exit(0)
"""


def has_shell(host: HostView, shell: str) -> bool:
    """Return whether the host has a shell of this name."""
    return host.run([shell, "-c", "exit 0"], limit_s=20).exit_code == 0


def shell(host: HostView, shell: str, script: str) -> HostShell:
    """Source `script` of the image in a shell of the host, with a PYTHONHOME that does not exist.

    Raises:
        EngineError: the sandbox failed.
    """
    path = f"{host.image}{script}"
    top, _, name = host.image.rpartition("/")
    relative = shlex.quote(f"./{name}{script}")
    once, said = _sourced(host, shell, f". {shlex.quote(path)}")
    twice = f"cd {shlex.quote(top or '/')}\n. {relative} > /dev/null 2>&1\n. {relative}"
    _, again = _sourced(host, shell, twice, _SET_BEFORE)
    return HostShell(
        shell=shell,
        image=host.image,
        script=path,
        result=once,
        code=_code(said),
        variables=_variables(said),
        usable=frozenset(words[2] for words in said if words[1:2] == ["usable"]),
        again_code=_code(again),
        again=_variables(again),
    )


def _sourced(
    host: HostView, shell: str, source: str, before: Mapping[str, str] = MappingProxyType({})
) -> tuple[CommandResult, list[list[str]]]:
    """Source the script, and return what was said of the variables afterwards.

    Args:
        before: variables that the host has set.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    program = [source, f"printf '\\n{token} code %s\\n' \"$?\""]
    for name in VARIABLES:
        usable = '[ -f "$_value" ] && [ -r "$_value" ]'
        if name == "MAMBA_EXE":
            version = '$("$_value" --version 2> /dev/null < /dev/null)'
            usable = f'[ -x "$_value" ] && case {version} in *[0-9].[0-9]*) ;; *) false ;; esac'
        program += [
            # The variables that programs will see, not the shell's own.
            f"_value=$(printenv {name}) && printf '{token} set {name} %s\\n' \"$_value\"",
            f"{usable} && printf '{token} usable {name}\\n'",
        ]
    result = command_result(
        host.run(
            [*_SHELLS[shell], "\n".join(program)],
            env={"PYTHONHOME": "/nowhere", **before},
            limit_s=LIMIT_S,
            output_limit=OUTPUT_LIMIT,
        )
    )
    said = [line.split(" ", 3) for line in result.stdout.split("\n") if line.startswith(token)]
    return result, said


def _variables(said: list[list[str]]) -> dict[str, str]:
    return {words[2]: words[3] for words in said if words[1:2] == ["set"] and words[3:]}


def inside(image: OpenImage, script: str) -> InsideSetup:
    """Source `script` inside the image, where there is nothing to set up.

    Raises:
        EngineError: the engine could not run it.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    show = "; ".join(f'printf "%s\\0" "${{{name}-}}"' for name in VARIABLES)
    program = (
        f"_mlcheck() {{ {show}; }}\n_before=$(_mlcheck | od -An -tx1)\n"
        f". {shlex.quote(script)}\nprintf '\\n{token} code %s\\n' \"$?\"\n"
        f'[ "$_before" = "$(_mlcheck | od -An -tx1)" ] && printf \'{token} same\\n\'\n'
    )
    result = command_result(
        image.run(
            ["/bin/bash", "--norc", "--noprofile", "-c", program],
            limit_s=LIMIT_S,
            output_limit=OUTPUT_LIMIT,
        )
    )
    said = [line.split(" ", 3) for line in result.stdout.split("\n") if line.startswith(token)]
    output = result.stdout.partition(f"\n{token} ")[0] + result.stderr
    same = any(words[1:] == ["same"] for words in said)
    return InsideSetup(script, result, _code(said), output, () if same else VARIABLES)


def commands(host: HostView, script: str, commands: Mapping[str, Sequence[str]]) -> HostCommands:
    """Run each command in a bash of the host in which `script` was sourced.

    Raises:
        EngineError: the sandbox failed.
    """
    return HostCommands(
        {name: _run(host, script, argv, own=True) for name, argv in commands.items()}
    )


def libraries(
    host: HostView,
    script: str,
    prefix: str,
    real: str,
    modules: Sequence[str],
    programs: Sequence[str],
) -> HostLibraries:
    """Find the libraries of the image's python3, importing `modules`, and of its other `programs`.

    Args:
        prefix: the image's own; the host has a directory of that name too.
        real: the same after all links in the image.
        programs: their paths in the image.

    Raises:
        EngineError: the sandbox failed.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    code = _LOADED.format(modules=list(modules), token=token, most=_MOST_FILES)
    result = _run(host, script, ["python3", "-c", code])
    python = _python(result, token)
    traced = []
    for program in programs:
        words = ["env", "LD_TRACE_LOADED_OBJECTS=1", f"{host.image}{program}"]
        traced.append(_traced(program, _run(host, script, words)))
    return HostLibraries(host.image, prefix, python, tuple(traced), f"{host.image}{real}")


def _run(host: HostView, script: str, argv: Sequence[str], *, own: bool = False) -> CommandResult:
    """Run a command after the script; with `own` only if it is the image's, not the host's."""
    path = shlex.quote(f"{host.image}{script}")
    command = shlex.join(argv)
    program = f". {path} > /dev/null 2>&1 < /dev/null\n"
    if own:
        # As at a prompt, a function or an alias comes before any file; it can only be the script's.
        program = (
            f"shopt -s expand_aliases\n{program}"
            f"case $(type -t {shlex.quote(argv[0])}) in function | alias) {command}; exit ;; esac\n"
            f"case $(type -P {shlex.quote(argv[0])}) in {host.image}/*) ;;\n"
            f"*) echo 'the image has none on PATH' >&2; exit 127 ;; esac\n"
        )
    # The command is in the text, not after it: a sourced script sees the shell's arguments.
    words = [*_SHELLS["bash"], f"{program}exec {command}\n"]
    return command_result(host.run(words, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT))


def _python(result: CommandResult, token: str) -> LoadedFiles:
    try:
        answer = load_json(framed(result.stdout, token).encode(), "its answer")
    except Unreadable:
        answer = None
    files = answer.get("files") if isinstance(answer, dict) else None
    failed = answer.get("failed") if isinstance(answer, dict) else None
    if not isinstance(files, list) or not isinstance(failed, dict):
        return LoadedFiles("python3", (), error=how_it_ended(result, LIMIT_S))
    paths = tuple(posixpath.normpath(file) for file in files if isinstance(file, str))
    errors = {str(name): str(error) for name, error in failed.items()}
    return LoadedFiles("python3", paths, failed=errors)


def _traced(program: str, result: CommandResult) -> LoadedFiles:
    found, missing = loaded(result.stdout)
    if result.exit_code != 0 or result.ended != "exited" or not (found or missing):
        return LoadedFiles(program, (), missing, error=how_it_ended(result, LIMIT_S))
    return LoadedFiles(program, tuple(found.values()), missing)


def _code(said: list[list[str]]) -> int | None:
    codes = [words[2] for words in said if words[1:2] == ["code"] and len(words) > 2]
    return int(codes[0]) if codes and codes[0].isdigit() else None
