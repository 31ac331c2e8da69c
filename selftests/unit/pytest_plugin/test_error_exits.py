"""Whatever hook of pytest raises an error of ours: the user reads its message and no traceback, and
the exit code is that of its kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
