"""Small programs and notebooks, run in an image."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.engines.base import OpenImage
from mlcheck.image.api import Unreadable
from mlcheck.inspect.answers import command_result, how_it_ended, load_json
from mlcheck.inspect.work.facts import NotebookRun, NotebookRuns, Picture, TaskRun, TaskRuns

LIMIT_S = 180.0
OUTPUT_LIMIT = 16 * 1024 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"

Task = tuple[Sequence[str], str, Sequence[str]]
"""Words of the command line, standard input, and names of the pictures that it draws."""


def run(image: OpenImage, tasks: Mapping[str, Task]) -> TaskRuns:
    """Run each program in an empty directory of its own, side by side.

    Raises:
        EngineError: the engine could not run them.
    """

    def one(name: str) -> TaskRun:
        argv, program, draws = tasks[name]
        with _directory(image) as (directory, env):
            completed = image.run(
                argv,
                env=env,
                cwd=directory,
                stdin=program.encode(),
                limit_s=LIMIT_S,
                output_limit=OUTPUT_LIMIT,
            )
            pictures = {file: _picture(image, f"{directory}/{file}") for file in draws}
        return TaskRun(name, command_result(completed), pictures)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return TaskRuns(tuple(pool.map(one, tasks)))


def notebooks(image: OpenImage, codes: Mapping[str, str]) -> NotebookRuns:
    """Let nbconvert execute a notebook with each kernel, side by side.

    Args:
        codes: by the kernel's name, a cell that prints the product of `{a}` and `{b}`.

    Raises:
        EngineError: the engine could not run it.
    """

    def one(kernel: str) -> NotebookRun:
        a, b = (1000 + secrets.randbelow(9000) for _ in range(2))
        cell: dict[str, object] = {
            "cell_type": "code",
            "execution_count": None,
            "id": "mlcheck",
            "metadata": {},
            "outputs": [],
            "source": codes[kernel].replace("{a}", str(a)).replace("{b}", str(b)),
        }
        spec = {"name": kernel, "display_name": kernel, "language": ""}
        notebook = {
            "cells": [cell],
            "metadata": {"kernelspec": spec},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        argv = ["jupyter", "nbconvert", "--to", "notebook", "--execute", "--stdin", "--stdout"]
        with _directory(image) as (directory, env):
            result = command_result(
                image.run(
                    argv,
                    env=env,
                    cwd=directory,
                    stdin=json.dumps(notebook).encode(),
                    limit_s=LIMIT_S,
                    output_limit=OUTPUT_LIMIT,
                )
            )
        error = None
        printed = ""
        if result.ended != "exited" or result.exit_code != 0:
            said = _without_kernels_log(result.stderr)
            error = how_it_ended(dataclasses.replace(result, stderr=said), LIMIT_S)
        else:
            try:
                printed = _printed(load_json(result.stdout.encode(), "nbconvert's output"))
            except Unreadable as unreadable:
                error = str(unreadable)
        return NotebookRun(kernel, error, printed, str(a * b), result.seconds)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return NotebookRuns(tuple(pool.map(one, codes)))


def _without_kernels_log(stderr: str) -> str:
    """Leave out what ipykernel logs.

    A kernel whose nbconvert has died says so, now and then after nbconvert's own last words.
    """
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("[IPKernelApp] "))


def _printed(notebook: object) -> str:
    said = []
    match notebook:
        case {"cells": [{"outputs": list(outputs)}, *_]}:
            for output in outputs:
                match output:
                    case {"text": str(text)}:
                        said.append(text)
                    case {"text": list(lines)}:
                        said += [line for line in lines if isinstance(line, str)]
                    case {"data": {"text/plain": str(text)}}:
                        said.append(text)
                    case {"data": {"text/plain": list(lines)}}:
                        said += [line for line in lines if isinstance(line, str)]
    return "".join(said)[:1000]


@contextlib.contextmanager
def _directory(image: OpenImage) -> Iterator[tuple[str, dict[str, str]]]:
    """Make an empty directory in the image, with variables that make it a home."""
    made = image.run(["mktemp", "-d", "/tmp/mlcheck-XXXXXXXX"], limit_s=30.0)  # noqa: S108
    directory = made.stdout.decode("utf-8", "replace").strip()
    if not directory.startswith("/tmp/mlcheck-"):  # noqa: S108 - an image without mktemp
        yield "/tmp", {}  # noqa: S108
        return
    try:
        yield directory, {"HOME": directory, "TMPDIR": directory}
    finally:
        image.run(["rm", "-rf", directory], limit_s=30.0)


def _picture(image: OpenImage, path: str) -> Picture | str:
    """Read a PNG file from the running image: https://www.w3.org/TR/png-3/#5PNG-file-signature"""
    found = image.run(["cat", path], limit_s=30.0, output_limit=OUTPUT_LIMIT)
    if found.exit_code != 0:
        return "was not made" if found.ended == "exited" else "has no end"
    data = found.stdout
    if len(data) < 33 or not data.startswith(_PNG) or data[12:16] != b"IHDR":
        return "is no PNG file"
    if b"IEND" not in data[-12:]:
        return "is a PNG file without an end"
    width, height = struct.unpack(">II", data[16:24])
    return Picture(width, height, len(data))
