"""docs/coverage.md says what is so."""

from __future__ import annotations

import re

from mlcheck.inspect.rules import all_rules
from mlcheck.reference import DEFECTS
from selftests import coverage

PROPERTIES = list(coverage.properties())


def test_the_page_is_up_to_date() -> None:
    written = coverage.PAGE.read_text(encoding="utf-8")
    assert written == coverage.page(), "run: python -m selftests.coverage"


def test_every_check_and_every_defect_stands_for_a_property() -> None:
    assert {check for row in PROPERTIES for check in row.checks} == set(all_rules())
    assert {defect for row in PROPERTIES for defect in row.defects} == set(DEFECTS)


def test_every_defect_proves_a_check_of_its_property() -> None:
    for row in PROPERTIES:
        for name in row.defects:
            assert DEFECTS[name].caught_by & set(row.checks), (row.promise, name)


def test_every_property_is_checked_and_every_check_of_it_proven() -> None:
    for row in PROPERTIES:
        assert row.checks or row.tests, row.promise
        proven = {check for name in row.defects for check in DEFECTS[name].caught_by}
        assert row.tests or set(row.checks) <= proven, (row.promise, set(row.checks) - proven)


def test_the_named_self_tests_exist() -> None:
    for row in PROPERTIES:
        for test in row.tests:
            file, _, name = test.partition("::")
            text = (coverage.ROOT / "selftests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), test


def test_every_check_has_a_consumer() -> None:
    named = [rule for consumer in coverage.consumers() for rule in consumer.rules]
    assert set(named) == set(all_rules())
    for consumer in coverage.consumers():
        said = [bool(consumer.tests), consumer.runs, bool(consumer.missing)]
        assert sum(said) == 1 or (sum(said) == 0 and consumer.name.startswith("none")), (
            consumer.name
        )


def test_every_comparison_with_a_consumer_is_named() -> None:
    comparison = re.compile(r"^def test_\w*(?<!is)(?<!are)_compared(?:_with_\w+)?\(", re.MULTILINE)
    selftests = coverage.ROOT / "selftests"
    there = {
        str(file.relative_to(selftests))
        for file in selftests.rglob("test_*.py")
        if comparison.search(file.read_text(encoding="utf-8"))
    }
    assert {test for consumer in coverage.consumers() for test in consumer.tests} == there
