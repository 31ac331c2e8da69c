"""JUnit XML from a report: a test suite for each image, a test case for each test.

The format is https://github.com/jenkinsci/xunit-plugin (junit-10.xsd), which Jenkins and pytest
follow. For a single run, pytest's own --junitxml has the same content; this is for merged reports.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from mlcheck.report import bounds, overview, text
from mlcheck.report.model import Report, ResultModel
from mlcheck.report.overview import ImageOverview


def document(report: Report) -> str:
    """Return the XML text.

    Text from an image can contain characters that XML cannot (control characters); `printable`
    escapes them. The writer escapes the rest, including "]]>".
    """
    root = ET.Element("testsuites", name="mlcheck")
    totals = {"tests": 0, "failures": 0, "errors": 0}
    for one in overview.images(report):
        suite = _suite(report, one)
        root.append(suite)
        totals = {key: count + int(suite.attrib[key]) for key, count in totals.items()}
    root.attrib.update({key: str(count) for key, count in totals.items()})
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="utf-8"?>\n', "\n")
    )


def _suite(report: Report, one: ImageOverview) -> ET.Element:
    image, counts = one.image, one.counts
    suite = ET.Element(
        "testsuite",
        name=_clean(image.id),
        tests=str(len(one.results)),
        failures=str(counts["failed"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"] + counts["waived"]),
        time=f"{sum(result.seconds for _, result in one.results):.3f}",
        timestamp=_clean(report.started),
    )
    if machine := image.machine or report.machine:
        suite.set("hostname", _clean(machine))
    properties = ET.SubElement(suite, "properties")
    known = {
        "image": image.reference,
        "engine": image.engine,
        "digest": image.digest,
        "configuration digest": image.config_digest,
        "profile": image.profile + (f":{image.tag}" if image.tag else ""),
        "verdict": one.verdict[0],
        "not judged": "; ".join(f"{why}: {', '.join(names)}" for why, names in one.not_judged())
        or None,
        "mlcheck": report.mlcheck_version,
    }
    for name, value in known.items():
        if value is not None:
            ET.SubElement(properties, "property", name=name, value=_clean(value))
    for _, result in one.results:
        suite.append(_case(result))
    return suite


def _case(result: ResultModel) -> ET.Element:
    path, _, name = result.test.partition("::")
    case = ET.Element(
        "testcase",
        classname=_clean(path.removesuffix(".py").replace("/", ".")),
        name=_clean(name or path),
        time=f"{result.seconds:.3f}",
    )
    check = f"{result.check}: " if result.check else ""
    if result.outcome == "failed":
        failure = ET.SubElement(case, "failure", type="mlcheck.Failed")
        said = [check + overview.headline(result)]
        if result.remedy:
            said.append(f"fix: {result.remedy}")
        failure.set("message", _clean("\n".join(said)))
        failure.text = _clean(details(result))
    elif result.outcome == "error":
        error = ET.SubElement(case, "error", type="mlcheck.NotJudged")
        error.set("message", _clean(check + overview.headline(result)))
        error.text = _clean(result.message or "")
    elif result.outcome == "skipped":
        ET.SubElement(case, "skipped", type="mlcheck.Skipped", message=_clean(result.message or ""))
    elif result.outcome == "waived":
        why = overview.waived_because(result)
        ET.SubElement(case, "skipped", type="mlcheck.Waived", message=_clean(why))
    return case


def details(result: ResultModel) -> str:
    """Format a whole failure as text: rule, findings, remedy."""
    if not result.check:
        return result.message or ""
    lines = [f"rule      {result.rule}"]
    found = overview.open_findings(result)
    for finding in found[: text.MOST]:
        where = f"   ({finding.source})" if finding.source else ""
        lines += ["", f"  {bounds.short(finding.subject)}"]
        lines.append(f"    found     {bounds.short(finding.found)}")
        lines.append(f"    expected  {bounds.short(finding.expected)}{where}")
        if finding.by_hand:
            lines.append(f"    reproduce {finding.by_hand}")
    if (count := overview.open_count(result)) > len(found[: text.MOST]):
        more = count - len(found[: text.MOST])
        lines.append(f"  ... and {more} more (the JSON report has up to {bounds.FINDINGS})")
    lines += ["", f"fix       {result.remedy}"]
    if result.page:
        lines.append(f"more      {overview.explained(result)}")
    return "\n".join([*lines, *(f"note      {note}" for note in result.notes)])


def _clean(value: str) -> str:
    return text.printable(value)
