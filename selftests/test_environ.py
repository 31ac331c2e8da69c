"""The environment for programs that threads start, while pytest changes its own."""

from __future__ import annotations

import os
import threading

import pytest

from mlcheck import environ


def test_it_is_this_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCHECK_TRY", "a b")
    monkeypatch.delenv("MLCHECK_NOT_THERE", raising=False)
    assert environ.own() == dict(os.environ)


def test_a_variable_that_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for number in range(20):
                os.environ[f"MLCHECK_TRY_{number}"] = "x"
            for number in range(20):
                del os.environ[f"MLCHECK_TRY_{number}"]

    monkeypatch.setenv("MLCHECK_STAYS", "here")
    changing = threading.Thread(target=change)
    changing.start()
    try:
        assert all(environ.own()["MLCHECK_STAYS"] == "here" for _ in range(2000))
    finally:
        stop.set()
        changing.join()
