"""`mlcheck explain`: every check has a reason with its source, a test that asks it, keys that
exist, and a planted fault or a named reason why none."""

from __future__ import annotations

import ast
import datetime
import json
import re
import runpy
import tomllib

import pytest

from mlcheck import cli, explaining
from mlcheck.expectations import Expectations
from mlcheck.expectations.keys import meaning
from mlcheck.profile import SUITE
from selftests.verdicts import PROVEN_ELSEWHERE

CHECKS = sorted(explaining.rules())

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


@pytest.mark.parametrize("check", CHECKS)
def test_a_check(check: str) -> None:
    found = explaining.explain(check)
    assert found.rule is explaining.rules()[check][0]
    assert found.tests, "no test of the suite asks it"
    assert all(test.facts for test in found.tests)
    assert SOURCE.search(found.rule.why), found.rule.why
    assert found.rule.why.endswith("."), found.rule.why
    assert all(found.keys.values()), found.keys
    # What no planted fault proves is proven by a self-test, and said to be.
    assert bool(found.defects) != (check in PROVEN_ELSEWHERE)


def test_every_test_of_the_suite_is_that_of_one_check() -> None:
    told = [(test.file, test.name) for tests in explaining.tests().values() for test in tests]
    written = [
        (str(file.relative_to(SUITE)), node.name)
        for file in SUITE.glob("*/test_*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert sorted(told) == sorted(written)
    assert set(explaining.tests()) == set(CHECKS)


def test_what_is_slow_is_what_pytest_takes_for_it() -> None:
    slow = set()
    for file in SUITE.glob("*/test_*.py"):
        module = runpy.run_path(str(file))
        marks = module.get("pytestmark", [])
        of_file = marks if isinstance(marks, list) else [marks]
        for name, test in module.items():
            own = [*getattr(test, "pytestmark", []), *of_file]
            if name.startswith("test_") and any(mark.name == "slow" for mark in own):
                slow.add((f"{file.parent.name}/{file.name}", name))
    told = {
        (test.file, test.name)
        for tests in explaining.tests().values()
        for test in tests
        if test.slow
    }
    assert told == slow


def test_a_test_of_the_suite() -> None:
    (test,) = explaining.tests()["gpu-control"]
    assert (test.file, test.only, test.slow) == ("gpu/test_gpu.py", "gpu", True)
    (test,) = explaining.tests()["rpath-hard-coded"]
    assert (test.only, test.slow) == (None, False)
    assert list(test.facts) == ["elf_files"]
    (test,) = explaining.tests()["parity-files"]
    assert test.name == "test_files"


@pytest.mark.parametrize(
    ("key", "begins"),
    [
        (
            "prefix",
            "Root of the environment: conda's, a virtual one, or where a Python lies (/usr/local).",
        ),
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
    assert sorted(named) == CHECKS
    assert all(len(line) <= 100 for line in lines)
    listed = json.loads(said("--json"))["checks"]
    assert sorted(one["check"] for one in listed) == CHECKS


def test_an_explanation(said) -> None:  # type: ignore[no-untyped-def]
    text = said("rpath-hard-coded")
    plain = " ".join(text.split())
    found = explaining.explain("rpath-hard-coded")
    for part in (found.rule.rule, found.rule.why, found.rule.remedy, "general/test_rpath.py::"):
        assert part in plain
    assert "mlcheck reference build ml-pyroot --defect rpath)" in text
    assert "rpath.forbidden:" in text
    assert "no key switches it on" in said("layers-secrets")
    assert "self-tests with a stand-in" in " ".join(said("gpu-control").split())
    assert "only for ml-pyroot" in said("root-config")


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
def test_a_misspelt_check(said, given: str, meant: str | None) -> None:  # type: ignore[no-untyped-def]
    text = said(given, code=4)
    assert "There is no check" in text
    assert "`mlcheck explain` lists them all" in text
    assert "\x1b" not in text
    assert (f"Did you mean {meant}" in text) if meant else "Did you mean" not in text
