"""What people of docker-stacks' kind are used to: IMAGE_NAME, NB_PREFIX, `make test/IMAGENAME`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlcheck.errors import UsageError
from mlcheck.fixtures_serving import url_prefix

ROOT = Path(__file__).parents[1]


def collected(*arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_environment_names_the_image() -> None:
    listed = collected(IMAGE_NAME="example.org/me/jupyterlab-cpu:v1")
    assert "tests/general/test_serving.py::test_user_is_not_root[jupyterlab-cpu:v1@" in listed
    assert "ml-" not in listed.replace("mlcheck", "")


def test_the_option_comes_first() -> None:
    listed = collected("--image=example.org/me/rstudio:v1", IMAGE_NAME="example.org/sas:v1")
    assert "[rstudio:v1@" in listed
    assert "[sas:v1@" not in listed


@pytest.mark.parametrize(
    ("words", "image"),
    [
        (["REPO=example.org/me", "TAG=master"], "example.org/me/rstudio:master"),
        (["TAG=v1"], "rstudio:v1"),
        ([], "rstudio:latest"),
    ],
)
def test_make_hands_repository_and_tag_on(words: list[str], image: str) -> None:
    told = subprocess.run(
        ["make", "--dry-run", "test/rstudio", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'IMAGE_NAME="{image}"' in told.stdout


def test_the_environment_names_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NB_PREFIX", "/notebook/username/notebookname")
    assert url_prefix() == "/notebook/username/notebookname"
    monkeypatch.delenv("NB_PREFIX")
    assert url_prefix() != url_prefix()


@pytest.mark.parametrize("given", ["", "/", "lab", "/a b", "/$(id)"])
def test_a_prefix_that_is_none(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NB_PREFIX", given)
    with pytest.raises(UsageError, match="NB_PREFIX"):
        url_prefix()
