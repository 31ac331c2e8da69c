"""The overview of a report: each image's verdict, and the matrix of images and rules."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlcheck.model.errors import DIFFERENT, NOT_JUDGED, NOTHING_JUDGED
from mlcheck.report import bounds
from mlcheck.report.model import FindingModel, ImageModel, Outcome, Report, ResultModel

ORDER: tuple[Outcome, ...] = ("failed", "error", "waived", "passed", "skipped")
"""Outcomes, the worst first."""

NO_PROFILE = "no profile says what is expected of this image"
"""Why an image without a profile is not judged as a whole."""

_SUBJECT, _FOUND = 200, 400
"""Characters of a subject, and of what was found, in one line."""

Colour = Literal["red", "yellow", "green"]


@dataclass(frozen=True, slots=True)
class ImageOverview:
    """One image with its results and the verdict that follows from them.

    Args:
        results: each result with its index in the report.
    """

    image: ImageModel
    results: tuple[tuple[int, ResultModel], ...]

    @property
    def counts(self) -> Counter[Outcome]:
        return Counter(result.outcome for _, result in self.results)

    @property
    def verdict(self) -> tuple[str, Colour]:
        """Return the verdict in words, and the colour in which to show it."""
        counts = self.counts
        if counts["error"] and counts["failed"]:
            return "DOES NOT CONFORM, and not all of it could be judged", "red"
        if counts["error"]:
            return "NOT JUDGED", "red"
        if counts["failed"]:
            return "DOES NOT CONFORM", "red"
        if counts["passed"] + counts["waived"] == 0:
            return "NOTHING WAS CHECKED", "yellow"
        if self.untried or self.image.without_profile:
            return "WHAT WAS JUDGED HOLDS", "yellow"
        if self.image.not_selected:
            return "WHAT WAS SELECTED HOLDS", "yellow"
        return "CONFORMS", "green"

    @property
    def untried(self) -> list[ResultModel]:
        """Return results of promises that could not be tried here, wholly or in part."""
        return [result for _, result in self.results if result.untried is not None]

    def not_judged(self) -> list[tuple[str, list[str]]]:
        """Return the reasons, other than errors, why rules were not judged, each with its rules."""
        reasons: dict[str, list[str]] = {}
        for result in self.untried:
            reasons.setdefault(result.untried or "", []).append(result.check or test_name(result))
        if left_out := self.image.not_selected:
            were = "check was" if len(left_out) == 1 else "checks were"
            reasons[f"{len(left_out)} {were} not selected"] = [*left_out]
        if self.image.without_profile:
            reasons[NO_PROFILE] = [self.advice()]
        return list(reasons.items())

    def advice(self) -> str:
        """Return the command that writes a profile for an image without one."""
        words = ["mlcheck", "snapshot", self.image.reference]
        return shlex.join([*words, "-o", f"profiles/{self.image.profile}/image.toml"])

    def tally(self) -> str:
        """ "2 failed, 55 passed, 26 skipped"; "9 of 57; 9 passed" when not all was judged."""
        counts: Counter[str] = Counter(self.counts)
        warnings = sum(is_warning(result) for _, result in self.results)
        counts["waived"] -= warnings
        counts["warned about"] = warnings
        shown = ("failed", "error", "warned about", "passed", "waived", "skipped")
        said = ", ".join(f"{counts[name]} {name}" for name in shown if counts[name])
        judged = counts["failed"] + counts["passed"] + counts["waived"] + warnings
        skipped = sum(result.outcome == "skipped" for result in self.untried)
        missing = counts["error"] + skipped + len(self.image.not_selected)
        return f"{judged} of {judged + missing}; {said}" if missing else said


@dataclass(frozen=True, slots=True)
class Row:
    """One rule on all images.

    Args:
        cells: for each image with results, the indices of these.
        worst: the worst outcome of all its results.
    """

    label: str
    rule: str | None
    cells: dict[str, tuple[int, ...]]
    worst: Outcome


def images(report: Report) -> list[ImageOverview]:
    """Return the images that have a result."""
    found: dict[str, list[tuple[int, ResultModel]]] = {}
    for index, result in enumerate(report.results):
        found.setdefault(result.image, []).append((index, result))
    return [
        ImageOverview(image, tuple(found[image.id])) for image in report.images if image.id in found
    ]


def rows(report: Report) -> list[Row]:
    """Build the matrix of images and rules: failed rows first, otherwise in the suite's order.

    A test that reached a verdict names its rule. A test that was skipped or stopped on every image
    never reached one and appears under its own name.
    """
    known = {image.id: image.id_in_tests or image.id for image in report.images}
    keys = [_without_image(result.test, known.get(result.image, "")) for result in report.results]
    checks = {
        key: result.check for key, result in zip(keys, report.results, strict=True) if result.check
    }
    cells: dict[str, dict[str, list[int]]] = {}
    for index, (key, result) in enumerate(zip(keys, report.results, strict=True)):
        row = cells.setdefault(checks.get(key) or _name(key), {})
        row.setdefault(result.image, []).append(index)
    rules = {result.check: result.rule for result in report.results if result.check}
    found = [
        Row(
            label,
            rules.get(label),
            {image: tuple(indices) for image, indices in row.items()},
            worst(report.results[index] for indices in row.values() for index in indices),
        )
        for label, row in cells.items()
    ]
    return sorted(found, key=lambda row: ORDER.index(row.worst))


def worst(results: Iterable[ResultModel]) -> Outcome:
    """Return the worst outcome of some results."""
    return min((result.outcome for result in results), key=ORDER.index)


def open_findings(result: ResultModel) -> list[FindingModel]:
    """Return the findings that are not waived."""
    return [finding for finding in result.findings if not finding.waived]


def open_count(result: ResultModel) -> int:
    """Return the number of findings that are not waived, those that are left out too."""
    return len(open_findings(result)) + result.findings_left_out


def headline(result: ResultModel, gap: str = " ") -> str:
    """Say in one line what is wrong, followed by a gap and the number of further findings."""
    failed = result.outcome == "failed" or is_warning(result)
    if failed and (found := open_findings(result)):
        count = open_count(result)
        more = f"{gap}(and {count - 1} more)" if count > 1 else ""
        subject = bounds.short(" ".join(found[0].subject.split()), _SUBJECT)
        words = bounds.short(" ".join(found[0].found.split()), _FOUND)
        return f"{subject}: {words}{more}"
    first, *_ = (result.message or result.test).splitlines() or [""]
    return bounds.short(first, _FOUND)


def explained(result: ResultModel) -> str:
    """Return the command that explains the rule of a result, and the rule's page if it has one."""
    if not result.check:
        return ""
    page = f" ({result.page})" if result.page else ""
    return f"mlcheck explain {result.check}{page}"


def is_warning(result: ResultModel) -> bool:
    """Return whether a rule has findings that do not fail the image because of its severity."""
    warned = result.outcome == "waived" and result.severity == "warning"
    return warned and open_count(result) > 0


def waived_because(result: ResultModel) -> str:
    """Say until when and why findings are waived, each reason once: a baseline has many waivers
    with the same."""
    why = [f"waived until {waiver.until}: {waiver.reason}" for waiver in result.waivers]
    if is_warning(result):
        why = [f"warning: {headline(result)}", *why]
    return bounds.short("; ".join(dict.fromkeys(why)))


def exit_code(found: Sequence[ImageOverview]) -> int:
    """Return the exit code of a run.

    1 if an image does not conform; 3 if one could not be judged; 0 if everything judged holds; 5 if
    nothing was judged at all, or nothing of an image of which no test was left out.
    """
    counts = [one.counts for one in found]
    if any(count["failed"] for count in counts):
        return DIFFERENT
    if any(count["error"] for count in counts):
        return NOT_JUDGED
    judged = [bool(count["passed"] + count["waived"]) for count in counts]
    whole = [not one.image.not_selected for one in found]
    empty = any(not was and all_ for was, all_ in zip(judged, whole, strict=True))
    return NOTHING_JUDGED if empty or not any(judged) else 0


def test_name(result: ResultModel) -> str:
    """Return the name of a test's function."""
    return result.test.partition("[")[0].rpartition("::")[2]


def some(names: Sequence[str]) -> str:
    """Join the first few of some names, and say how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")


def closing(found: Sequence[ImageOverview]) -> str:
    """Count the images of a run in one line."""
    words = Counter(one.verdict[0].partition(",")[0] for one in found)
    named = {
        "CONFORMS": ("conforms", "conform"),
        "DOES NOT CONFORM": ("does not conform", "do not conform"),
        "NOT JUDGED": ("could not be judged", "could not be judged"),
        "WHAT WAS JUDGED HOLDS": ("holds as far as judged", "hold as far as judged"),
        "WHAT WAS SELECTED HOLDS": ("holds as far as selected", "hold as far as selected"),
        "NOTHING WAS CHECKED": ("was not checked", "were not checked"),
    }
    parts = [f"{words[key]} {named[key][words[key] > 1]}" for key in named if words[key]]
    return f"{len(found)} image{'s' * (len(found) != 1)}: {', '.join(parts)}"


def _without_image(test: str, image: str) -> str:
    """Remove the image from the parameters in a test's id."""
    name, bracket, parameters = test.partition("[")
    if not bracket:
        return test
    left, _, right = parameters.removesuffix("]").partition(image)
    rest = "-".join(part.strip("-") for part in (left, right) if part.strip("-"))
    return f"{name}[{rest}]" if rest else name


def _name(key: str) -> str:
    """ "tests/general/test_rpath.py::test_no_rpath" as "no rpath" """
    return key.rpartition("::")[2].removeprefix("test_").replace("_", " ")
