"""What people of docker-stacks' kind are used to: IMAGE_NAME, NB_PREFIX, `make test/IMAGENAME`."""

from __future__ import annotations

import os
import subprocess

import pytest

from mlcheck.inspect.server.url_prefix import url_prefix
from mlcheck.model.errors import UsageError
from selftests import warm
from selftests.checkout import CHECKOUT


def collected(*arguments: str, **env: str) -> str:
    done = warm.pytest("--collect-only", "-q", *arguments, env={**os.environ, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_variable_names_the_image() -> None:
    listed = collected(IMAGE_NAME="example.org/me/jupyterlab-cpu:v1")
    assert "tests/general/test_serving.py::test_user[jupyterlab-cpu:v1@" in listed
    assert "ml-" not in listed.replace("mlcheck", "")


def test_the_option_takes_precedence() -> None:
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
def test_make_passes_repository_and_tag_on(words: list[str], image: str) -> None:
    told = subprocess.run(
        ["make", "--dry-run", "test/rstudio", *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'IMAGE_NAME="{image}"' in told.stdout


def test_a_variable_names_the_url_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NB_PREFIX", "/notebook/username/notebookname")
    assert url_prefix() == "/notebook/username/notebookname"
    monkeypatch.delenv("NB_PREFIX")
    assert url_prefix() != url_prefix()


@pytest.mark.parametrize("given", ["", "/", "lab", "/a b", "/$(id)"])
def test_an_invalid_url_prefix_is_a_mistake(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NB_PREFIX", given)
    with pytest.raises(UsageError, match="NB_PREFIX"):
        url_prefix()
