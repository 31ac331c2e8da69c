"""Read JSON reports, and merge those of several machines into one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from mlcheck.model.errors import UsageError
from mlcheck.report import bounds
from mlcheck.report.model import (
    SCHEMA_VERSION,
    ImageModel,
    Outcome,
    Report,
    ResultModel,
    RunModel,
)

LARGEST = 512 << 20
"""Maximum bytes of a report; one with 5,000 results has less than a hundredth of it."""

_WITH_WHAT_DID_NOT_RUN = 4
"""The first minor version of the schema whose reports list what an early end left out."""

_MADE_BY = "A report is what `--mlcheck-json FILE` or `mlcheck report merge -o FILE` wrote."


def read(path: Path) -> Report:
    """Read one report, dropping keys that a later minor version added.

    Raises:
        UsageError: the file cannot be read, or is not a report of this major version.
    """
    return parsed(path, content_of(path))


def content_of(path: Path) -> bytes:
    """Return the bytes of a report's file.

    Raises:
        UsageError: it cannot be read, or is too large.
    """
    try:
        # A device or a pipe has no size, so limit the read as well.
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.", _MADE_BY) from None
    if len(content) > LARGEST:
        raise UsageError(f"{path}: larger than {LARGEST >> 20} MB, which no report is.", _MADE_BY)
    return content


def parsed(path: Path, content: bytes) -> Report:
    """Return the report that a file has, dropping keys that a later minor version added.

    Raises:
        UsageError: it is not a report of this major version.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise UsageError(f"{path}: no JSON, or cut off: {where}{said}.", _MADE_BY) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, str):
        raise UsageError(f"{path}: JSON, but no report: it has no schema_version.", _MADE_BY)
    ours = SCHEMA_VERSION.partition(".")[0]
    if version.partition(".")[0] != ours:
        raise UsageError(
            f"{path}: a report of schema version {version}; this mlcheck reads {ours}.x.",
            "Read it with the version of mlcheck that wrote it, or one of its time.",
        )
    try:
        report = Report.model_validate_json(content, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: no whole report: {key}: {first['msg']}.", _MADE_BY) from None
    minor = version.partition(".")[2]
    older = minor.isdecimal() and int(minor) < _WITH_WHAT_DID_NOT_RUN
    if older and 2 in _codes(report):
        report = _interrupted(report)
    report = report.model_copy(update={"results": bounds.bounded(report.results)})
    known = {image.id for image in report.images}
    for index, result in enumerate(report.results):
        if result.image not in known:
            raise UsageError(
                f"{path}: no whole report: results.{index} is of the image {result.image}, which "
                "is not among its images.",
                _MADE_BY,
            )
    return report


def _codes(report: Report) -> list[int]:
    return [run.exit_code for run in report.runs] or [report.exit_code]


def _interrupted(report: Report) -> Report:
    """Complete an older report of an interrupted run, which does not list the rest."""
    ended = tuple(
        ResultModel(
            test="the rest of the run",
            image=image.id,
            outcome="error",
            message="not run: the run was interrupted",
            seconds=0,
        )
        for image in report.images
    )
    counts = report.counts | {"error": report.counts.get("error", 0) + len(ended)}
    return report.model_copy(update={"results": (*report.results, *ended), "counts": counts})


def merge(reports: Sequence[Report]) -> tuple[Report, int]:
    """Merge the reports of all runs; also return how many were left out as duplicates.

    An image that several machines judged remains as many images.

    Raises:
        UsageError: two reports have a run in common but are not the same.
    """
    parts: list[Report] = []
    runs: list[RunModel] = []
    merged_runs: list[RunModel] = []
    for report in reports:
        if report in parts:
            continue
        own = report.runs or (_run(report),)
        # Two single runs of one machine may begin in the same second and take as long.
        others = runs if report.runs else merged_runs
        if both := [run for run in own if run in others]:
            raise UsageError(
                f"The run of {both[0].started} on {both[0].machine or 'a machine'} is in two of "
                "the reports.",
                "Merge the reports of single runs, or merged ones that have no run in common.",
            )
        parts.append(report)
        runs += own
        merged_runs += report.runs or ()
    left_out = len(reports) - len(parts)
    if len(parts) == 1:
        return parts[0], left_out
    images: list[ImageModel] = []
    results: list[ResultModel] = []
    for part, names in zip(parts, _names(parts), strict=True):
        for image in part.images:
            changed = {
                "id": names[image.id],
                "machine": image.machine or part.machine,
                "id_in_tests": image.id_in_tests
                or (image.id if names[image.id] != image.id else None),
            }
            images.append(image.model_copy(update=changed))
        results += [
            result.model_copy(update={"image": names[result.image]}) for result in part.results
        ]
    counts: dict[Outcome, int] = dict.fromkeys(
        ("passed", "failed", "error", "skipped", "waived"), 0
    )
    counts.update(Counter(result.outcome for result in results))
    codes = [run.exit_code for run in runs]
    compared = {run.compared_with for run in runs}
    merged = Report(
        mlcheck_version=", ".join(dict.fromkeys(run.mlcheck_version for run in runs)),
        started=min(run.started for run in runs),
        seconds=round(sum(run.seconds for run in runs), 3),
        exit_code=1 if 1 in codes else max(codes),
        runs=tuple(runs),
        images=tuple(images),
        compared_with=compared.pop() if len(compared) == 1 else None,
        results=bounds.bounded(results),
        counts=counts,
    )
    return merged, left_out


def _run(report: Report) -> RunModel:
    return RunModel(
        mlcheck_version=report.mlcheck_version,
        machine=report.machine,
        started=report.started,
        seconds=report.seconds,
        exit_code=report.exit_code,
        compared_with=report.compared_with,
    )


def _names(parts: Sequence[Report]) -> list[dict[str, str]]:
    """Return new image ids for each report: if two are alike, the machine is appended, then the
    time of the run, then a number."""
    every = [
        (image.id, image.machine or part.machine or "a machine", part.started)
        for part in parts
        for image in part.images
    ]
    ids = Counter(id_ for id_, _, _ in every)
    machines = Counter((id_, machine) for id_, machine, _ in every)
    taken: set[str] = set()
    named: list[dict[str, str]] = []
    for part in parts:
        names = {}
        for image in part.images:
            name = image.id
            machine = image.machine or part.machine or "a machine"
            if ids[image.id] > 1:
                name = f"{image.id} on {machine}"
                if machines[image.id, machine] > 1:
                    name += f", {part.started}"
            unique, number = name, 2
            while unique in taken:
                unique, number = f"{name} #{number}", number + 1
            taken.add(unique)
            names[image.id] = unique
        named.append(names)
    return named
