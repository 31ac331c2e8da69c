"""docs/rules has a page for each rule, as its docstring says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from mlcheck.inspect.rules import all_rules, page_of
from selftests import rule_pages
from selftests.checkout import CHECKOUT

PAGES = rule_pages.pages()


def test_the_pages_are_up_to_date() -> None:
    there = {file.name: file.read_text("utf-8") for file in rule_pages.DIRECTORY.iterdir()}
    old = [name for name in {*there, *PAGES} if there.get(name) != PAGES.get(name)]
    assert not old, "run: python -m selftests.rule_pages"


def test_every_rule_of_the_suite_has_one() -> None:
    for rule in all_rules().values():
        assert (CHECKOUT / str(page_of(rule))).is_file(), rule.id


def test_a_rule_of_another_distribution_has_none(tmp_path: Path) -> None:
    rule = dataclasses.replace(all_rules()["files"], file=tmp_path / "test_files.py")
    assert page_of(rule) is None


def test_a_changed_docstring_makes_a_page_old() -> None:
    rule = all_rules()["files"]
    assert rule_pages.page(rule) == PAGES["files.md"]
    for changed in (
        dataclasses.replace(rule, text="Something else."),
        dataclasses.replace(rule, why="Something else."),
        dataclasses.replace(rule, fix="Something else."),
        dataclasses.replace(rule, keys=("user",)),
    ):
        assert rule_pages.page(changed) != PAGES["files.md"]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere_and_text_is_no_markup(name: str) -> None:
    text = PAGES[name]
    assert not re.search(r"(?<!\\)<\w", re.sub(r"`[^`]*`", "", text)), "an element of HTML"
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (rule_pages.DIRECTORY / target).exists(), target
