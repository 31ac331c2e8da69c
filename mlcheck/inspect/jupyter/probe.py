"""Jupyter, running in an image: kernels, the list of them, JupyterLab and its terminals.

All of it is done by the modules in `inside/`, which are sent to the image's own Python and use
the image's own jupyter_client and tornado. They end whatever they started.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mlcheck.engines.base import OpenImage
from mlcheck.image.api import Unreadable
from mlcheck.inspect.answers import (
    TOKEN_BYTES,
    command_result,
    how_it_ended,
    load_json,
    shortened,
)
from mlcheck.inspect.jupyter.facts import (
    JupyterServer,
    KernelList,
    KernelLists,
    KernelRun,
    KernelRuns,
    Speech,
    UsersServer,
)
from mlcheck.model.command import CommandResult

KERNEL_LIMIT_S = 60.0
"""Seconds for one kernel to start and answer."""

SERVER_LIMIT_S = 90.0
"""Seconds for JupyterLab to answer, and again for all further requests."""

SPEECH_LIMIT_S = 60.0
"""Seconds for a program to print its version."""

OUTPUT_LIMIT = 4 * 1024 * 1024

ASKED_IN = ("python", "c++")
"""The languages of kernels, in lower case, in which a question can be put to them."""

_MODULES = ("common", "kernels", "cells", "server", "as_user", "printed", "start", "main")
"""The modules that are run inside, in the order of their imports."""

_START = """\
import sys, types
for name, text in {sources!r}.items():
    module = sys.modules["mlcheck.inspect.inside." + name] = types.ModuleType(name)
    exec(compile(text, name + ".py", "exec"), module.__dict__)
module.main()
"""
_WORDS = 1000
"""Characters of an error that are kept."""

_FOREIGN = "mlcheck: "
"""Prefix of the display names of kernels that are not the image's, in inside/common.py."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Surroundings in which a kernel is started, besides a plain container.

    Args:
        kernel: its name.
        language: language of the question, one of ASKED_IN.
        hazards: of those that `KernelRun` explains.
        programs: names of the programs of the host's that come first in PATH.
    """

    kernel: str
    hazards: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    language: str = "python"


def kernels(image: OpenImage, python: str, asked: Sequence[Surroundings]) -> KernelRuns:
    """Start each kernel and let it compute, all side by side.

    Args:
        python: the image's own interpreter, which has jupyter_client.

    Raises:
        EngineError: the engine could not run it.
    """
    if not asked:
        return KernelRuns(())
    request = {
        "do": "kernels",
        "kernels": [
            {
                "name": one.kernel,
                "language": one.language,
                "hazards": one.hazards,
                "programs": one.programs,
            }
            for one in asked
        ],
        "limit_s": KERNEL_LIMIT_S,
        **_numbers(),
    }
    # A kernel that hazards harm is started three times in turn.
    answer, trouble = ask(image, python, request, 3 * KERNEL_LIMIT_S + 30)
    names = {one.kernel for one in asked}
    runs = [_kernel_run(run) for run in entries(answer, "runs")]
    return KernelRuns(tuple(run for run in runs if run.kernel in names), trouble)


def kernel_lists(image: OpenImage, python: str, names: Sequence[str]) -> KernelLists:
    """Request the list of kernels while there are some of a user and of the host.

    Args:
        names: of the image's own kernels, which some of the others have too.

    Raises:
        EngineError: the engine could not run it.
    """
    request = {"do": "lists", "names": list(names), "limit_s": KERNEL_LIMIT_S}
    answer, trouble = ask(image, python, request, KERNEL_LIMIT_S + 30)
    found = [
        _kernel_list(text_of(item, "how"), item.get("kernels"), error_of(item))
        for item in entries(answer, "lists")
    ]
    return KernelLists(tuple(found), trouble)


def server(
    image: OpenImage, python: str, program: str, kernel: str | None, shells: Sequence[str]
) -> JupyterServer:
    """Start JupyterLab, send requests, start a kernel and terminals through it, and shut it down.

    Args:
        program: the command that users start.
        kernel: name of the kernel to start, or None for none.
        shells: paths of the shells to open terminals with.

    Raises:
        EngineError: the engine could not run it.
    """
    request = {
        "do": "server",
        "argv": [program],
        "kernel": kernel,
        "shells": list(shells),
        "base": f"/mlcheck-{secrets.token_hex(4)}/",
        "secret": secrets.token_hex(TOKEN_BYTES),
        "limit_s": SERVER_LIMIT_S,
        **_numbers(),
    }
    answer, trouble = ask(image, python, request, 2 * SERVER_LIMIT_S + 30)
    argv = tuple(word for word in _plain_list(answer, "argv") if isinstance(word, str))
    if trouble is not None:
        return JupyterServer(argv or (program,), trouble)
    terminals = answer.get("terminals")
    listed = answer.get("listed")
    return JupyterServer(
        argv=argv or (program,),
        error=error_of(answer),
        seconds=seconds_of(answer),
        status=status_of(answer),
        base_in_page=answer.get("base_in_page") is True,
        listed=_kernel_list("JupyterLab", listed, None) if listed is not None else None,
        kernel=kernel,
        kernel_error=_what(answer.get("kernel", "was not started")),
        terminals={
            shell: _what(terminals.get(shell, "was not opened"))
            for shell in shells
            if isinstance(terminals, dict)
        },
    )


def as_user(image: OpenImage, python: str, program: str, home: str) -> UsersServer:
    """Start JupyterLab as the image's user does, and send requests without a token.

    Args:
        program: the command that users start.
        home: that user's.

    Raises:
        EngineError: the engine could not run it.
    """
    request = {"do": "as_user", "argv": [program], "home": home, "limit_s": SERVER_LIMIT_S}
    answer, trouble = ask(image, python, request, 2 * SERVER_LIMIT_S + 30)
    if trouble is not None:
        return UsersServer(trouble)
    untried = text_of(answer, "untried")
    return UsersServer(error_of(answer), text_of(answer, "token"), status_of(answer), untried)


def speech(image: OpenImage, directory: str, patterns: Sequence[str]) -> Speech:
    """Let each program in `directory` whose name matches print its version, side by side.

    Raises:
        EngineError: the engine could not run them.
    """

    # An engine's home may be read-only.
    home = image.run(["mktemp", "-d"], limit_s=SPEECH_LIMIT_S).stdout.decode().strip() or "/tmp"  # noqa: S108

    def said(path: str, option: str) -> CommandResult:
        env = {"HOME": home, "TMPDIR": home}
        return command_result(
            image.run([path, option], env=env, limit_s=SPEECH_LIMIT_S, output_limit=OUTPUT_LIMIT)
        )

    def answer(path: str) -> CommandResult:
        first = said(path, "--version")
        if first.ended != "exited" or (first.exit_code == 0 and spoken(first)):
            return first
        second = said(path, "--help")
        return second if second.exit_code == 0 and spoken(second) else first

    paths = [
        f"{directory}/{name}"
        for name in image.rootfs.listdir(directory)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return Speech(dict(zip(paths, pool.map(answer, paths), strict=True)))
    finally:
        if home.startswith("/tmp/"):  # noqa: S108
            image.run(["rm", "-rf", home], limit_s=SPEECH_LIMIT_S)


def spoken(result: CommandResult) -> bool:
    """Return whether a command printed anything."""
    return bool(result.stdout.strip() or result.stderr.strip())


@functools.cache
def _sources() -> dict[str, str]:
    inside = Path(__file__).parents[1] / "inside"
    return {name: (inside / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}


def _numbers() -> dict[str, int]:
    """Choose two factors whose product no kernel can know without computing it."""
    return {"a": 10**6 + secrets.randbelow(10**6), "b": 10**6 + secrets.randbelow(10**6)}


def ask(
    image: OpenImage, python: str, request: Mapping[str, object], limit_s: float
) -> tuple[dict[str, object], str | None]:
    """Return the answer of the program in `inside/`, or in words why it has none.

    Args:
        request: `do` and the arguments of the function of that name.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    result = command_result(
        image.run(
            [python, "-I", "-", json.dumps({**request, "token": token})],
            stdin=inside().encode(),
            limit_s=limit_s,
            output_limit=OUTPUT_LIMIT,
        )
    )
    return answer_of(result, python, token, limit_s)


def inside() -> str:
    """Return the program that is run inside: its argument is a request (`inside/main.py`)."""
    return _START.format(sources=_sources())


def answer_of(
    result: CommandResult, python: str, token: str, limit_s: float
) -> tuple[dict[str, object], str | None]:
    """Return the answer of the program that was run inside, or in words why there is none."""
    if result.ended == "exited" and result.exit_code == 127:
        return {}, f"{python} is not there"
    if result.ended != "exited" or result.exit_code != 0:
        return {}, f"{python} {how_it_ended(result, limit_s)}"
    line = result.stdout.rpartition(f"\n{token} ")[2].partition("\n")[0]
    try:
        answer = load_json(line.encode("utf-8", "surrogateescape"), "the answer")
    except Unreadable as unreadable:
        return {}, f"{python} ran the program, and {unreadable}"
    if not isinstance(answer, dict):
        return {}, f"{python} ran the program, and the answer is no object"
    return answer, _what(answer.get("trouble"))


def _kernel_run(run: Mapping[str, object]) -> KernelRun:
    return KernelRun(
        kernel=text_of(run, "kernel"),
        hazards=tuple(str(hazard) for hazard in _plain_list(run, "hazards")),
        error=error_of(run),
        seconds=seconds_of(run),
        executable=text_of(run, "executable"),
        prefix=text_of(run, "prefix"),
        sees_usersite=run.get("usersite") is not None,
        sees_pythonpath=run.get("pythonpath") is not None,
    )


def _kernel_list(how: str, kernels: object, error: str | None) -> KernelList:
    if not isinstance(kernels, dict):
        return KernelList(how, {}, 0, error or "it is no list of kernels")
    foreign = {
        str(name)[:100]: where.removeprefix(_FOREIGN)[:_WORDS]
        for name, where in kernels.items()
        if isinstance(where, str) and where.startswith(_FOREIGN)
    }
    return KernelList(how, foreign, len(kernels), error)


def status_of(answer: Mapping[str, object]) -> dict[str, int | None]:
    """Map each request to its HTTP status."""
    status = answer.get("status")
    return {
        str(key): value if isinstance(value, int) else None
        for key, value in (status.items() if isinstance(status, dict) else ())
    }


def _plain_list(answer: Mapping[str, object], key: str) -> list[object]:
    value = answer.get(key)
    return value if isinstance(value, list) else []


def entries(answer: Mapping[str, object], key: str) -> list[dict[str, object]]:
    """Return the objects of a list in an answer."""
    return [item for item in _plain_list(answer, key) if isinstance(item, dict)]


def text_of(answer: Mapping[str, object], key: str) -> str:
    """Return a text in an answer, shortened, or "" if there is none."""
    value = answer.get(key)
    return value[:_WORDS] if isinstance(value, str) else ""


def error_of(answer: Mapping[str, object]) -> str | None:
    """Return an error in an answer, in words, or None if there is none."""
    return _what(answer.get("error", "it gave no answer"))


def _what(error: object) -> str | None:
    """Describe an error in words, also one that is no text."""
    if error is None:
        return None
    return error[:_WORDS] if isinstance(error, str) else shortened(repr(error))


def seconds_of(answer: Mapping[str, object]) -> float:
    """Return a time in an answer."""
    value = answer.get("seconds")
    return float(value) if isinstance(value, (int, float)) else 0.0
