"""Turn a rule's verdict into the outcome of a test."""

from __future__ import annotations

import dataclasses
import datetime
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mlcheck.engines import installed
from mlcheck.engines.base import Ask, OpenImage
from mlcheck.inspect.layers.facts import Layers
from mlcheck.model import shell_words
from mlcheck.model.errors import EngineError, Untried
from mlcheck.model.rule import Rule
from mlcheck.model.verdict import (
    Finding,
    Show,
    ShowFile,
    ShowHere,
    ShowMlcheck,
    ShowOnHost,
    ShowRun,
    Verdict,
)
from mlcheck.profile.catalog import Profile
from mlcheck.profile.schema import Waiver
from mlcheck.pytest_plugin.run import Target
from mlcheck.report import bounds, text
from mlcheck.report.model import FindingModel, LayerModel, WaiverModel

RESULT = pytest.StashKey[dict[str, Any]]()
"""In a test's stash: the fields of its `ResultModel` that come from a verdict."""


class Judge:
    """Converter of a rule's verdict into the test's outcome."""

    def __init__(self, item: pytest.Item, target: Target, show: Any) -> None:
        self._item = item
        self._target = target
        self._show = show

    def __call__(self, rule: Rule, verdict: Verdict) -> None:
        """Pass, fail, skip or xfail, with the verdict kept for the reports.

        Raises:
            EngineError: the verdict reports trouble of this machine or the engine.
            Untried: something that the rule needs is missing here.
        """
        if verdict.outcome == "failed" and not verdict.findings:
            nothing = Finding(rule.id, "nothing to compare", "at least one thing to judge")
            verdict = dataclasses.replace(verdict, findings=(nothing,))
        remedy = verdict.remedy or rule.fix
        today = datetime.datetime.now(datetime.UTC).date()
        findings: list[tuple[Finding, bool]] = []
        touched: dict[int, Waiver] = {}
        for finding in verdict.findings:
            fitting = _waivers(self._target.profile, rule.id, finding)
            touched.update(fitting)
            findings.append((finding, any(w.until >= today for w in fitting.values())))
        waivers = tuple(
            WaiverModel(
                source=str(self._target.profile.source("waivers", index) or ""),
                reason=waiver.reason,
                until=waiver.until.isoformat(),
                expired=waiver.until < today,
            )
            for index, waiver in sorted(touched.items())
        )
        self._item.stash[RESULT] = {
            "check": rule.id,
            "rule": rule.text,
            "remedy": remedy,
            "severity": self._target.profile.expect.severity_of(rule.id),
            "checked": verdict.checked,
            "findings": self._models(findings),
            "findings_left_out": max(sum(not w for _, w in findings) - bounds.FINDINGS, 0),
            "waivers": [waiver.model_dump() for waiver in waivers],
            "notes": [text.printable(note) for note in bounds.notes(verdict.notes)],
            "untried": text.printable(verdict.untried) if verdict.untried else None,
        }
        if verdict.trouble is not None:
            raise EngineError(verdict.trouble, remedy)
        if verdict.outcome == "skipped" and verdict.untried is not None:
            raise Untried(verdict.untried)
        if verdict.not_applicable is not None:
            pytest.skip(verdict.not_applicable)
        remarks = _remarks(waivers)
        open_findings = [finding for finding, waived in findings if not waived]
        warned = self._item.stash[RESULT]["severity"] == "warning"
        if open_findings and warned and self._item.config.getoption("--fail-on") == "error":
            pytest.xfail(text.headline(rule, open_findings))
        if open_findings:
            image = f"{self._target.ref.text}, engine {self._target.engine}"
            message = text.failure(rule, verdict, open_findings, image, self._show, remarks)
            pytest.fail(message, pytrace=False)
        if findings:
            pytest.xfail("; ".join(remarks))

    def _models(self, findings: Sequence[tuple[Finding, bool]]) -> list[dict[str, Any]]:
        """Return as many findings as a report has, in their order."""
        counts = {True: 0, False: 0}
        kept = []
        for finding, waived in findings:
            counts[waived] += 1
            if counts[waived] <= bounds.FINDINGS:
                kept.append(self._model(finding, waived))
        return kept

    def _model(self, finding: Finding, waived: bool) -> dict[str, Any]:
        return FindingModel(
            subject=bounds.short(text.printable(finding.subject)),
            found=bounds.short(text.printable(finding.found)),
            expected=bounds.short(text.printable(finding.expected)),
            source=str(finding.source) if finding.source else None,
            by_hand=self._by_hand(finding),
            waived=waived,
        ).model_dump()

    def _by_hand(self, finding: Finding) -> str | None:
        """Return the command that shows a finding; none if it is too long: half of one shows
        something else."""
        command = text.printable(self._show(finding.show)) if finding.show else ""
        return command if 0 < len(command) <= bounds.LENGTH else None


def _waivers(profile: Profile, rule: str, finding: Finding) -> dict[int, Waiver]:
    # People, and --write-waivers, copy what reports show of a subject.
    subjects = {finding.subject, bounds.short(text.printable(finding.subject))}
    return {
        index: waiver
        for index, waiver in enumerate(profile.expect.waivers)
        if waiver.check == rule
        and any(fnmatch.fnmatchcase(subject, waiver.match) for subject in subjects)
    }


def _remarks(waivers: Sequence[WaiverModel]) -> list[str]:
    """Say why findings are waived; a baseline has many waivers with one reason."""
    sources: dict[tuple[str, str, bool], list[str]] = {}
    for w in waivers:
        sources.setdefault((w.until, w.reason, w.expired), []).append(w.source)
    said = []
    for (until, reason, expired), places in sources.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        over = ", which is over: the check fails again" if expired else ""
        said.append(f"waived until {until}: {reason} ({places[0]}{more}){over}")
    return said


def layer_rows(layers: Layers) -> list[dict[str, Any]]:
    """Return the layers as the report has them."""
    rows = []
    for layer in layers.layers:
        copies = sum(one.size for one in layer.waste if one.kind in ("metadata", "same"))
        row = LayerModel(
            number=layer.number,
            digest=layer.digest,
            created_by=bounds.short(text.printable(layer.created_by), 500),
            size=layer.size,
            files=layer.files,
            repeated=copies,
            hidden=layer.wasted - copies,
            caches=sum(one.size for one in layer.leftovers),
        )
        rows.append(row.model_dump())
    return rows


def show_with(image: OpenImage, static: Ask) -> Callable[[Show], str]:
    """Return a function that turns a finding's `show` into a command for the engine of `image`."""

    def show(what: Show) -> str:
        match what:
            case ShowRun(argv):
                return image.show_run(argv)
            case ShowFile(tool, path, others):
                return image.show_file(tool, path, *others, static=static)
            case ShowOnHost(prefix, argv):
                words = ["mlcheck", "exec", "--on-host", prefix, image.ref.text, "--", *argv]
                return shell_words.joined(words)
            case ShowMlcheck(command, rest):
                obvious = installed.declaration(image.engine).obvious
                chosen = () if obvious else ("--engine", image.engine)
                return shell_words.joined(["mlcheck", command, *chosen, image.ref.text, *rest])
            case ShowHere(argv):
                return shell_words.joined(argv)

    return show
