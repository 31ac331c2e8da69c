"""One report of a whole release, in which also stands what could not be judged."""

from __future__ import annotations

from collections.abc import Sequence

import mlcheck
from mlcheck.engines.select import AUTO
from mlcheck.model.errors import DIFFERENT, NOT_JUDGED, NOTHING_JUDGED
from mlcheck.release.jobs import Job
from mlcheck.report import formats, reading
from mlcheck.report.model import ImageModel, Report, ResultModel

FILES = {
    "report.json": "json",
    "report.html": "html",
    "junit.xml": "junit",
    "report.md": "markdown",
}
"""The files of a joined report, and their formats."""

_TEST = "mlcheck release"


def join(found: Sequence[tuple[Job, Report | None, str]], started: str) -> Report:
    """Join the reports of all jobs; an image without one is an ERROR with the reason.

    Args:
        found: each job with its report, if there is one, and otherwise the reason.
        started: when the release began; ISO 8601 with time zone.
    """
    reports = [report for _, report, _ in found if report is not None and _is_whole(report)]
    missing = [
        (job, reason) for job, report, reason in found if report is None or not _is_whole(report)
    ]
    if missing:
        reports.append(_not_judged(missing, started))
    joined, _ = reading.merge(reports)
    codes = [run.exit_code for run in joined.runs] or [joined.exit_code]
    code = DIFFERENT if DIFFERENT in codes else NOT_JUDGED if NOT_JUDGED in codes else max(codes)
    return joined.model_copy(update={"exit_code": code})


def _is_whole(report: Report) -> bool:
    """Return whether a report says of itself what it lacks: that of an interrupted run does not."""
    return report.exit_code in (0, DIFFERENT, NOT_JUDGED, NOTHING_JUDGED)


def without(jobs: Sequence[Job], report: Report) -> list[Job]:
    """Return the jobs that a report has no image of."""
    there = {image.id_in_tests or image.id for image in report.images}
    images = {id_.rpartition("@")[0] for id_ in there}
    found = []
    for job in jobs:
        label = f"{job.name}:{job.tag}" if job.tag else job.name
        if (label not in images) if job.engine == AUTO else (f"{label}@{job.engine}" not in there):
            found.append(job)
    return found


def with_missing(jobs: Sequence[Job], report: Report) -> Report:
    """Add jobs to a report that it has no image of, each as an ERROR.

    Args:
        jobs: those of `without`, at least one.
    """
    told = [(job, "no report of it is among those that were merged") for job in jobs]
    merged, _ = reading.merge([report, _not_judged(told, report.started)])
    return merged.model_copy(update={"exit_code": report.exit_code or NOT_JUDGED})


def written(report: Report) -> dict[str, str]:
    """Return the contents of `FILES`."""
    return {name: formats.FORMATS[form].make(report) for name, form in FILES.items()}


def _not_judged(missing: Sequence[tuple[Job, str]], started: str) -> Report:
    images: list[ImageModel] = []
    results: list[ResultModel] = []
    for job, reason in missing:
        id_ = f"{job.name}:{job.tag}@{job.engine}" if job.tag else f"{job.name}@{job.engine}"
        if id_ in {image.id for image in images}:
            id_ = f"{job.image}@{job.engine}"
        images.append(
            ImageModel(
                id=id_,
                reference=job.image,
                profile=job.name,
                lineage=(),
                tag=job.tag or None,
                engine=job.engine,
                verdict="NOT JUDGED",
            )
        )
        results.append(
            ResultModel(
                test=f"{_TEST}[{id_}]",
                image=id_,
                outcome="error",
                message=f"not judged: {reason}",
                seconds=0,
            )
        )
    return Report(
        mlcheck_version=mlcheck.__version__,
        started=started,
        seconds=0,
        exit_code=NOT_JUDGED,
        images=tuple(images),
        results=tuple(results),
        counts={"passed": 0, "failed": 0, "error": len(results), "skipped": 0, "waived": 0},
    )
