"""`mlcheck completion`: TAB completes commands, options, images, rules and files."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import shtab

_SHELLS = ("bash", "zsh", "fish")

_BASH = r"""
_mlcheck() {
  # bash takes a colon for the end of a word, and images have one in their names.
  local before=${COMP_LINE:0:COMP_POINT} COMP_WORDS COMP_CWORD
  read -ra COMP_WORDS <<<"$before"
  [[ $before == *[[:space:]] ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  local current=${COMP_WORDS[COMP_CWORD]}
  _shtab_mlcheck
  COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -F _mlcheck mlcheck
"""
_BASH_FUNCTION = """\
{name}() {{
  compgen -W {words} -- "$1"
  {paths}
}}
"""
# Directories end with a slash, files do not.
_BASH_PATHS = """comm -23 <(compgen -f -- "$1" | sort) <(compgen -d -- "$1" | sort)
  compgen -d -S / -- "$1" """.rstrip()
_ZSH_FUNCTION = """\
{name}() {{
  compadd -- {words}
  {paths}
}}
"""
_FISH_FUNCTION = """\
function {name}
  string split ' ' -- {words}
  {paths}
end
"""
_FUNCTIONS = {"bash": _BASH_FUNCTION, "zsh": _ZSH_FUNCTION, "fish": _FISH_FUNCTION}
_PATHS = {
    "bash": (_BASH_PATHS, 'compgen -d -S / -- "$1"'),
    "zsh": ("_files", "_files -/"),
    "fish": ("__fish_complete_path (commandline -ct)", "__fish_complete_directories"),
}
"""Commands that complete files, and directories alone."""


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `completion`."""
    parser = commands.add_parser(
        "completion",
        help="print a script for TAB completion in bash, zsh or fish",
        description="Print a script that makes TAB complete commands, options, published images, "
        "rules and files. The script contains the words of this version: write it again after an "
        "update.",
        epilog="examples:\n"
        "  mlcheck completion bash >~/.local/share/bash-completion/completions/mlcheck\n"
        '  mlcheck completion zsh >"${fpath[1]}/_mlcheck"\n'
        "  mlcheck completion fish >~/.config/fish/completions/mlcheck.fish\n"
        '  eval "$(mlcheck completion bash)"      only in this shell; zsh after compinit',
    )
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from mlcheck.cli import main as cli

    parser = cli.parser([])
    functions = "".join(_functions(arguments.shell))
    for action in _actions(parser):
        kind = _kind(action)
        if kind is not None and action.choices is None:
            function = f"_mlcheck_{kind}"
            complete = {**dict.fromkeys(_SHELLS, function), "fish": f"({function})"}
            action.complete = complete  # type: ignore[attr-defined]
    script = shtab.complete(parser, arguments.shell, preamble=functions)
    if arguments.shell == "bash":
        script = script.replace("\ncomplete -o bashdefault -F _shtab_mlcheck mlcheck", _BASH)
    elif arguments.shell == "zsh":
        # shtab completes only the first of several values.
        script = re.sub(r'"\(\*\)::?', '"*:', script)
    print(script)
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


_KINDS = {
    "IMAGE": "images",
    "A": "images",
    "B": "images",
    "FILE": "paths",
    "PATH": "paths",
    "DIR": "directories",
    "ENGINE": "engines",
    "NAME[:TAG]": "profiles",
    "REFERENCE[:TAG]": "references",
    "D": "defects",
    "RULE": "rules",
}
"""Kinds of values, by the placeholder in the help."""


def _kind(action: argparse.Action) -> str | None:
    return _KINDS.get(str(action.metavar))


def _functions(shell: str) -> Iterator[str]:
    files, directories = _PATHS[shell]
    paths = {"images": files, "paths": files, "directories": directories}
    for kind, words in _words().items():
        quoted = " ".join(map(shlex.quote, words))
        if shell != "zsh":
            quoted = shlex.quote(" ".join(words))
        nothing = "true" if shell == "fish" else ":"
        name = f"_mlcheck_{kind}"
        yield _FUNCTIONS[shell].format(name=name, words=quoted, paths=paths.get(kind, nothing))


def _words() -> dict[str, list[str]]:
    """Return the words of each kind that this version of mlcheck knows."""
    from mlcheck.engines import select
    from mlcheck.inspect.rules import all_rules
    from mlcheck.profile.catalog import SUITE, Catalog
    from mlcheck.profile.published import ALL, Published
    from mlcheck.reference import DEFECTS, NAMES

    catalog = Catalog([SUITE])
    published = [image.short for image in Published(catalog).images]
    return {
        "images": [ALL, *published, *(f"reference:{name}" for name in NAMES)],
        "paths": [],
        "directories": [],
        "engines": list(select.engines()),
        "profiles": catalog.names(),
        "references": list(NAMES),
        "defects": list(DEFECTS),
        "rules": list(all_rules()),
    }
