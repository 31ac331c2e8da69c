"""The API reference: it can be built, and nothing in it is without a word."""

from __future__ import annotations

import importlib
import types
import warnings
from pathlib import Path

import pytest

from selftests import api


@pytest.mark.parametrize("name", [*api.MODULES, *api.FACTS])
def test_everything_public_is_explained(name: str) -> None:
    assert api.without_docstring(importlib.import_module(name)) == []


def test_what_is_not_explained_is_found() -> None:
    module = types.ModuleType("sample", "A module.")
    exec(
        "class Data:\n    x: int\n"
        "class Thing:\n    'A thing.'\n    def work(self): ...\n    @property\n"
        "    def told(self): ...\n"
        "class Told:\n    '''Is told.\n\n    Attributes:\n        size: how large.\n    '''\n"
        "    @property\n    def size(self): ...\n"
        "def act(): ...\n",
        vars(module),
    )
    missing = {"sample.Data", "sample.Thing.work", "sample.Thing.told", "sample.act"}
    assert set(api.without_docstring(module)) == missing


@pytest.mark.slow
def test_the_reference_can_be_built(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # pdoc looks for the types of inherited fields in the module of the heir.
        warnings.filterwarnings("ignore", "Error parsing type annotation .*__init__")
        api.build(tmp_path)
    verdict = (tmp_path / "mlcheck/model/verdict.html").read_text(encoding="utf-8")
    assert "Nothing compared and nothing found is a failure" in verdict


def test_every_fixture_and_every_fact_is_told_of() -> None:
    assert [name for name, told in api.fixtures() if not told] == []
    facts = list(api.facts())
    assert len(facts) > 60
    assert [name for name, _, told in facts if not told] == []
    assert api.PAGE.read_text(encoding="utf-8") == api.page(), (
        "docs/api.md is old: python -m selftests.api"
    )
