"""Reports of images with findings without an end, and texts of any length."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mlcheck.model.rule import Rule
from mlcheck.model.verdict import Finding, ShowRun, Verdict, judged
from mlcheck.report import bounds, github, html, junit, overview, reading, summary, text
from mlcheck.report.model import Report
from selftests import reports

A = reports.image("a:1")
ANY = Rule("any", "Any.", "Why.", "Fix.", (), (), False, lambda: judged(1), Path(__file__))
LONG = "\N{SNOWMAN}<&>\x1b" * 2000


def forms(report: Report) -> dict[str, str]:
    """The report in each form that is a file."""
    return {
        "json": report.model_dump_json(indent=1),
        "html": html.page(report),
        "junit": junit.document(report),
        "github": github.markdown(report),
        "annotations": "\n".join(github.errors(report)),
    }


def of_many(results: int, findings: int, length: int) -> Report:
    """A report as a machine of another version may have written it."""
    said = (LONG * (length // len(LONG) + 1))[:length]
    found = tuple(
        reports.finding(f"{number}{said}", found=said, expected=said) for number in range(findings)
    )
    every = [
        reports.result(A, f"check-{number}", "failed", findings=found, checked=findings)
        for number in range(results)
    ]
    every += [reports.result(A, "small", "failed"), reports.result(A, "e", "error", message=said)]
    return reports.report(*every, images=(A,))


@pytest.mark.parametrize(
    ("results", "findings", "length"), [(20, 1, 30_000), (3, 1000, 200), (100, 1, 4000)]
)
def test_no_report_grows_beyond_20_mb(
    results: int, findings: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a twentieth of each."""
    monkeypatch.setattr(bounds, "LARGEST", bounds.LARGEST // 20)
    report = of_many(results, findings, length)
    report = report.model_copy(update={"results": bounds.bounded(report.results)})
    for form, content in forms(report).items():
        assert len(content.encode()) < 1_000_000, form
    *many, small, _ = report.results
    assert all(overview.open_count(one) == findings for one in many)
    assert all(one.findings for one in many)
    assert small.findings == (reports.finding(),)


def test_a_small_report_is_left_as_it_is() -> None:
    results = reports.small().results
    assert bounds.bounded(results) == results


def test_reading_and_merging_bound_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.json"
    written = of_many(20, 1, 30_000).model_copy(update={"machine": "b"})
    file.write_text(written.model_dump_json(), encoding="utf-8")
    monkeypatch.setattr(bounds, "LARGEST", 400_000)
    found = reading.read(file)
    merged, _ = reading.merge([written, reports.small()])
    for report in (found, merged):
        assert len(report.model_dump_json()) < 500_000


def test_every_form_tells_the_true_number(capsys: pytest.CaptureFixture[str]) -> None:
    findings = tuple(reports.finding(f"/{number}") for number in range(50))
    one = reports.result(A, "files", "failed", findings=findings, findings_left_out=950)
    packages = reports.result(
        A, "packages-promised", "failed", findings=findings, findings_left_out=950
    )
    report = reports.report(one, packages, images=(A,))
    assert overview.headline(one).endswith("(and 999 more)")
    found = forms(report)
    assert "... and 950 more" in found["junit"]
    assert "and 995 more" in found["github"]
    assert "1000 of 1000 differ" in found["html"]
    assert '"findings_left_out": 950' in found["json"]
    assert "(and 999 more)" in found["annotations"]


def test_a_summary_for_github_names_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not fit is told in short, and does not take away those behind it."""
    large = [
        reports.result(
            A,
            f"check-{number}",
            "failed",
            findings=(reports.finding(found=LONG, by_hand=LONG), reports.finding(found=LONG)),
        )
        for number in range(30)
    ]
    report = reports.report(*large, reports.result(A, "small", "failed"), images=(A,))
    monkeypatch.setattr(github, "LARGEST", 300_000)
    found = github.markdown(report)
    assert len(found.encode()) < 300_000
    assert all(f"check&#45;{number}<" in found for number in range(30))
    assert "small" in found
    monkeypatch.setattr(github, "LARGEST", 50_000)
    found = github.markdown(report)
    assert "This is not all: " in found
    assert len(found.encode()) < 50_000


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_a_failure_on_a_terminal(count: int) -> None:
    show = ShowRun(("cat", LONG))
    findings = [Finding(f"{number}{LONG}", LONG, LONG, show=show) for number in range(count)]
    verdict = Verdict(tuple(findings), notes=(LONG,) * 100, checked=count)
    said = text.failure(ANY, verdict, findings, "a", lambda _: LONG)
    assert len(said) < 300_000
    first = said.partition("\n")[0]
    assert len(first) < 600
    assert count == 1 or f"(and {count - 1} more)" in first
    assert "and 81 more notes" not in said
    assert "and 80 more notes" in said


def test_texts_say_what_is_missing() -> None:
    assert bounds.short("x" * 10, 10) == "x" * 10
    assert bounds.short("x" * 11, 10) == f"{'x' * 10}... (1 more characters)"
    assert bounds.message("a" * 9 + "b" * 10 + "c" * 9, 9) == (
        f"{'a' * 9}\n... (10 more characters)\n{'c' * 9}"
    )


def test_the_summary_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    report = of_many(10, 1, 100_000)
    report = report.model_copy(update={"results": bounds.bounded(report.results)})
    summary.write(summary.Plain(sys.stdout), report)
    assert len(capsys.readouterr().out) < 50_000


def test_size_as_it_is_written() -> None:
    for said in ("x", LONG, '"\\\n'):
        page = json.dumps(said)
        for sign in "<>&":
            page = page.replace(sign, "\\u0000")
        assert bounds._written(said) == len(page)
