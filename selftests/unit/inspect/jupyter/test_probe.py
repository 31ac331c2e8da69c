"""The probe of Jupyter, running: what a hostile image can answer, and what is left behind.

That it sees what goes wrong in a real Jupyter is shown by the defects in test_defects.py.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.engines.base import OpenImage
from mlcheck.inspect.inside.as_user import origin
from mlcheck.inspect.inside.kernels import surroundings
from mlcheck.inspect.jupyter import cells as kernel_cells
from mlcheck.inspect.jupyter import probe as jupyter
from mlcheck.inspect.jupyter import run_server
from selftests.images import copy_programs, opened, script, write
from selftests.reference_fixtures import reference_image  # noqa: F401

PYTHON = "/opt/conda/bin/python3"
SESSION = kernel_cells.Session("python3", ".setup", ("V",), {"one": "1"})
ASKED = [jupyter.Surroundings("python3", ("PATH",), ("python3",))]


def answering(root: Path, answer: object, *, before: str = "", after: str = "") -> None:
    """Put a Python in the image that answers every program so."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    (root / "answer").write_text(text)
    token = r"""printf '%s' "$3" | sed 's/.*"token": "\([0-9a-f]*\)".*/\1/'"""
    say = f"printf '\\n%s ' \"$({token})\"; cat /answer; echo"
    script(root, "opt/conda/bin/python3", "\n".join(("cat >/dev/null", before, say, after)))


@pytest.fixture
def sed_root(root: Path) -> Path:
    """An image in which a script can play Python."""
    copy_programs(root, ["sed", "rm", "mktemp"])
    return root


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "[" * 1000,
        '{"runs": 1}',
        '{"runs": [1, null, "x"]}',
        '{"runs": [{"kernel": 1, "hazards": 2, "error": 3, "seconds": "x"}]}',
        '{"runs": [{"kernel": "another", "hazards": [], "error": null}]}',
        '{"status": 1, "terminals": [], "listed": 3, "kernel": {}, "error": [], "argv": 0}',
        '{"status": {"lab": "x"}, "terminals": {"/bin/sh": 5}, "listed": {"a": 1}, "error": null}',
        '{"lists": [{"how": 1, "kernels": {"a": null}}, {"error": 5}]}',
        '{"trouble": {"a": 1}}',
        '{"runs": [{"kernel": "python3", "error": 5, "setup": 1, "cells": {"one": null}}]}',
        '{"runs": [{"kernel": "python3", "setup": {"V": []}, "cells": {"one": {"printed": 1}}}]}',
    ],
)
def test_an_answer_that_makes_no_sense_is_no_good_one(sed_root: Path, answer: str) -> None:
    answering(sed_root, answer)
    with opened(sed_root) as image:
        runs = jupyter.kernels(image, PYTHON, ASKED)
        lists = jupyter.kernel_lists(image, PYTHON, ["python3"])
        server = jupyter.server(image, PYTHON, "jupyter-lab", "python3", ["/bin/sh"])
        (session,) = kernel_cells.probe(image, PYTHON, [SESSION]).sessions
        write(sed_root, ".singularity.d/runscript", "#!/bin/sh\n", 0o755)
        own = run_server.probe(image, PYTHON, "(?P<token>x)", "/root")
    assert session.error or not [run for run in session.cells.values() if run.error is None]
    assert own.error or own.status.get("lab") is None
    assert runs.trouble or not [run for run in runs.runs if run.error is None]
    assert lists.trouble or not [one for one in lists.lists if one.error is None]
    assert server.error or server.kernel_error
    assert server.error or server.terminals.get("/bin/sh", "no answer")


def test_a_good_answer_is_read(sed_root: Path) -> None:
    answer: dict[str, object] = {
        "kernel": "python3",
        "hazards": [],
        "error": None,
        "prefix": "/p",
        "usersite": "/m",
    }
    answering(sed_root, {"runs": [{**answer, "seconds": 2}]}, before="echo noise", after="echo x")
    with opened(sed_root) as image:
        (run,) = jupyter.kernels(image, PYTHON, ASKED).runs
    assert (run.kernel, run.error, run.prefix, run.seconds) == ("python3", None, "/p", 2.0)
    assert run.sees_usersite
    assert not run.sees_pythonpath


@pytest.mark.parametrize(
    ("python", "trouble"),
    [
        ("exit 3", "ended with exit code 3"),
        ("echo ImportError: no >&2; exit 1", "ended with exit code 1: ImportError: no"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
        ("exit 0", "ran the program, and the answer is no JSON"),
        ("cat", "ran the program, and the answer is no JSON"),
        ("while echo endless; do :; done", "printed without end and was stopped"),
    ],
)
def test_a_python_that_does_not_answer(sed_root: Path, python: str, trouble: str) -> None:
    script(sed_root, "opt/conda/bin/python3", python)
    with opened(sed_root) as image:
        said = jupyter.kernels(image, PYTHON, ASKED).trouble
    assert said is not None
    assert trouble in said


def test_no_python(sed_root: Path) -> None:
    with opened(sed_root) as image:
        assert jupyter.kernels(image, PYTHON, ASKED).trouble == f"{PYTHON} is not there"
        assert jupyter.kernels(image, PYTHON, []).trouble is None


def test_every_program_that_fits_is_asked(sed_root: Path) -> None:
    programs = {
        "jupyter": '[ "$1" = --version ] && echo 1',
        "jupyter-helps": '[ "$1" = --help ] && echo usage',
        "jupyter-mute": "exit 0",
        "jupyter-fails": "echo no >&2; exit 2",
        "jupyter-litters": "mktemp -d; echo > $HOME/x",
        "other": "echo 1",
    }
    for name, text in programs.items():
        script(sed_root, f"opt/conda/bin/{name}", text)
    with opened(sed_root) as image:
        found = jupyter.speech(image, "/opt/conda/bin", ["jupyter*"]).answers
        assert image.run(["ls", "-A", "/tmp"]).stdout == b""
    spoke = {path.rpartition("/")[2]: jupyter.spoken(said) for path, said in found.items()}
    assert spoke == {name: name != "jupyter-mute" for name in programs if name != "other"}
    codes = {path.rpartition("-")[2]: said.exit_code for path, said in found.items()}
    assert (codes["helps"], codes["mute"], codes["fails"]) == (0, 0, 2)


@pytest.fixture(scope="module")
def image(reference_image: Path) -> Iterator[OpenImage]:  # noqa: F811
    with opened(reference_image) as opened_image:
        yield opened_image


@pytest.mark.slow
def test_nothing_is_left_in_the_image(image: OpenImage) -> None:
    asked = [jupyter.Surroundings("python3", ("~/.local", "PYTHONPATH"))]
    plain, host = jupyter.kernels(image, PYTHON, asked).runs
    assert (plain.error, host.error) == (None, None)
    assert (host.sees_usersite, host.sees_pythonpath) == (False, False)
    server = jupyter.server(image, PYTHON, "jupyter-lab", None, ["/bin/bash", "/bin/absent"])
    assert server.error is None
    assert server.terminals["/bin/bash"] is None
    assert server.terminals["/bin/absent"] is not None
    assert image.run(["ls", "-A", "/tmp"]).stdout == b""
    processes = image.run(["bash", "-c", "cd /proc; echo [0-9]*"]).stdout.split()
    # The first process and the one that looks.
    assert len(processes) <= 2


@pytest.mark.slow
def test_a_server_that_ends(image: OpenImage) -> None:
    server = jupyter.server(image, PYTHON, "false", None, [])
    assert server.error is not None
    assert "before it answered" in server.error
    assert not server.status


@pytest.mark.slow
def test_a_server_that_is_not_there(image: OpenImage) -> None:
    server = jupyter.server(image, PYTHON, "no-such-lab", None, [])
    assert server.error is not None
    assert "no-such-lab" in server.error


@pytest.mark.slow
def test_a_kernel_that_dies_is_not_waited_for() -> None:
    with opened(reference.build("ml-pyroot", defects=["kernel-dies"])) as dying:
        server = jupyter.server(dying, PYTHON, "jupyter-lab", "python3", [])
    assert server.error is None
    assert server.kernel_error is not None
    assert "the kernel died" in server.kernel_error


def test_what_runs_inside_needs_only_an_old_python() -> None:
    for file in (Path(jupyter.__file__).parents[1] / "inside").glob("*.py"):
        ast.parse(file.read_text(), feature_version=(3, 8))


@pytest.mark.slow
def test_a_kernel_of_the_generation_before_bears_what_it_promised() -> None:
    with opened(reference.build("ml-base", defects=["kernel-old-generation"])) as old:
        host = ("python", "python3")
        (_, borne) = jupyter.kernels(
            old, PYTHON, [jupyter.Surroundings("python3", ("PATH", "~/.local"), host)]
        ).runs
        plain, together, path, modules = jupyter.kernels(
            old, PYTHON, [jupyter.Surroundings("python3", ("PATH", "PYTHONPATH"), host)]
        ).runs
    assert (borne.error, borne.prefix, borne.sees_usersite) == (None, "/opt/conda", False)
    # -s does not keep PYTHONPATH away; which of the two did the harm is found out.
    assert (plain.error, path.error) == (None, None)
    assert (path.hazards, modules.hazards) == (("PATH",), ("PYTHONPATH",))
    for run in (together, modules):
        assert run.error is not None
        assert "ImportError: the host's" in run.error


def test_kernels_get_the_variables_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an image sets, it sets for its users: nothing is taken away."""
    monkeypatch.setenv("PYTHONUSERBASE", "/opt/user")
    monkeypatch.setenv("PYTHONPATH", "/opt/modules")
    plain = surroundings(str(tmp_path), [], [])
    assert (plain["PYTHONUSERBASE"], plain["PYTHONPATH"]) == ("/opt/user", "/opt/modules")
    user = surroundings(str(tmp_path), ["~/.local"], [])
    assert user["PYTHONUSERBASE"] == "/opt/user"
    assert user["PYTHONPATH"].endswith("/host/no-modules:/opt/modules")


@pytest.mark.parametrize(
    ("told", "env", "where"),
    [
        ({"token": "0af1" * 12}, {}, "made"),
        ({"token": "ml"}, {"JUPYTER_TOKEN": "ml"}, "JUPYTER_TOKEN"),
        ({"token": "ml"}, {"JUPYTER_TOKEN": ""}, "a configuration"),
        ({"token": "from a file"}, {"JUPYTER_TOKEN_FILE": "FILE"}, "JUPYTER_TOKEN_FILE"),
        ({"token": "", "password": True}, {}, "password"),
        ({"token": "", "password": False}, {}, "nowhere"),
        ({}, {}, "nowhere"),
    ],
)
def test_where_a_token_comes_from(
    told: dict[str, object], env: dict[str, str], where: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("from a file")
    env = {name: value.replace("FILE", str(tmp_path / "token")) for name, value in env.items()}
    assert origin(told, env) == where
