"""The JSON report: one definition for writing it and for its JSON schema.

Every report contains the version of the schema. A new key with a default makes a new minor version;
anything that could break a reader makes a new major version. All other reports are made from this
one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = "1.8"

Outcome = Literal["passed", "failed", "error", "skipped", "waived"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FindingModel(_Model):
    """One way in which the image differs from what was promised."""

    subject: str
    """The thing that it is about: a path, a package, a kernel, a variable."""
    found: str
    expected: str
    source: str | None = None
    """FILE:LINE that states the expectation."""
    by_hand: str | None = None
    """A shell command that shows the fact."""
    waived: bool = False


class WaiverModel(_Model):
    """A waiver that applied to a result."""

    source: str
    """FILE:LINE of the waiver."""
    reason: str
    until: str
    """ISO date."""
    expired: bool


class ResultModel(_Model):
    """One test on one image."""

    test: str
    """The test's id in pytest."""
    image: str
    """An `id` of `images`."""
    outcome: Outcome
    check: str | None = None
    rule: str | None = None
    remedy: str | None = None
    page: str | None = None
    """Page of the rule, in mlcheck's repository; None for a rule that has none."""
    severity: Literal["error", "warning"] = "error"
    """Severity of the rule in the profile. If it is a warning, and the run was not to fail on
    those, the outcome of a rule with findings is "waived"."""
    checked: int = 0
    """The number of things that were compared."""
    findings: tuple[FindingModel, ...] = ()
    findings_left_out: int = 0
    """The number of further findings that are not waived: there are too many for a report."""
    waivers: tuple[WaiverModel, ...] = ()
    notes: tuple[str, ...] = ()
    message: str | None = None
    """Reason for a skip, or the error."""
    untried: str | None = None
    """Why a promise of the profile, or a part of it, could not be tried here."""
    seconds: float


class LayerModel(_Model):
    """One layer of an image, sizes in bytes."""

    number: int
    """From 1, the lowest first."""
    digest: str
    created_by: str
    """The line of the image's history; empty if it has none."""
    size: int
    files: int
    repeated: int = 0
    """Of these bytes: second copies of files of a layer below."""
    hidden: int = 0
    """Of these bytes: files that a later layer deletes or replaces."""
    caches: int = 0
    """Of these bytes: caches of package managers."""


class ImageModel(_Model):
    """One image on one engine."""

    id: str
    """The id in the tests' ids; in a merged report with two alike, followed by the machine."""
    id_in_tests: str | None = None
    """The id in the tests' ids, if a merged report needed another one."""
    machine: str | None = None
    """The machine that judged it, in a merged report; otherwise the report has it."""
    reference: str
    """The image reference as the user wrote it."""
    profile: str
    lineage: tuple[str, ...]
    without_profile: bool = False
    """True if no profile knows the image, and it was judged by what holds for every image."""
    tag: str | None = None
    verdict: str | None = None
    """The verdict in the summary: "CONFORMS" only if all that the profile promises was judged."""
    not_selected: tuple[str, ...] = ()
    """Rules that the profile promises and the run left out (-k, -m, --rule, --lf, paths)."""
    not_promised: tuple[str, ...] = ()
    """Rules that were not judged, because the profile says nothing that they are about."""
    engine: str
    digest: str | None = None
    """Digest of the content that was judged; None for a directory, which has none."""
    config_digest: str | None = None
    """Digest of its configuration, which is the same for one image on every engine and in its
    registry; None if it is not known."""
    notes: tuple[str, ...] = ()
    """Anything unusual in how commands were run, and since when facts are kept."""
    unused_waivers: tuple[str, ...] = ()
    """Waivers that match no finding of this run: FILE:LINE and the rule."""
    layers: tuple[LayerModel, ...] = ()
    """Empty if the engine knows no layers, or no test asked for them."""


class RunModel(_Model):
    """One run of the suite, within a merged report."""

    mlcheck_version: str
    machine: str | None = None
    started: str
    """ISO 8601 with time zone."""
    seconds: float
    exit_code: int
    compared_with: str | None = None


class Report(_Model):
    """The results of one run of the suite, or of several that were merged."""

    schema_version: str = SCHEMA_VERSION
    mlcheck_version: str
    """Version of mlcheck; in a merged report all versions, separated by commas."""
    machine: str | None = None
    """Name of the machine; None in a merged report."""
    started: str
    """ISO 8601 with time zone; in a merged report the earliest."""
    seconds: float
    """Duration; in a merged report the sum over all runs."""
    exit_code: int
    """Exit code; in a merged report 1 if any run has it, else the highest."""
    runs: tuple[RunModel, ...] = ()
    """The runs in a merged report; empty in the report of a single run."""
    images: tuple[ImageModel, ...]
    compared_with: str | None = None
    """IMAGE@ENGINE of --compare; None in a merged report whose runs differ in it."""
    results: tuple[ResultModel, ...]
    counts: dict[Outcome, int]
