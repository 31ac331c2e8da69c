"""Runs pytest, as `python -m pytest` does, in a process that has loaded pytest and mlcheck already:
to load them takes longer than most self-tests' runs of the suite.

A process is forked for each run from one that has loaded them and done nothing else. What is about
the start of Python itself (its arguments, locale, signals, kill -9) is tried with real commands.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

from mlcheck.pytest_plugin.argv import joined

ROOT = Path(__file__).parents[1]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["selftests.warm_up"])


def pytest(
    *arguments: object,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 1800,
) -> subprocess.CompletedProcess[str]:
    """Run pytest and wait for its end; nothing is read from standard input.

    Args:
        env: the whole environment; None: this process's.

    Raises:
        subprocess.TimeoutExpired: it did not end, and was killed.
    """
    argv = ["pytest", *joined([str(argument) for argument in arguments])]
    _begin()
    with tempfile.TemporaryDirectory(prefix="mlcheck-warm-") as directory:
        files = [Path(directory, name) for name in ("out", "err")]
        process = _CONTEXT.Process(target=_be, args=(argv, cwd, dict(env or os.environ), files))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(argv, timeout_s)
        out, err = (file.read_text() for file in files)
        return subprocess.CompletedProcess(argv, process.exitcode, out, err)


def _begin() -> None:
    """Start what is forked; Python 3.11 does not tell it where modules are."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _be(argv: list[str], cwd: Path, env: Mapping[str, str], files: list[Path]) -> None:
    """Become a pytest that was just started."""
    for number, file in enumerate(files, 1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # TMPDIR may be another
    os.chdir(cwd)
    sys.path[:] = [str(cwd), *(place for place in sys.path if place not in ("", str(ROOT)))]
    sys.argv = argv
    try:
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing has its own end
