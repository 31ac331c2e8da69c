"""Whatever hook of pytest raises an error of ours: the user reads its message and no traceback, and
the exit code is that of its kind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlcheck.cli import cache as cache_command
from mlcheck.cli import main
from mlcheck.report import reading

pytestmark = pytest.mark.slow

RAISING = """
import os
from mlcheck.model import errors

hook, kind, where = os.environ["RAISE"].split()

def raising():
    if where == ("worker" if "PYTEST_XDIST_WORKER" in os.environ else "main"):
        if kind == "OSError":
            raise OSError(28, "No space left on device", "/disk/file")
        raise getattr(errors, kind)("this is wrong here.", "Do something about it.")

globals()[hook] = raising
"""

HOOKS = [
    "pytest_configure",
    "pytest_sessionstart",
    "pytest_report_header",
    "pytest_collection",
    "pytest_ignore_collect",
    "pytest_collect_directory",
    "pytest_collect_file",
    "pytest_generate_tests",
    "pytest_collection_modifyitems",
    "pytest_collection_finish",
    "pytest_runtestloop",
    "pytest_runtest_protocol",
    "pytest_runtest_logstart",
    "pytest_runtest_makereport",
    "pytest_runtest_logreport",
    "pytest_report_teststatus",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_unconfigure",
]
OF_XDIST = ["pytest_configure_node", "pytest_xdist_make_scheduler", "pytest_testnodeready"]
IN_A_WORKER = [
    "pytest_configure",
    "pytest_sessionstart",
    "pytest_generate_tests",
    "pytest_collection_modifyitems",
    "pytest_runtest_protocol",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("told")
    (directory / "raising.py").write_text(RAISING)
    (directory / "mini:v9/etc").mkdir(parents=True)
    (directory / "mini:v9/usr").mkdir()
    (directory / "mini:v9/etc/os-release").write_text("ID=mini\nVERSION_ID=9\n")
    (directory / "profiles/mini").mkdir(parents=True)
    (directory / "profiles/mini/image.toml").write_text('[os]\nid = "mini"\nversion = "9"\n')
    return directory


def ended(
    place: Path, hook: str, kind: str, *words: str, where: str = "main"
) -> subprocess.CompletedProcess[str]:
    command = ["-m", "mlcheck.cli", "check", "./mini:v9", "--profiles", "profiles"]
    # These tests may run in a worker themselves.
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    return subprocess.run(
        [sys.executable, *command, "-k", "os-release", "-p", "raising", *words],
        cwd=place,
        env={**own, "PYTHONPATH": str(place), "RAISE": f"{hook} {kind} {where}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


CODES = {"UsageError": 4, "EngineError": 3, "ProbeError": 3, "OSError": 3}


def one_message(done: subprocess.CompletedProcess[str], kind: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == CODES[kind], said
    if kind == "OSError":
        assert said.count("/disk/file: No space left on device.") == 1, said
    else:
        assert said.count("this is wrong here.\nDo something about it.") == 1, said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said


@pytest.mark.parametrize("hook", HOOKS)
def test_an_error_in_any_hook_is_one_message(place: Path, hook: str) -> None:
    one_message(ended(place, hook, "EngineError"), "EngineError")


@pytest.mark.parametrize("kind", ["UsageError", "ProbeError", "OSError"])
def test_each_kind_of_error_has_its_exit_code(place: Path, kind: str) -> None:
    for hook in ("pytest_sessionstart", "pytest_sessionfinish"):
        one_message(ended(place, hook, kind), kind)


@pytest.mark.parametrize("hook", OF_XDIST)
def test_an_error_in_a_hook_of_xdist_is_one_message(place: Path, hook: str) -> None:
    one_message(ended(place, hook, "EngineError", "-n1"), "EngineError")


@pytest.mark.parametrize("hook", IN_A_WORKER)
def test_an_error_in_a_worker_is_one_message(place: Path, hook: str) -> None:
    kind = "UsageError" if hook in IN_A_WORKER[::2] else "EngineError"
    one_message(ended(place, hook, kind, "-n1", where="worker"), kind)


def test_a_bug_keeps_its_traceback(place: Path) -> None:
    """So that it can be reported and found."""
    (place / "broken.py").write_text("def pytest_sessionstart():\n    {}['nothing']\n")
    done = ended(place, "pytest_none", "none", "-p", "broken", where="nowhere")
    assert done.returncode == 3
    assert "KeyError: 'nothing'" in done.stdout + done.stderr


UNFORESEEN = """
import contextlib, importlib, os

place, name = os.environ["BROKEN"].split(":")
module = importlib.import_module(place)
owner, _, name = name.rpartition(".")
whose = getattr(module, owner) if owner else module
whole = getattr(whose, name)

def raising(*arguments, **options):
    what = arguments[1] if owner else arguments[0]
    image = str(getattr(what, "root", None) or getattr(what, "ref", what).text)
    if image.endswith("mini:v9"):
        raise OverflowError("Python int too large \\x1b[31m")
    return whole(*arguments, **options)

setattr(whose, name, raising)
"""
IN_THE_IMAGE = {
    "preparing ./mini:v9 for sandbox": "mlcheck.engines.sandbox.engine:Sandbox.prepare",
    "opening ./mini:v9 by sandbox": "mlcheck.engines.sandbox.engine:Sandbox.open",
    "finding OsRelease": "mlcheck.inspect.system.probe:os_release",
}
"""What failed, in the message, by the function that raises."""


def broken(place: Path, function: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Two images are judged, and for one of them a function raises what nobody foresaw."""
    (place / "unforeseen.py").write_text(UNFORESEEN)
    if not (place / "mini:v8").exists():
        shutil.copytree(place / "mini:v9", place / "mini:v8")
    return subprocess.run(
        [
            *(sys.executable, "-m", "mlcheck.cli", "check", "./mini:v9", "./mini:v8"),
            *("--profiles", "profiles", "-p", "unforeseen", "--engine", "sandbox"),
            *("-k", "os-release", "--mlcheck-json", "report.json", *words),
        ],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place), "BROKEN": function},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "workers"])
@pytest.mark.parametrize("doing", IN_THE_IMAGE)
def test_what_nobody_foresaw_is_an_error_of_its_image_alone(
    place: Path, doing: str, workers: tuple[str, ...]
) -> None:
    done = broken(place, IN_THE_IMAGE[doing], *workers)
    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    report = reading.read(place / "report.json")
    found = {one.image: (one.outcome, one.message) for one in report.results}
    assert found["mini:v8@sandbox"] == ("passed", None)
    outcome, message = found["mini:v9@sandbox"]
    assert outcome == "error"
    assert message is not None
    assert f"{doing} failed: OverflowError: Python int too large" in message
    assert "--full-trace shows where" in message
    for never in ("INTERNALERROR", "Traceback", "unforeseen.py", "\x1b"):
        assert never not in said


def test_its_traceback_is_there_for_who_asks(place: Path) -> None:
    done = broken(place, IN_THE_IMAGE["preparing ./mini:v9 for sandbox"], "--full-trace")
    assert "unforeseen.py" in done.stdout, done.stdout


def test_a_command_says_it_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(*_: object) -> None:
        raise OverflowError("too large \x1b[31m")

    monkeypatch.setattr(cache_command, "_show", raising)
    assert main.main(["cache"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("mlcheck: mlcheck itself failed: OverflowError: too large \\x1b[31m")
    assert "in raising" not in said
    assert main.main(["cache", "--full-trace"]) == 3
    assert "in raising" in capsys.readouterr().err
