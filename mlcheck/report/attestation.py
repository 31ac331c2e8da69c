"""An in-toto statement about an image: a verdict that travels with it.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md with the predicate
https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md. A statement that is
read may be anybody's: it is bounded, and has the form of one before anything in it is believed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlcheck.model.errors import UsageError
from mlcheck.report import bounds, identity, overview
from mlcheck.report.model import ImageModel, Report

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["https://in-toto.io/attestation/test-result/v0.1"] = (
    "https://in-toto.io/attestation/test-result/v0.1"
)
MEDIA_TYPE = "application/vnd.in-toto+json"

_TESTS = 5000
"""Most names of tests in a statement, of each kind."""

_Text = Field(max_length=4000)


class _Model(BaseModel):
    # Fields that are not known are to be ignored, says the specification.
    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class Subject(_Model):
    """The image: a name for people, and its digest, which alone identifies it."""

    name: str = Field("", max_length=4000)
    digest: dict[str, str] = Field(max_length=20)


class Annotations(_Model):
    """The circumstances in which the image was judged."""

    verdict: str = _Text
    """The verdict in words: CONFORMS, ..."""
    tally: str = _Text
    profile: str = _Text
    engine: str = _Text
    started: str = _Text
    """ISO 8601 with time zone."""
    mlcheck_version: str = _Text
    not_judged: str = Field("", max_length=4000)
    """Why something was not judged."""


class Configuration(_Model):
    """The report that has everything, by its digest, and what was judged how."""

    name: str = Field("", max_length=4000)
    digest: dict[str, str] = Field(max_length=20)
    annotations: Annotations


class TestResult(_Model):
    """The predicate."""

    __test__ = False  # pytest takes the name for that of tests

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: tuple[Configuration, ...] = Field(min_length=1, max_length=20)
    passedTests: tuple[str, ...] = Field((), max_length=_TESTS)  # noqa: N815
    warnedTests: tuple[str, ...] = Field((), max_length=_TESTS)  # noqa: N815
    failedTests: tuple[str, ...] = Field((), max_length=_TESTS)  # noqa: N815


class Statement(_Model):
    """A statement with the result of a test."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1, max_length=20)
    predicateType: Literal[  # noqa: N815
        "https://in-toto.io/attestation/test-result/v0.1"
    ]
    predicate: TestResult

    @property
    def how(self) -> Annotations:
        """Return how the image was judged."""
        return self.predicate.configuration[0].annotations

    def is_about(self, digest: str) -> bool:
        """Return whether it is about the image with that digest."""
        algorithm, _, number = digest.partition(":")
        return any(one.digest.get(algorithm) == number for one in self.subject)


def subject_digest(image: ImageModel) -> tuple[str, str]:
    """Return the digest by which an image of a report is identified, and what it is a digest of.

    That is its manifest where it has one: an image from a registry or an OCI archive. docker has
    none for an image that was built and never pushed: then it is that of its configuration.

    Raises:
        UsageError: a directory has none.
    """
    if image.digest and image.digest != image.config_digest:
        return image.digest, "file" if image.config_digest is None else "manifest"
    if image.config_digest:
        return image.config_digest, "configuration"
    raise UsageError(
        f"{image.reference}: an image without a digest, which nothing can be said about for "
        "others: a directory.",
        "Judge it as an archive, or in its registry.",
    )


def chosen(report: Report, wanted: str | None) -> ImageModel:
    """Return the image of a report that a statement is to be about.

    Args:
        wanted: its id or its reference; None if the report has one image.

    Raises:
        UsageError: there is none, or several.
    """
    found = [one for one in report.images if wanted is None or wanted in (one.id, one.reference)]
    if len(found) == 1:
        return found[0]
    known = [one.id for one in report.images]
    named = "; ".join(known[:10]) + ("; ..." if len(known) > 10 else "")
    if not known:
        raise UsageError("The report has no image.", "Make one with mlcheck check IMAGE.")
    what = f"has no image {wanted}" if not found else f"has {len(found)} images of that name"
    what = what if wanted is not None else f"has {len(known)} images"
    raise UsageError(f"The report {what}.", f"Name one with --image: {named}")


def statement(
    report: Report, image: ImageModel, digest: str, file: str, content: bytes
) -> bytes | None:
    """Return the statement about an image as JSON; None if it was not judged.

    A verdict that is not about everything (WHAT WAS JUDGED HOLDS), and warnings, are WARNED.

    Args:
        digest: digest of the image.
        file: name of the report's file.
        content: content of that file.
    """
    one = next(found for found in overview.images(report) if found.image is image)
    verdict, colour = one.verdict
    results = [result for _, result in one.results]
    failed = [result for result in results if result.outcome == "failed"]
    warned = [result for result in results if result.outcome == "waived"]
    passed = [result for result in results if result.outcome == "passed"]
    if not failed and (one.counts["error"] or not (warned or passed)):
        return None
    warns = colour == "yellow" or any(map(overview.is_warning, warned))
    algorithm, _, number = digest.partition(":")
    not_judged = "; ".join(
        reason if reason == overview.NO_PROFILE else f"{reason}: {overview.some(names)}"
        for reason, names in one.not_judged()
    )
    how = {
        "verdict": verdict,
        "tally": one.tally(),
        "profile": image.profile,
        "engine": image.engine,
        "started": report.started,
        "mlcheck_version": report.mlcheck_version,
        "not_judged": bounds.short(not_judged, 2000),
    }
    made = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": image.reference, "digest": {algorithm: number}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": "FAILED" if failed else "WARNED" if warns else "PASSED",
            "configuration": [
                {
                    "name": file,
                    "digest": {"sha256": hashlib.sha256(content).hexdigest()},
                    "mediaType": "application/json",
                    "annotations": how,
                }
            ],
            "passedTests": _names(map(identity.rule_of, passed)),
            "warnedTests": _names(map(identity.rule_of, warned)),
            "failedTests": _names(map(identity.rule_of, failed)),
        },
    }
    return (json.dumps(made, indent=1) + "\n").encode()


def _names(names: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(bounds.short(name, 200) for name in names)][:_TESTS]


def moment(statement: Statement) -> str:
    """Return when the run began, in a form that can be compared; "" if it is no time."""
    try:
        told = datetime.datetime.fromisoformat(statement.how.started)
    except ValueError:
        return ""
    if told.tzinfo is None:
        return ""
    try:
        return told.astimezone(datetime.UTC).isoformat(timespec="microseconds")
    except OverflowError:
        return ""


def read(content: bytes) -> Statement:
    """Read a statement from anybody.

    Raises:
        ValueError: it is none with a test's result; the message completes a sentence.
    """
    try:
        data: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    try:
        return Statement.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise ValueError(f"is no statement of mlcheck's about a test: {where[:200]}") from None
