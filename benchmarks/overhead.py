"""Measure the time that the suite adds to the commands it runs.

As a plugin of pytest (`-p benchmarks.overhead`), it notes when commands run in an image. It writes
to the file named by MLCHECK_OVERHEAD for how much of the tests' time no command ran.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.elf import NO_CACHE
from benchmarks.measure import Setting, Table, mlcheck, run, suite
from benchmarks.measure import seconds as shown
from mlcheck.engines import select
from mlcheck.engines.apptainer.engine import OpenApptainer
from mlcheck.engines.oci.engine import OpenOci
from mlcheck.engines.sandbox.engine import OpenDirectory

ENGINES = ("sandbox", "docker")
TESTS = (
    "test_kernels or test_jupyter or imports or test_commands or test_shells or "
    "test_python_version or pyroot or test_root or test_entrypoint_command or "
    "test_entrypoint_banner or newenv_created"
)
"""Tests that run commands and read next to nothing."""

QUICK_TESTS = "test_commands or test_shells or test_python_version"

_spans: list[tuple[float, float]] = []
_tests: list[float] = []


def pytest_configure(config: pytest.Config) -> None:
    """Record the time of every command."""
    for kind in (OpenDirectory, OpenOci, OpenApptainer):
        for name in ("run", "start"):
            setattr(kind, name, _noted(getattr(kind, name)))


def _noted(method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*args, **options)
        finally:
            _spans.append((began, time.perf_counter()))

    return noted


def pytest_runtest_logstart() -> None:
    _tests.append(time.perf_counter())


def pytest_runtest_logfinish() -> None:
    _tests.append(time.perf_counter())


def pytest_unconfigure() -> None:
    if not _tests:
        return
    busy, until = 0.0, 0.0
    for began, ended in sorted(_spans):
        busy += max(0.0, ended - max(began, until))
        until = max(until, ended)
    found = {"tests": max(_tests) - min(_tests), "commands": busy, "count": len(_spans)}
    Path(os.environ["MLCHECK_OVERHEAD"]).write_text(json.dumps(found))


def tables(setting: Setting) -> Iterator[Table]:
    """Measure the running tests of one image."""
    build = mlcheck("reference", "build", "ml-pyroot")
    image = subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip()
    tests = QUICK_TESTS if setting.quick else TESTS
    table = Table(
        "The suite's own share",
        "Tests that run commands in the reference image ml-pyroot: the time in which none of their "
        "commands ran, as a share of the time from the first test to the last. The way of a "
        'command to the image and back counts as part of it: it is the column "a command" above. '
        f"`pytest -n0 -k '{tests}'`.",
        ("engine", "commands", "tests", "with a command", "without", "share"),
    )
    for engine in ENGINES[:1] if setting.quick else ENGINES:
        if (reason := select.engine(engine).unusable()) is not None:
            table.rows.append((engine, reason.what, "", "", "", ""))
            continue
        # One run only: a change in load then affects both parts.
        found = _once(setting, image, engine, tests)
        whole, commands = found["tests"], found["commands"]
        row = [engine, f"{found['count']:.0f}", shown(whole), shown(commands)]
        table.rows.append([*row, shown(whole - commands), f"{1 - commands / whole:.1%}"])
    yield table


def _once(setting: Setting, image: str, engine: str, tests: str) -> dict[str, float]:
    file = setting.work / "overhead.json"
    named = f"reference:{image.rpartition('/')[2]}"
    options = [f"--image={named}", f"--engine={engine}", "-n0", "-k", tests]
    run(
        suite("-p", "benchmarks.overhead", *options),
        env={**NO_CACHE, "MLCHECK_OVERHEAD": str(file), "PYTHONPATH": "."},
    )
    answer: dict[str, float] = json.loads(file.read_text())
    return answer
