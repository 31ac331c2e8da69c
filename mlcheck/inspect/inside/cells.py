"""Kernels of a user with a setup file: the variables that it sees, and the output of cells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from typing import Any

from mlcheck.inspect.inside.common import Json, in_words, write
from mlcheck.inspect.inside.kernels import run_kernel, said, surroundings

_MARK = "MLCHECK_SETUP"
_SEEN = "MLCHECK_SEEN_"
_ASIDE = 1000
"""Characters of a cell's standard error that are kept."""


async def cells(request: Json, top: str) -> Json:
    """Start each kernel once, with its setup file in the home, and run its cells one by one.

    Takes: kernels (list of name, file (below the home, or None), variables, cells (name to code)),
    limit_s (of one kernel with all its cells).
    """

    async def once(kernel: Json) -> Json:
        place = tempfile.mkdtemp(dir=top)
        if kernel["file"] is not None:
            lines = [f"export {_MARK}={place}"]
            lines += [f'export {_SEEN}{name}="${{{name}-}}"' for name in kernel["variables"]]
            write(f"{place}/{kernel['file']}", "\n".join(lines) + "\n")

        async def ask(client: Any) -> Json:
            # The setup file's variables are in its environment by now, whatever its language.
            answer: Json = {"setup": sourced(place), "cells": {}}
            for name, code in kernel["cells"].items():
                aside: list[str] = []
                # Some kernels, such as that of C++, write errors to the log of their process.
                before = os.path.getsize(place + "/log")
                cell: Json = {"printed": "", "error": None}
                try:
                    cell["printed"] = await said(client, code, aside)
                except Exception as error:
                    cell["error"] = in_words(error)
                with open(place + "/log", errors="replace") as log:
                    log.seek(before)
                    aside.append(log.read(_ASIDE))
                cell["aside"] = " ".join("".join(aside).split())[:_ASIDE]
                answer["cells"][name] = cell
            return answer

        env = surroundings(place, [], [])
        run = await run_kernel(kernel["name"], env, place, request["limit_s"], ask)
        return dict(run, kernel=kernel["name"])

    return {"runs": await asyncio.gather(*[once(kernel) for kernel in request["kernels"]])}


def sourced(place: str) -> dict[str, str] | None:
    """Return the variables that the setup file saw, from the process into which it was sourced, or
    None if there is no such process."""
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{number}/environ", "rb") as file:
            pairs = [
                part.partition("=") for part in file.read().decode(errors="replace").split("\0")
            ]
            env = {name: value for name, _, value in pairs}
            if env.get(_MARK) == place:
                seen = env.items()
                return {n[len(_SEEN) :]: v for n, v in seen if n.startswith(_SEEN)}
    return None
