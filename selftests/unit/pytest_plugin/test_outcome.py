"""What reports get of a verdict with more findings than anybody reads."""

from __future__ import annotations

import pytest

from mlcheck.model.verdict import Finding
from mlcheck.pytest_plugin import outcome
from selftests.rules import rule


def test_findings_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "MOST_FINDINGS", 3)
    findings = [(Finding(str(n), "there", "not"), n % 2 == 0) for n in range(8)]
    assert outcome._first(rule("os-release"), findings[:3]) == findings[:3]
    kept = outcome._first(rule("os-release"), findings)
    assert [one.subject for one, _ in kept] == ["1", "3", "5", "os-release"]
    assert kept[-1] == (Finding("os-release", "5 more such findings", "none"), False)
    waived = [(finding, True) for finding, _ in findings]
    assert outcome._first(rule("os-release"), waived)[-1][1]
