"""Small programs that run in an image, and what is made of a server's answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from mlcheck.engines.base import Completed, OpenImage
from mlcheck.inspect.server import probe as started
from mlcheck.inspect.work import probe as tasks
from mlcheck.inspect.work.facts import Picture
from mlcheck.model.environment import Environment
from selftests.images import copy_programs, opened, script

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\0\0\0\0abcd\0\0\0\0IEND\xaeB`\x82"


def test_programs_run_in_directories_of_their_own(root: Path) -> None:
    copy_programs(root, ["mktemp", "rm", "cat", "pwd"])
    (root / "opt/good.png").write_bytes(_PNG)
    (root / "opt/cut.png").write_bytes(_PNG[:-12])
    asked: dict[str, tasks.Task] = {
        "draws": (
            ["sh"],
            "cat /opt/good.png > a.png; cat /opt/cut.png > b.png; pwd",
            ["a.png", "b.png"],
        ),
        "fails": (["sh", "-c", "echo no >c.png; exit 3"], "", ["c.png", "d.png"]),
    }
    with opened(root) as image:
        found = {run.name: run for run in tasks.run(image, asked).runs}
        left = image.run(["sh", "-c", "echo /tmp/mlcheck-*"]).stdout
    assert found["draws"].pictures == {
        "a.png": Picture(2, 3, len(_PNG)),
        "b.png": "is a PNG file without an end",
    }
    assert found["fails"].pictures == {"c.png": "is no PNG file", "d.png": "was not made"}
    assert found["fails"].result.exit_code == 3
    assert re.fullmatch(r"/tmp/mlcheck-\w+\n", found["draws"].result.stdout)
    assert left == b"/tmp/mlcheck-*\n"


@pytest.mark.parametrize(
    ("outputs", "printed"),
    [
        ([{"text": "42\n"}], "42\n"),
        ([{"text": ["4", "2"]}], "42"),
        ([{"data": {"text/plain": ["[1] 42"]}}], "[1] 42"),
        ([{"text": 42}, "x", None], ""),
        ("x", ""),
    ],
)
def test_what_a_notebook_printed(outputs: object, printed: str) -> None:
    assert tasks._printed({"cells": [{"outputs": outputs}]}) == printed


def test_a_kernel_does_not_have_nbconverts_last_word(root: Path) -> None:
    """It outlives an nbconvert that died, and says so beside nbconvert's own last words."""
    copy_programs(root, ["mktemp", "rm"])
    said = "TypeError: no kernel\n[IPKernelApp] WARNING | Parent appears to have exited"
    script(root, "/usr/bin/jupyter", f"echo '{said}' >&2\nexit 1\n")
    with opened(root) as image:
        (run,) = tasks.notebooks(image, {"python3": "print({a} * {b})"}).runs
    assert run.error == "ended with exit code 1: TypeError: no kernel"


class Fake:
    """An image whose program inside gives a prepared answer."""

    def __init__(self, answer: dict[str, Any] | str, cmd: tuple[str, ...] = ("serve",)) -> None:
        self.answer = answer
        self.environment = Environment({}, (), cmd, None, None, None, None, "")

    def start(self, argv: list[str], **_: object) -> Completed:
        token = json.loads(argv[-1])["token"]
        said = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        return Completed(tuple(argv), 0, f"\n{token} {said}\n".encode(), b"", "exited", 1.0)


def server(fake: Fake) -> Any:
    return started.server(
        cast(OpenImage, fake),
        "python3",
        variable="NB_PREFIX",
        prefix="/p",
        port=8888,
        pages=["/p/"],
        healthcheck=[],
        site="/opt/conda",
    )


def test_an_answer_is_taken_as_it_is() -> None:
    page = {"asked": "/p/", "path": "/p/lab", "status": 200, "title": "JupyterLab"}
    found = server(Fake({"uid": 1000, "gid": 100, "pages": [page], "seconds": 2}))
    assert (found.uid, found.gid, found.seconds, found.error) == (1000, 100, 2.0, None)
    assert [(one.path, one.status) for one in found.pages] == [("/p/lab", 200)]


@pytest.mark.parametrize(
    "answer",
    [
        {"uid": "root", "pages": [3, {"status": "200"}], "seconds": []},
        {"pages": {}, "error": {"a": 1}},
        {"trouble": "no"},
        "no JSON",
        "[1]",
    ],
)
def test_an_answer_of_something_else_is_no_server(answer: dict[str, Any] | str) -> None:
    found = server(Fake(answer))
    assert found.uid is None
    assert all(page.status is None for page in found.pages)


def test_an_image_without_a_command_serves_nothing() -> None:
    assert server(Fake({}, ())).error == "the image has no CMD"
