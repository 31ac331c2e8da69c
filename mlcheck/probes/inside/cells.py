"""Kernels as a user has them who keeps a setup file: what it sees, and what cells print."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from typing import Any

from mlcheck.probes.inside.common import Json, in_words, write
from mlcheck.probes.inside.kernels import run_kernel, said, surroundings

_MARK = "MLCHECK_SETUP"
_SEEN = "MLCHECK_SEEN_"


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
            # What it sourced is in its environment by now, whatever its language.
            answer: Json = {"setup": sourced(place), "cells": {}}
            for name, code in kernel["cells"].items():
                try:
                    answer["cells"][name] = {"printed": await said(client, code), "error": None}
                except Exception as error:
                    answer["cells"][name] = {"printed": "", "error": in_words(error)}
            return answer

        env = surroundings(place, [], [])
        run = await run_kernel(kernel["name"], env, place, request["limit_s"], ask)
        return dict(run, kernel=kernel["name"])

    return {"runs": await asyncio.gather(*[once(kernel) for kernel in request["kernels"]])}


def sourced(place: str) -> dict[str, str] | None:
    """The variables that the setup file saw, from the process into which it was sourced; None:
    there is no such process."""
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
