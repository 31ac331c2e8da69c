"""What a JUnit file may hold, by the elements and attributes of Jenkins' junit-10.xsd.

That schema is the one that pytest's xunit2 family names as its own:
https://github.com/jenkinsci/xunit-plugin, src/main/resources/.../types/model/xsd/junit-10.xsd
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


@dataclass(frozen=True)
class _Element:
    required: str = ""
    optional: str = ""
    children: str = ""
    text: bool = False


_SAID = _Element(optional="type message", text=True)
_RERUN = _Element("type", "message", "stackTrace system-out system-err", text=True)
_ELEMENTS = {
    "testsuites": _Element(optional="name time tests failures errors", children="testsuite"),
    "testsuite": _Element(
        "name tests failures errors",
        "group time skipped timestamp hostname id package file log url",
        "testsuite properties testcase system-out system-err",
    ),
    "testcase": _Element(
        "name",
        "time classname group",
        "skipped error failure rerunFailure rerunError flakyFailure flakyError "
        "system-out system-err",
    ),
    "properties": _Element(children="property"),
    "property": _Element("name value"),
    **dict.fromkeys(("failure", "error", "skipped"), _SAID),
    **dict.fromkeys(("rerunFailure", "rerunError", "flakyFailure", "flakyError"), _RERUN),
    **dict.fromkeys(("system-out", "system-err", "stackTrace"), _Element(text=True)),
}


def breaches(document: str) -> list[str]:
    """In what a document does not follow the schema; it has to be XML at all."""
    root = ET.fromstring(document)
    found = [] if root.tag in ("testsuites", "testsuite") else [f"the root is {root.tag}"]
    return [*found, *_breaches(root)]


def _breaches(element: ET.Element) -> Iterator[str]:
    rule = _ELEMENTS[element.tag]
    required, optional = set(rule.required.split()), set(rule.optional.split())
    for name in required - element.attrib.keys():
        yield f"{element.tag} has no {name}"
    for name in element.attrib.keys() - required - optional:
        yield f"{element.tag} has {name}"
    if element.tag in ("testsuites", "testsuite") and not _TIME.fullmatch(element.get("time", "")):
        yield f"{element.tag} takes {element.get('time')}"
    if not rule.text and (element.text or "").strip():
        yield f"{element.tag} has text"
    for child in element:
        if child.tag not in rule.children.split():
            yield f"{element.tag} has a {child.tag}"
        elif child.tail and child.tail.strip() and not rule.text:
            yield f"{element.tag} has text"
        else:
            yield from _breaches(child)
