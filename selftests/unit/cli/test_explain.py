"""`mlcheck explain`: every rule has a reason with its source, keys that exist, and a planted
or a named reason why none."""

from __future__ import annotations

import ast
import datetime
import json
import re
import tomllib

import pytest

from mlcheck.cli import explain
from mlcheck.cli import main as cli
from mlcheck.inspect import rules
from mlcheck.profile.catalog import SUITE, Catalog, Profile
from mlcheck.profile.schema import Expectations
from mlcheck.profile.schema.keys import JUDGED_WITH, meaning
from selftests.verdicts import PROVEN_ELSEWHERE

RULES = rules.all_rules()

SOURCE = re.compile(r"https://|README of|usatlas/ML-Containers|StatCan/|docs/\w+\.md|\w+\(\d\)")
"""A document, a repository, or a page of a manual."""


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> object:
    def run(*arguments: str, code: int = 0) -> str:
        assert cli.main(["explain", *arguments]) == code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return err if code else out

    return run


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_a_source_a_fact_keys_that_exist_and_a_proof(name: str) -> None:
    rule = RULES[name]
    assert SOURCE.search(rule.why), rule.why
    assert rule.why.endswith("."), rule.why
    assert rules.facts_of(rule) or name in OF_INPUTS
    assert all(meaning(key) for key in (*rule.keys, *rule.also)), rule.keys
    # What no planted fault proves is proven by a self-test, and said to be.
    assert bool(explain.defects_of(rule)) != (name in PROVEN_ELSEWHERE)


OF_INPUTS = {"environment", "configuration", "entrypoint"}
"""Rules that judge the image's configuration, which needs no finding."""


def test_every_test_of_the_suite_is_a_rule() -> None:
    written = {
        (file, node.name)
        for file in SUITE.glob("*/test_*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert {(rule.file, rule.check.__name__) for rule in RULES.values()} == written


def test_a_profile_without_promises_is_judged_by_few_rules() -> None:
    always = {name for name, rule in RULES.items() if not rule.keys}
    assert set(rules.promised(Profile.of({}), compared=True)) == {
        name for name in always if rules.only_for(RULES[name]) is None
    }
    assert not [
        name
        for name in rules.promised(Profile.of({}), compared=False)
        if RULES[name].file.parent.name == rules.PARITY
    ]


def test_what_any_profile_says_is_judged() -> None:
    """By rules that stand in the folder of another profile, too."""
    own = Profile.of({"root_config": {"libs": ["-lz"]}, "micromamba": {"path": "/m"}})
    assert {"root-config", "micromamba"} <= rules.promised(own, compared=False).keys()
    assert not {"pyroot", "root-program"} & rules.promised(own, compared=False).keys()


def test_a_key_that_is_taken_into_account_has_a_rule_of_its_own_or_one_that_it_needs() -> None:
    keys = {key for rule in RULES.values() for key in rule.keys}
    further = {key for rule in RULES.values() for key in rule.also} - keys
    known = {*JUDGED_WITH, "layers.allowed"}  # the last one allows, and promises nothing
    of_kernels = "kernelspecs.generations.*.*."
    left = {one for one in further - known if not one.startswith((of_kernels, "parity."))}
    assert left == set()
    assert set(JUDGED_WITH.values()) <= keys


def test_where_a_rule_is() -> None:
    rule = RULES["root-program"]
    assert (rule.slow, rules.only_for(rule)) == (True, "ml-pyroot")
    rule = RULES["rpath-hard-coded"]
    assert (rule.slow, rules.only_for(rule)) == (False, None)
    assert rules.facts_of(rule).keys() == {"elf", "paths"}


@pytest.mark.parametrize(
    ("key", "begins"),
    [
        ("prefix", "Root of the environment: of conda, a virtual environment, or a Python"),
        ("packages.required", "The promised packages"),
        ("rpath", "RPATH and RUNPATH"),
        ("kernelspecs.generations.*.*.usersite", "Whether it sees"),
        ("packages.requried", None),
        ("kernelspecs.generations.usersite", None),
        ("prefix.more", None),
    ],
)
def test_the_meaning_of_a_key(key: str, begins: str | None) -> None:
    found = meaning(key)
    assert found is None if begins is None else str(found).startswith(begins)


def test_the_list(said) -> None:  # type: ignore[no-untyped-def]
    lines = said().splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    assert named == list(RULES)
    assert all(len(line) <= 100 for line in lines)
    listed = json.loads(said("--json"))["checks"]
    assert [one["check"] for one in listed] == list(RULES)


def test_an_explanation(said) -> None:  # type: ignore[no-untyped-def]
    text = said("rpath-hard-coded")
    plain = " ".join(text.split())
    rule = RULES["rpath-hard-coded"]
    for part in (rule.text, rule.why, rule.fix, "general/test_rpath.py::test_rpath_hard_coded"):
        assert part in plain
    assert "mlcheck reference build ml-pyroot --defect rpath)" in text
    assert "rpath.forbidden:" in text
    assert "no key switches it on" in said("layers-secrets")
    assert "self-tests with a stand-in" in " ".join(said("gpu-control").split())
    assert "only for ml-pyroot" in said("root-program")


def test_the_ready_waiver_is_one(said) -> None:  # type: ignore[no-untyped-def]
    text = said("libraries-resolve")
    for written in (
        text[text.index("    [[waivers]]") :],
        json.loads(said("libraries-resolve", "--json"))["waiver"],
    ):
        (waiver,) = Expectations.model_validate(tomllib.loads(written)).waivers
        assert (waiver.check, waiver.match) == ("libraries-resolve", "*")
        left = waiver.until - datetime.date.today()
        assert datetime.timedelta(days=28) < left < datetime.timedelta(days=32)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("rpath-hardcoded", "rpath-hard-coded"), ("libgl", None), ("\x1b[31m", None)],
)
def test_a_misspelt_rule(said, given: str, meant: str | None) -> None:  # type: ignore[no-untyped-def]
    text = said(given, code=4)
    assert "There is no rule" in text
    assert "`mlcheck explain` lists them all" in text
    assert "\x1b" not in text
    assert (f"Did you mean {meant}" in text) if meant else "Did you mean" not in text


def test_the_rules_of_an_image(said) -> None:  # type: ignore[no-untyped-def]
    text = said("--image", "ml-pyroot:alma9-python311")
    assert text.startswith("ml-pyroot:alma9-python311 is judged by ")
    told = json.loads(said("--image", "ml-pyroot:alma9-python311", "--json"))
    profile = Catalog([SUITE]).load("ml-pyroot", "alma9-python311")
    assert told["promised"] == list(rules.promised(profile, compared=False))
    assert told["not_promised"]["user"] == ["user"]
    assert not set(told["promised"]) & set(told["not_promised"])
    assert "there is no profile 'nothing'" in said("--image", "nothing", code=4)
