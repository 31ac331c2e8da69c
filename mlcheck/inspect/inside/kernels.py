"""Kernels, started with the image's jupyter_client, and the lists of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import IO, Any, Awaitable, Callable, Mapping, Sequence

from mlcheck.inspect.inside.common import (
    Json,
    in_words,
    last_words,
    question,
    understood,
    with_kernels,
    write,
)


async def kernels(request: Json, top: str) -> Json:
    """Start each kernel in a plain container, and with all its hazards around it.

    Takes: kernels (list of name, language, hazards, programs), a, b (numbers to multiply),
    limit_s.
    Where all hazards together harm a kernel, each is tried alone.
    """

    async def both(kernel: Json) -> list[Json]:
        name, hazards = kernel["name"], kernel["hazards"]
        around = [[], hazards] if hazards else [[]]
        plain, *rest = await asyncio.gather(*[once(kernel, each) for each in around])
        runs = [plain]
        for host in rest if plain["error"] is None else []:
            runs.append(host)
            if host["error"] is not None or host["prefix"] != plain["prefix"]:
                runs += await asyncio.gather(*[once(kernel, [one]) for one in hazards])
        return [dict(run, kernel=name) for run in runs]

    async def once(kernel: Json, hazards: list[str]) -> Json:
        place = tempfile.mkdtemp(dir=top)
        env = surroundings(place, hazards, kernel["programs"])
        code = question(request, kernel["language"])

        async def ask(client: Any) -> Json:
            return understood(await said(client, code), request)

        run = await run_kernel(kernel["name"], env, place, request["limit_s"], ask)
        return dict(run, hazards=hazards)

    found = await asyncio.gather(*[both(kernel) for kernel in request["kernels"]])
    return {"runs": [run for runs in found for run in runs]}


Ask = Callable[[Any], Awaitable[Json]]
"""Function that puts a question to a kernel, through its client."""


async def run_kernel(
    name: str, env: Mapping[str, str], place: str, limit_s: float, ask: Ask
) -> Json:
    """Start a kernel, put a question to it, and end it."""
    from jupyter_client.manager import AsyncKernelManager

    began = time.monotonic()
    log = place + "/log"
    # Not by TCP: a port that was found free may be taken by one of the many connections that are
    # tried until the kernels listen.
    manager = AsyncKernelManager(
        kernel_name=name, connection_file=place + "/kernel.json", transport="ipc"
    )
    answer: Json = {"error": None}
    with open(log, "wb") as stream:
        try:
            work = start_and_ask(manager, env, place, stream, ask)
            answer.update(await asyncio.wait_for(work, limit_s))
        except asyncio.TimeoutError:
            answer["error"] = f"did not answer in {limit_s:.0f} s"
        except Exception as error:
            answer["error"] = in_words(error)
        with contextlib.suppress(Exception):
            await manager.shutdown_kernel(now=True)
    if answer["error"] is not None and last_words(log):
        answer["error"] += "; it said: " + last_words(log)
    return dict(answer, seconds=time.monotonic() - began)


async def start_and_ask(
    manager: Any, env: Mapping[str, str], place: str, stream: IO[bytes], ask: Ask
) -> Json:
    await manager.start_kernel(env=env, cwd=place, stdout=stream, stderr=stream)
    client = manager.client()
    client.start_channels()
    try:
        # The caller ends it sooner.
        await client.wait_for_ready(timeout=3600)
        return await ask(client)
    finally:
        client.stop_channels()


async def said(client: Any, code: str, aside: list[str] | None = None) -> str:
    """Return a kernel's standard output while it runs some code.

    Args:
        aside: receives its standard error.
    """
    parts: list[str] = []
    errors: list[str] = []

    def listen(message: Json) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "stream" and content["name"] == "stdout":
            parts.append(content["text"])
        elif kind == "stream" and aside is not None:
            aside.append(content["text"])
        elif kind == "error":
            # In one line, since the cause may stand in any of them.
            why = " ".join(content["evalue"].split())
            errors.append(f"{content['ename']}: {why[:600]}")

    await client.execute_interactive(
        code, store_history=False, allow_stdin=False, output_hook=listen
    )
    if errors:
        raise RuntimeError(errors[0])
    return "".join(parts)


def user_home(top: str) -> str:
    """Make a home directory whose ~/.local has a module of the user's."""
    major, minor = sys.version_info[:2]
    site = f"{top}/home/.local/lib/python{major}.{minor}/site-packages"
    write(f"{site}/mlcheck_marker_user.py", "")
    return top + "/home"


def host_programs(top: str, names: Sequence[str]) -> str:
    """Make a directory with programs of the host's, which report that they were started, and
    fail."""
    for name in names:
        text = f'#!/bin/sh\necho "the host\'s {name} was started" >&2\nexit 86\n'
        program = write(f"{top}/host/bin/{name}", text, 0o755)
        done = subprocess.run([program], stderr=subprocess.PIPE, check=False)
        if done.returncode != 86:
            raise RuntimeError(f"a script in /tmp cannot be run: {done}")
    return top + "/host/bin"


def host_modules(top: str) -> str:
    """Make a directory for PYTHONPATH that ends every Python that searches it."""
    directory = top + "/host/modules"
    write(f"{directory}/mlcheck_marker_path.py", "")
    for name in ("json", "asyncio", "traitlets"):
        write(f"{directory}/{name}.py", f'raise ImportError("the host\'s {name}")\n')
    return directory


def surroundings(top: str, hazards: Sequence[str], programs: Sequence[str]) -> dict[str, str]:
    """Return the environment of a kernel with these hazards around it."""
    # With the image's own variables, such as PYTHONUSERBASE: its users have them too.
    env = dict(os.environ, HOME=top)
    if "~/.local" in hazards:
        env["HOME"] = user_home(top)
    if "PATH" in hazards:
        env["PATH"] = host_programs(top, programs) + ":" + env.get("PATH", os.defpath)
    if "PYTHONHOME" in hazards:
        env["PYTHONHOME"] = top + "/host/no-python"
    if "PYTHONPATH" in hazards:
        env["PYTHONPATH"] = host_modules(top)
    elif hazards:
        # Harmless garbage: no profile promises more.
        own = env.get("PYTHONPATH")
        env["PYTHONPATH"] = top + "/host/no-modules" + (":" + own if own else "")
    return env


async def lists(request: Json, top: str) -> Json:
    """`jupyter kernelspec list` with kernels of a user and of the host present.

    Takes: names (of the image's own kernels), limit_s.
    """
    names = request["names"]
    waiting = []
    for how in ("HOME", "XDG_DATA_HOME", "JUPYTER_DATA_DIR"):
        place = tempfile.mkdtemp(dir=top)
        env = dict(os.environ, HOME=place + "/home")
        env.update(with_kernels(place, how, names))
        waiting.append(asyncio.ensure_future(listing(how, env, request["limit_s"])))
    return {"lists": await asyncio.gather(*waiting)}


async def listing(how: str, env: Mapping[str, str], limit_s: float) -> Json:
    """Return one list: name to display name."""
    argv = ["jupyter", "kernelspec", "list", "--json"]
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), limit_s)
    except asyncio.TimeoutError:
        return {"how": how, "error": f"did not end in {limit_s:.0f} s"}
    if process.returncode != 0:
        said = err.decode(errors="replace").strip().splitlines()[-1:]
        return {"how": how, "error": f"exit code {process.returncode}: {''.join(said)}"}
    try:
        text = out.decode()
        start = ("\n" + text).find("\n{")
        specs = json.loads(text[start : text.rfind("}") + 1])["kernelspecs"]
        kernels = {name: spec["spec"]["display_name"] for name, spec in specs.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"how": how, "error": "its answer is not to be understood: " + in_words(error)}
    return {"how": how, "error": None, "kernels": kernels}
