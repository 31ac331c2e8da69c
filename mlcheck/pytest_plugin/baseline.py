"""A baseline: what fails today is waived from the next run on, so that only new findings fail."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlcheck.model.errors import UsageError
from mlcheck.profile.catalog import Profile
from mlcheck.profile.waivers import ListedWaiver, WaiversFile, for_subject, updated
from mlcheck.report import overview, text
from mlcheck.report.model import Report


@dataclass(frozen=True)
class Baseline:
    """The files of waivers of a run, and the one that it writes.

    Args:
        files: of --waivers, and that of --write-waivers if it is there.
        written: of --write-waivers.
        until, reason: of the waivers that are written.
    """

    files: tuple[WaiversFile, ...]
    written: Path | None
    until: datetime.date
    reason: str

    @classmethod
    def of(cls, config: pytest.Config) -> Baseline:
        """Read the options of a run, and the files that they name.

        Raises:
            UsageError: a file is invalid or not there, or the options do not fit together.
        """
        option, directory = config.getoption, config.invocation_params.dir
        files = [directory / name for name in option("--waivers")]
        named: str | None = option("--write-waivers")
        until, reason = option("--until"), option("--reason")
        today = datetime.datetime.now(datetime.UTC).date()
        if named is None:
            if until is not None or reason is not None:
                given = "--until" if until is not None else "--reason"
                raise UsageError(
                    f"{given} is of --write-waivers, which is not given.",
                    "Add --write-waivers FILE, or leave it away.",
                )
            return cls(tuple(map(WaiversFile.read, files)), None, today, "")
        if not until or not reason:
            raise UsageError(
                f"--write-waivers {named}: until when are they accepted, and why?",
                f"Add --until {today.replace(year=today.year + 1, day=1)} --reason 'WHY'.",
            )
        try:
            last = datetime.date.fromisoformat(until)
        except ValueError:
            last = datetime.date.min
        if last < today:
            what = "is over" if last > datetime.date.min else "is no date such as 2027-06-30"
            raise UsageError(f"--until {until}: that {what}.", "Name a day to come: YYYY-MM-DD.")
        written = directory / named
        if written.exists() and written.resolve() not in [file.resolve() for file in files]:
            files.append(written)
        return cls(tuple(map(WaiversFile.read, files)), written, last, reason)

    def added_to(self, profile: Profile) -> Profile:
        """Return a profile with the waivers of all files."""
        for file in self.files:
            profile = file.added_to(profile)
        return profile

    def write(self, report: Report) -> Iterator[str]:
        """Write the file of --write-waivers, and yield what to say about it, in lines.

        Raises:
            OSError: it cannot be written.
        """
        if self.written is None:
            return
        gone = dict(self._no_longer_found(report))
        new: dict[tuple[str, str, str], ListedWaiver] = {}
        profiles = {image.id: image.profile for image in report.images}
        for result in report.results:
            if result.outcome != "failed":
                continue
            if result.check is None or not result.findings:
                yield f"not waived: {result.test} is no rule with findings"
                continue
            if result.findings_left_out:
                yield (
                    f"not waived: {result.findings_left_out} more findings of {result.check}, "
                    'too many for a report. By hand, match = "*" waives them all'
                )
            for finding in overview.open_findings(result):
                key = (profiles[result.image], result.check, finding.subject)
                new[key] = ListedWaiver(
                    profile=key[0],
                    check=key[1],
                    match=for_subject(key[2]),
                    reason=self.reason,
                    until=self.until,
                )
        for source, said in gone.items():
            yield f"taken out: {said} ({source})"
        if not new and not gone:
            as_it_was = " and nothing to take out of it" if self.written.exists() else ""
            yield f"{self.written}: nothing to waive{as_it_was}"
            return
        sources = [source for file in self.files for _, source in file.waivers]
        content = updated(
            self.written,
            without=[source for source in sources if str(source) in gone],
            new=[*new.values()],
        )
        self.written.write_text(content, encoding="utf-8")
        count = f"{len(new)} finding{'s are' if len(new) != 1 else ' is'}"
        yield f"{count} waived in {self.written} until {self.until}, from the next run on"
        yield f"judge with it: --waivers {self.written}"

    def _no_longer_found(self, report: Report) -> Iterator[tuple[str, str]]:
        """Yield the lines of waivers in the written file that fit nothing any more, or have
        ended; one whose rule was not judged stays."""
        used = {w.source: w.expired for result in report.results for w in result.waivers}
        profiles = {image.id: image.profile for image in report.images}
        judged = {
            (profiles[result.image], result.check)
            for result in report.results
            if result.outcome in ("passed", "failed", "waived") and result.untried is None
        }
        for file in self.files:
            if self.written is None or file.file.resolve() != self.written.resolve():
                continue
            for waiver, source in file.waivers:
                what = text.printable(f"{waiver.check} {waiver.match}")
                if str(source) in used:
                    if used[str(source)]:
                        yield str(source), f"{what}, which ended on {waiver.until}"
                elif any(
                    check == waiver.check and fnmatch.fnmatchcase(profile, waiver.profile)
                    for profile, check in judged
                ):
                    yield str(source), f"{what}, which is no longer found"
