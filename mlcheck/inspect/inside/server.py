"""JupyterLab, started as users start it, with requests over HTTP and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import time
from typing import Any, Awaitable

from mlcheck.inspect.inside.common import (
    Json,
    http_answer,
    in_words,
    last_words,
    question,
    started,
    understood,
    with_argument,
    with_kernels,
)


async def server(request: Json, top: str) -> Json:
    """Start JupyterLab as users do, send it requests, and shut it down.

    Takes: argv, kernel (name of the kernel to start), shells, base (URL path, "/x/"), secret (its
    token), a, b, limit_s.
    """
    home = top + "/home"
    os.makedirs(home + "/work")
    env = dict(os.environ, HOME=home, JUPYTER_TOKEN=request["secret"], SHELL="/bin/sh")
    env.update(with_kernels(top, "HOME", []))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [
        *request["argv"],
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.base_url=" + request["base"],
    ]
    log = top + "/server.log"
    began = time.monotonic()
    try:
        process = started(argv, home + "/work", env, log)
    except OSError as error:
        return {"error": in_words(error), "argv": argv}
    found: Json = {"argv": argv, "error": f"did not answer in {request['limit_s']:.0f} s"}
    while time.monotonic() - began < request["limit_s"]:
        if process.poll() is not None:
            found["error"] = f"ended with exit code {process.returncode} before it answered"
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            found["error"] = None
            break
        # There is no sign when another program listens.
        await asyncio.sleep(0.03)
    found["seconds"] = time.monotonic() - began
    if found["error"] is None:
        try:
            await asyncio.wait_for(ask(Client(port, request), found), request["limit_s"])
        except asyncio.TimeoutError:
            found["error"] = f"did not answer all questions in {request['limit_s']:.0f} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    if found["error"] is not None and last_words(log):
        found["error"] += "; it said: " + last_words(log)
    return found


async def ask(client: Client, found: Json) -> None:
    """Send all requests, and shut the server down."""
    secret, base = client.request["secret"], client.base
    status = found["status"] = {}
    status["api"], _ = await client.own("api")
    status["lab"], page = await client.own("lab")
    found["base_in_page"] = base.encode() in page
    status["outside"], _ = await client.http("/lab", secret)
    for path in ("lab", "api/kernels", "api/contents", "api/terminals"):
        if path not in status:
            status[path], _ = await client.own(path)
        status[path + " without a token"], _ = await client.http(base + path)
        status[path + " with a wrong token"], _ = await client.http(base + path, "x" + secret)
    if status["api"] == 200:
        code, body = await client.own("api/kernelspecs")
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            specs = json.loads(body)["kernelspecs"] if code == 200 else {}
            found["listed"] = {name: spec["spec"]["display_name"] for name, spec in specs.items()}
        shells = client.request["shells"]
        jobs = [terminal(client, shell) for shell in shells]
        if client.request["kernel"]:
            jobs.append(api_kernel(client))
        done = await asyncio.gather(*jobs)
        found["terminals"] = dict(zip(shells, done))
        found["kernel"] = done[-1] if client.request["kernel"] else None
    await client.own("api/shutdown", {})


# A browser's request to a server that needs no token: a cookie, and its content.
_BROWSER = {"Cookie": "_xsrf=mlcheck", "X-XSRFToken": "mlcheck"}


class Client:
    """Client of a Jupyter server, by HTTP and by WebSocket."""

    def __init__(self, port: int, request: Json) -> None:
        self.request = request
        self.where = f"127.0.0.1:{port}"
        self.base: str = request["base"]

    async def http(
        self, path: str, secret: str | None = None, body: Json | None = None
    ) -> tuple[int | None, bytes]:
        """Return status and body; the status is None if there was no answer."""
        from tornado.httpclient import AsyncHTTPClient

        try:
            answer = await AsyncHTTPClient().fetch(
                f"http://{self.where}{path}",
                raise_error=False,
                follow_redirects=False,
                headers={**_BROWSER, **({"Authorization": f"token {secret}"} if secret else {})},
                method="GET" if body is None else "POST",
                body=None if body is None else json.dumps(body),
                request_timeout=self.request["limit_s"],
            )
        except Exception as error:
            return None, in_words(error).encode()
        return (answer.code if answer.code != 599 else None), answer.body or b""

    async def own(self, path: str, body: Json | None = None) -> tuple[int | None, bytes]:
        """Send the same request under the base URL and with the token."""
        return await self.http(self.base + path, self.request["secret"], body)

    async def socket(self, path: str) -> Any:
        """Open a WebSocket of tornado's under the base URL, with the token."""
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import websocket_connect

        headers = {"Authorization": "token " + self.request["secret"]}
        url = f"ws://{self.where}{self.base}{path}"
        # The server answers when the kernel has started; tornado's own limit is 20 s.
        limit_s = self.request["limit_s"] / 2
        request = HTTPRequest(
            url, headers=headers, connect_timeout=limit_s, request_timeout=limit_s
        )
        return await websocket_connect(request)


async def api_kernel(client: Client) -> str | None:
    """Start a kernel and let it compute; return what went wrong, or None."""
    request = client.request
    code, body = await client.own("api/kernels", {"name": request["kernel"]})
    if code != 201:
        return "POST api/kernels: " + http_answer(code, body)
    try:
        number = json.loads(body)["id"]
        code, body = await client.own("api/kernels")
        if number not in [kernel["id"] for kernel in json.loads(body)]:
            return "GET api/kernels does not tell of it: " + http_answer(code, body)
        link = await alive(
            number, client.socket(f"api/kernels/{number}/channels?session_id=mlcheck")
        )
        message = {
            "header": {
                "msg_id": "mlcheck-1",
                "msg_type": "execute_request",
                "username": "",
                "session": "mlcheck",
                "date": "",
                "version": "5.3",
            },
            "parent_header": {},
            "metadata": {},
            "content": {
                "code": question(request),
                "silent": False,
                "store_history": False,
                "user_expressions": {},
                "allow_stdin": False,
                "stop_on_error": True,
            },
            "channel": "shell",
            "buffers": [],
        }
        await link.write_message(json.dumps(message))
        said = await asyncio.wait_for(heard(link), request["limit_s"] / 2)
        understood(said, request)
    except asyncio.TimeoutError:
        return "the kernel did not answer over its WebSocket in time"
    except Exception as error:
        return in_words(error)
    return None


async def alive(number: str, answer: Awaitable[Any]) -> Any:
    """Wait for a kernel's answer for as long as its process exists.

    Jupyter starts a kernel that dies again and again, and meanwhile does not answer; the process
    that it starts then has the same connection file.
    """
    waiting = asyncio.ensure_future(answer)
    first = None
    while not (await asyncio.wait([waiting], timeout=0.2))[0]:
        process = min(with_argument(f"kernel-{number}.json"), default=None)
        if first not in (None, process):
            waiting.cancel()
            raise RuntimeError("the kernel died, and is started again and again")
        first = process
    return waiting.result()


async def heard(link: Any) -> str:
    """Return a kernel's output, once it has replied and is idle."""
    said: list[str] = []
    ends: set[str] = set()
    while len(ends) < 2:
        text = await link.read_message()
        if text is None:
            raise RuntimeError("the server closed the kernel's WebSocket")
        if isinstance(text, bytes):
            continue
        message = json.loads(text)
        if message["parent_header"].get("msg_id") != "mlcheck-1":
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "stream":
            said.append(content["text"])
        elif kind == "error":
            raise RuntimeError(f"{content['ename']}: {content['evalue']}")
        elif kind == "execute_reply" or content.get("execution_state") == "idle":
            ends.add(kind)
    return "".join(said)


async def terminal(client: Client, shell: str) -> str | None:
    """Open a terminal with `shell` and type a command; return what went wrong, or None.

    All versions of jupyter_server and jupyter_server_terminals so far pass the body of the request
    on to terminado; the process that answers proves it.
    """
    code, body = await client.own("api/terminals", {"shell_command": [shell, "-l"]})
    if code not in (200, 201):
        return "POST api/terminals: " + http_answer(code, body)
    said: list[str] = []
    try:
        link = await client.socket("terminals/websocket/" + json.loads(body)["name"])
        await link.write_message(json.dumps(["set_size", 24, 200, 480, 1600]))
        number = await asyncio.wait_for(typed(link, said, client.request["token"]), 20)
        if number is None:
            return "the shell ended; it said: " + screen(said)
        with open(f"/proc/{number}/cmdline", "rb") as file:
            words = file.read().decode(errors="replace").split("\0")
    except asyncio.TimeoutError:
        return "no answer to a command; it said: " + screen(said)
    except Exception as error:
        return in_words(error)
    if os.path.basename(shell) not in [os.path.basename(w).lstrip("-") for w in words[:2]]:
        return "another shell answered: " + " ".join(words[:3])
    return None


async def typed(link: Any, said: list[str], token: str) -> int | None:
    """Return the number of the process that answers, or None if the terminal ends."""
    # The terminal's echo of the typed line is not yet the answer.
    left, right = token[:16], token[16:]
    command = f'echo {left}""{right} $$\r'
    answer = re.compile(f"{left}{right} ([0-9]{{1,9}})")
    pending = asyncio.ensure_future(link.read_message())
    quiet = 0.5
    told = False
    while True:
        done, _ = await asyncio.wait([pending], timeout=quiet)
        if done:
            text = pending.result()
            kind, *content = json.loads(text) if text is not None else ["disconnect"]
            if kind == "disconnect":
                return None
            if kind == "stdout":
                said.append(content[0])
                del said[:-1000]
            found = answer.search("".join(said))
            if found:
                return int(found.group(1))
            pending = asyncio.ensure_future(link.read_message())
        # After the prompt; and again, since a shell that is starting may discard its input.
        if not done or (said and not told):
            await link.write_message(json.dumps(["stdin", command]))
            told, quiet = True, 2.0


def screen(said: list[str]) -> str:
    """Return the last lines that a terminal showed."""
    text = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", "".join(said))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-3:])[-300:] or "nothing"
