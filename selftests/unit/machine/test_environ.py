"""The environment for programs that threads start, while pytest changes its own."""

from __future__ import annotations

import os
import threading

import pytest

from mlcheck.machine import environ


def test_the_copy_equals_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCHECK_TRY", "a b")
    monkeypatch.delenv("MLCHECK_NOT_THERE", raising=False)
    assert environ.own() == dict(os.environ)


def test_variables_may_change_while_the_copy_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
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
