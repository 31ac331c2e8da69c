"""The report as one self-contained HTML page, without network access or other files.

The page shows without scripts: the images, the matrix of images and rules, what is wrong, packages
and layers. `page.js` opens the details of a cell from the JSON report embedded in the page. All
text goes through ElementTree, which escapes it, and the page's policy allows only our own style
and script: text from an image can be neither markup nor code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from mlcheck.model.layer_history import instruction
from mlcheck.model.units import shown
from mlcheck.report import overview, text
from mlcheck.report.model import LayerModel, Outcome, Report, ResultModel
from mlcheck.report.overview import Colour, ImageOverview, Row

_FEW = 3
"""Number of images up to which their names are written horizontally."""

_NAMED = 20
"""Number of images shown for a failed rule, and of differences shown for a package list; the cells
of the matrix have all of them."""

_SIGNS: dict[Outcome, str] = {
    "failed": "✕",
    "error": "!",
    "waived": "w",
    "passed": "✓",
    "skipped": "–",  # noqa: RUF001 - as wide as the other signs
}
_VERDICTS: dict[Colour, str] = {"red": "✕", "yellow": "!", "green": "✓"}
_MEANINGS: dict[Outcome, str] = {
    "failed": "does not conform",
    "error": "could not be judged",
    "waived": "waived for a time",
    "passed": "conforms",
    "skipped": "does not apply",
}
_OF_PACKAGES = (
    *("parity-packages", "package-list-installed", "package-list-checked-in"),
    *("packages-promised", "packages-of-base", "python-requirements", "conda-depends"),
)
"""The rules whose findings are packages."""

_PARTS = ("useful", "repeated", "hidden", "caches")
_WORDS = {
    "useful": "seen in the image",
    "repeated": "stored again",
    "hidden": "deleted or replaced later",
    "caches": "caches of package managers",
}


def page(report: Report) -> str:
    """Return the text of the HTML file."""
    found = overview.images(report)
    style = f":root {{ --images: {len(found)}; }}\n{_file('page.css')}"
    script = _file("page.js")
    rows = overview.rows(report)
    root = ET.Element("html", lang="en")
    head = ET.SubElement(root, "head")
    ET.SubElement(head, "meta", charset="utf-8")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
    policy += "base-uri 'none'; form-action 'none'"
    ET.SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    for name, content in (
        ("viewport", "width=device-width, initial-scale=1"),
        ("color-scheme", "light dark"),
        ("referrer", "no-referrer"),
    ):
        ET.SubElement(head, "meta", name=name, content=content)
    _add(head, "title", f"mlcheck: {overview.closing(found)}")
    ET.SubElement(head, "style").text = style
    body = ET.SubElement(root, "body")
    body.append(_header(report, found))
    main = ET.SubElement(body, "main")
    main.extend(_sections(report, found, rows))
    dialog = ET.SubElement(body, "dialog", {"id": "details", "aria-labelledby": "details-title"})
    _add(dialog, "div", id="details-content")
    data = ET.SubElement(body, "script", type="application/json", id="report")
    data.text = _inert(json.dumps(_printable(report.model_dump(mode="json"))))
    ET.SubElement(body, "script").text = script
    return f"<!DOCTYPE html>\n{ET.tostring(root, encoding='unicode', method='html')}\n"


def _file(name: str) -> str:
    return resources.files("mlcheck.report").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _printable(value: Any) -> Any:
    """Make every text in JSON data printable."""
    if isinstance(value, str):
        return text.printable(value)
    if isinstance(value, dict):
        return {key: _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value


def _inert(data: str) -> str:
    """Escape JSON so that nothing in it can end the surrounding element."""
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    return data


def _add(
    parent: ET.Element, tag: str, said: str = "", /, class_: str = "", **attributes: str
) -> ET.Element:
    """Add an element with literal text: made printable here, and escaped when it is written."""
    element = ET.SubElement(parent, tag, attributes)
    if class_:
        element.set("class", class_)
    if said:
        element.text = text.printable(said)
    return element


def _header(report: Report, found: Sequence[ImageOverview]) -> ET.Element:
    header = ET.Element("header")
    _add(header, "h1", "mlcheck")
    _add(header, "p", overview.closing(found), "closing")
    said = [f"{report.started.replace('T', ' ')}", f"mlcheck {report.mlcheck_version}"]
    if report.machine:
        said.append(f"on {report.machine}")
    if report.runs:
        machines = dict.fromkeys(run.machine or "a machine" for run in report.runs)
        said.append(f"{len(report.runs)} runs on {', '.join(machines)}")
    if report.compared_with:
        said.append(f"compared with {report.compared_with}")
    said.append(f"exit code {report.exit_code}")
    _add(header, "p", " · ".join(said), "quiet")
    return header


def _sections(
    report: Report, found: Sequence[ImageOverview], rows: Sequence[Row]
) -> Iterator[ET.Element]:
    yield _matrix(report, found, rows)
    if wrong := [row for row in rows if row.worst in ("failed", "error")]:
        yield _wrong(report, found, wrong)
    yield _images(found)
    if packages := [
        (one, result)
        for one in found
        for _, result in one.results
        if result.check in _OF_PACKAGES and overview.open_findings(result)
    ]:
        yield _packages(packages)
    if layered := [one for one in found if one.image.layers]:
        yield _layers(layered)


def _section(title: str, name: str) -> ET.Element:
    section = ET.Element("section", {"aria-labelledby": name})
    _add(section, "h2", title, id=name)
    return section


def _images(found: Sequence[ImageOverview]) -> ET.Element:
    section = _section("Images", "images")
    cards = _add(section, "ul", class_="cards")
    for one in found:
        words, colour = one.verdict
        card = _add(cards, "li", class_=colour)
        _add(card, "h3", one.image.id)
        _add(card, "p", words, "verdict")
        counts = [(name, one.counts[name]) for name in overview.ORDER]
        card.append(_bar(counts, sum(count for _, count in counts), one.tally()))
        _add(card, "p", one.tally())
        details = [f"expected: {one.image.profile}", f"engine {one.image.engine}"]
        details += [one.image.machine] if one.image.machine else []
        _add(card, "p", " · ".join(details), "quiet")
        if one.image.digest:
            _add(card, "p", one.image.digest, "quiet code")
        if one.image.config_digest not in (None, one.image.digest):
            _add(card, "p", f"configuration {one.image.config_digest}", "quiet code")
        for reason, names in one.not_judged():
            _add(card, "p", f"not judged: {reason}: {', '.join(names)}", "quiet")
        if others := ", ".join(one.image.not_promised):
            _add(card, "p", f"not promised by the profile: {others}", "quiet")
        for note in (*one.image.notes, *(f"unused waiver: {w}" for w in one.image.unused_waivers)):
            _add(card, "p", note, "quiet")
    return section


def _bar(parts: Sequence[tuple[str, int]], whole: int, words: str) -> ET.Element:
    """Draw parts of a whole as a bar, with the same information as text for screen readers."""
    svg = ET.Element(
        "svg",
        {"class": "bar", "viewBox": "0 0 1000 10", "preserveAspectRatio": "none", "role": "img"},
    )
    svg.set("aria-label", text.printable(words))
    at = 0.0
    for name, size in parts:
        width = 1000 * size / whole if whole else 0
        if size:
            rect = ET.SubElement(svg, "rect", x=f"{at:.2f}", y="0", width=f"{width:.2f}")
            rect.set("height", "10")
            rect.set("class", name)
        at += width
    return svg


def _matrix(report: Report, found: Sequence[ImageOverview], rows: Sequence[Row]) -> ET.Element:
    section = _section("Checks", "checks")
    _add(section, "form", id="filter", hidden="")
    few = len(found) <= _FEW
    frame = _add(section, "div", class_="few" if few else "many")
    # Some browsers drop the roles of table parts whose rows are grids.
    table = _add(frame, "table", class_="matrix", id="matrix", role="grid")
    _add(table, "caption", "Each check on each image, the worst first", "unseen")
    head = ET.SubElement(table, "thead", role="rowgroup")
    line = ET.SubElement(head, "tr", role="row")
    _add(line, "th", "check", scope="col", role="columnheader")
    for one in found:
        colour = one.verdict[1]
        heading = _add(line, "th", class_=colour, scope="col", role="columnheader")
        _add(heading, "span", one.image.id)
        _add(heading, "b", f" {_VERDICTS[colour]}")
    body = ET.SubElement(table, "tbody", role="rowgroup")
    for row in rows:
        line = _add(body, "tr", class_=row.worst, role="row")
        _add(line, "th", row.label, scope="row", role="rowheader")
        for one in found:
            cell = ET.SubElement(line, "td", role="gridcell")
            _cell(cell, report, row.cells.get(one.image.id, ()))
    _add(section, "p", "No check fits.", id="none", hidden="")
    legend = _add(section, "p", class_="legend")
    for outcome in overview.ORDER:
        _legend(legend, outcome, _SIGNS[outcome], f"{outcome}: {_MEANINGS[outcome]}")
    return section


def _legend(legend: ET.Element, name: str, sign: str, meaning: str) -> None:
    entry = _add(legend, "span")
    _add(entry, "span", sign, f"cell {name}", **{"aria-hidden": "true"})
    _add(entry, "span", f" {meaning}")


def _cell(cell: ET.Element, report: Report, indices: Sequence[int]) -> None:
    if not indices:
        return
    outcome = overview.worst(report.results[index] for index in indices)
    link = _add(cell, "a", _SIGNS[outcome], f"cell {outcome}", href=f"#r{indices[0]}")
    link.set("aria-label", outcome)
    if len(indices) > 1:
        link.set("data-results", " ".join(map(str, indices)))


def _wrong(report: Report, found: Sequence[ImageOverview], rows: Sequence[Row]) -> ET.Element:
    section = _section("What is wrong", "wrong")
    for row in rows:
        article = _add(section, "article")
        _add(article, "h3", row.label)
        if row.rule:
            _add(article, "p", row.rule)
        listed = _add(article, "ul")
        wrong = [
            (one, index, report.results[index])
            for one in found
            for index in row.cells.get(one.image.id, ())
            if report.results[index].outcome in ("failed", "error")
        ]
        for one, index, result in wrong[:_NAMED]:
            item = _add(listed, "li", id=f"r{index}")
            _add(item, "a", one.image.id, href=f"#r{index}")
            _add(item, "span", f": {overview.headline(result)}")
            source = next((f.source for f in overview.open_findings(result) if f.source), None)
            if source:
                _add(item, "span", f" ({source})", "quiet")
        if len(wrong) > _NAMED:
            _add(listed, "li", f"and {len(wrong) - _NAMED} more, see above")
        remedy = next((result.remedy for _, _, result in wrong if result.remedy), None)
        if remedy:
            _add(_add(article, "p"), "strong", "Fix: ").tail = text.printable(remedy)
        if more := next(filter(None, (overview.explained(result) for _, _, result in wrong)), ""):
            _add(article, "p", f"More: {more}", "quiet")
    return section


def _packages(found: Sequence[tuple[ImageOverview, ResultModel]]) -> ET.Element:
    section = _section("Packages that differ", "packages")
    for one, result in found:
        findings = overview.open_findings(result)
        article = _add(section, "article")
        _add(article, "h3", f"{one.image.id}: {result.check}")
        count = overview.open_count(result)
        whole = max(result.checked, count)
        words = f"{count} of {whole} differ"
        parts = [("failed", count), ("passed", whole - count)]
        article.append(_bar(parts, whole, words))
        _add(article, "p", words, "quiet")
        table = _table(article, "package", "found", "expected")
        for finding in findings[:_NAMED]:
            line = ET.SubElement(table, "tr")
            _add(line, "th", finding.subject, scope="row")
            _add(line, "td", finding.found)
            _add(line, "td", finding.expected)
        if count > _NAMED:
            _add(article, "p", f"and {count - _NAMED} more, in the check's cell above")
    return section


def _layers(found: Sequence[ImageOverview]) -> ET.Element:
    section = _section("Layers", "layers")
    legend = _add(section, "p", class_="legend")
    for part in _PARTS:
        _legend(legend, part, "", _WORDS[part])
    for one in found:
        layers = one.image.layers
        article = _add(section, "article")
        waste = sum(layer.repeated + layer.hidden for layer in layers)
        _add(article, "h3", one.image.id)
        total = shown(sum(layer.size for layer in layers))
        _add(article, "p", f"{len(layers)} layers, {total}, of which {shown(waste)} wasted")
        table = _table(article, "layer", "size", "wasted", "made by")
        largest = max(layer.size for layer in layers)
        for layer in layers:
            line = ET.SubElement(table, "tr")
            _add(line, "th", str(layer.number), scope="row")
            _add(line, "td", shown(layer.size), "number")
            wasted = layer.repeated + layer.hidden
            _add(line, "td", shown(wasted) if wasted else "–", "number")  # noqa: RUF001
            cell = ET.SubElement(line, "td")
            cell.append(_layer_bar(layer, largest))
            _add(cell, "span", instruction(layer.created_by, 300), "code")
    return section


def _layer_bar(layer: LayerModel, largest: int) -> ET.Element:
    """Draw the parts of a layer as a bar with a length proportional to its size. Bytes that are
    both cache and deleted are shown once."""
    left = layer.size
    sizes: dict[str, int] = {}
    for part, size in (
        ("repeated", layer.repeated),
        ("hidden", layer.hidden),
        ("caches", layer.caches),
    ):
        sizes[part] = min(size, left)
        left -= sizes[part]
    sizes["useful"] = left
    words = ", ".join(f"{shown(sizes[part])} {_WORDS[part]}" for part in _PARTS if sizes[part])
    return _bar([(part, sizes[part]) for part in _PARTS], largest, words or "empty")


def _table(parent: ET.Element, *titles: str) -> ET.Element:
    """Add a table with headings and return its body."""
    table = _add(parent, "table", class_="plain")
    line = ET.SubElement(ET.SubElement(table, "thead"), "tr")
    for title in titles:
        _add(line, "th", title, scope="col")
    return ET.SubElement(table, "tbody")
