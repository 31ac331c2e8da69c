"""The JSON report: one definition for writing it and for its JSON schema.

The schema's version is part of every report. A new key with a default is a new minor version;
anything that could break a reader is a new major version. All other reports are made of this one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = "1.4"

Outcome = Literal["passed", "failed", "error", "skipped", "waived"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FindingModel(_Model):
    """One way in which the image is not what was promised."""

    subject: str
    """What it is about: a path, a package, a kernel, a variable."""
    found: str
    expected: str
    source: str | None = None
    """FILE:LINE that states the expectation."""
    by_hand: str | None = None
    """A shell command that shows the fact."""
    waived: bool = False


class WaiverModel(_Model):
    """A waiver that touched a result."""

    source: str
    """FILE:LINE of the waiver."""
    reason: str
    until: str
    """ISO date."""
    expired: bool


class ResultModel(_Model):
    """One test on one image."""

    test: str
    """The test's id for pytest."""
    image: str
    """An `id` of `images`."""
    outcome: Outcome
    check: str | None = None
    rule: str | None = None
    remedy: str | None = None
    checked: int = 0
    """How many things were compared."""
    findings: tuple[FindingModel, ...] = ()
    waivers: tuple[WaiverModel, ...] = ()
    notes: tuple[str, ...] = ()
    message: str | None = None
    """Reason of a skip, or what went wrong in an error."""
    untried: str | None = None
    """Why what the profile promises, or a part of it, could not be tried here."""
    seconds: float


class LayerModel(_Model):
    """One layer of an image, sizes in bytes."""

    number: int
    """From 1, the lowest first."""
    digest: str
    created_by: str
    """The line of the image's history; empty: it does not tell."""
    size: int
    files: int
    repeated: int = 0
    """Of these bytes: second copies of what a layer below has."""
    hidden: int = 0
    """Of these bytes: what a later layer deletes or replaces."""
    caches: int = 0
    """Of these bytes: what package managers keep."""


class ImageModel(_Model):
    """One image on one engine."""

    id: str
    """As in the tests' ids; in a merged report, if two are alike, with the machine behind it."""
    id_in_tests: str | None = None
    """The id in the tests' ids, where a merged report needed another."""
    machine: str | None = None
    """Where it was judged, in a merged report; else it is the report's."""
    reference: str
    """As the user wrote it."""
    profile: str
    lineage: tuple[str, ...]
    tag: str | None = None
    verdict: str | None = None
    """As in the summary: "CONFORMS" only if everything that the profile promises was judged."""
    not_selected: tuple[str, ...] = ()
    """Checks that the profile promises and the run left out (-k, -m, --lf, paths)."""
    engine: str
    digest: str | None = None
    """Of the content that was judged; None for a directory, which has none."""
    notes: tuple[str, ...] = ()
    """What was out of the ordinary in how its commands were run, and since when facts are kept."""
    unused_waivers: tuple[str, ...] = ()
    """Waivers that fit no finding of this run: FILE:LINE and the check."""
    layers: tuple[LayerModel, ...] = ()
    """Empty: the engine knows no layers, or no test asked for them."""


class RunModel(_Model):
    """One run of the suite, of those that a merged report joins."""

    mlcheck_version: str
    machine: str | None = None
    started: str
    """ISO 8601 with time zone."""
    seconds: float
    exit_code: int
    compared_with: str | None = None


class Report(_Model):
    """What one run of the suite found, or several that were merged."""

    schema_version: str = SCHEMA_VERSION
    mlcheck_version: str
    """Of a merged report: every one, with commas."""
    machine: str | None = None
    """Name of the machine; None in a merged report."""
    started: str
    """ISO 8601 with time zone; of a merged report the earliest."""
    seconds: float
    """Of a merged report: of all runs together."""
    exit_code: int
    """Of a merged report: 1 if it is that of any run, else the highest."""
    runs: tuple[RunModel, ...] = ()
    """What a merged report joins; empty in one of a single run."""
    images: tuple[ImageModel, ...]
    compared_with: str | None = None
    """IMAGE@ENGINE of --compare; None in a merged report whose runs differ in that."""
    results: tuple[ResultModel, ...]
    counts: dict[Outcome, int]
