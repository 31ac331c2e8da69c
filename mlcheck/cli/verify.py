"""`mlcheck verify`: the verdict that lies beside an image in its registry."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlcheck.cli import common
from mlcheck.engines.oci import referrers
from mlcheck.model.errors import DIFFERENT, NOTHING_JUDGED, UsageError
from mlcheck.report import attestation, signatures, text
from mlcheck.report.attestation import Statement

if TYPE_CHECKING:
    from mlcheck.report.signatures import PublicKey

_SHOWN = 10


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `verify`."""
    parser = common.add_command(
        commands,
        "verify",
        run,
        help="read the verdict beside an image in its registry, and check who signed it",
        description="Read the verdict that `mlcheck report attest --push` put beside an image in "
        "its registry. The image is not fetched, and not judged again. With --key, only what "
        "that key has signed counts; without, it may be from anybody who can push there. Of "
        "several verdicts, that of the latest run counts.",
        epilog="examples:\n  mlcheck verify ghcr.io/me/image:v1 --key key.pub\n"
        "  mlcheck verify ghcr.io/me/image:v1 --json\n\n"
        "exit code: 0 what was judged holds; 1 the image does not conform; 3 the registry failed; "
        "4 a\nmistake; 5 there is no verdict, or none of this key",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--key", type=Path, metavar="FILE", help="public key in PEM")
    common.add_engine(parser)
    common.add_profiles(parser)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """One that is about the image, and signed as was asked for."""

    statement: Statement
    digest: str
    signed: bool


def run(arguments: argparse.Namespace) -> int:
    """Print the latest verdict, and return its exit code."""
    key = signatures.public_key(arguments.key) if arguments.key else None
    (meant,) = common.resolved(arguments, [arguments.image], "always")
    if meant.ref.kind != "registry" or meant.ref.place is not None:
        raise UsageError(
            f"{meant.ref.text}: no image of a registry, so nothing lies beside it.",
            "Judge it: mlcheck check IMAGE",
        )
    types = (attestation.MEDIA_TYPE, signatures.MEDIA_TYPE)
    beside = referrers.attached(meant.ref, types)
    found: list[_Verdict] = []
    others = [*beside.broken]
    for document in beside.documents:
        try:
            found.append(_read(document, beside.image.manifest_digest, key))
        except ValueError as error:
            others.append(f"{document.digest}: {error}")
    latest = max(found, key=_newest_worst, default=None)
    _show(beside, latest, found, others, key, as_json=arguments.json)
    if latest is None:
        return NOTHING_JUDGED
    return DIFFERENT if latest.statement.predicate.result == "FAILED" else 0


def _read(document: referrers.Attached, image: str, key: PublicKey | None) -> _Verdict:
    """Return the verdict of a document.

    Raises:
        ValueError: it is none, not about the image, or not signed by the key.
    """
    content, signed = document.content, False
    if document.media_type == signatures.MEDIA_TYPE:
        content, signed = signatures.opened(content, attestation.MEDIA_TYPE, key)
    if key is not None and not signed:
        raise ValueError("is not signed by this key")
    statement = attestation.read(content)
    if not statement.is_about(image):
        raise ValueError("is about another image")
    return _Verdict(statement, document.digest, signed)


def _newest_worst(one: _Verdict) -> tuple[str, bool]:
    return attestation.moment(one.statement), one.statement.predicate.result == "FAILED"


def _show(
    beside: referrers.Beside,
    latest: _Verdict | None,
    found: list[_Verdict],
    others: list[str],
    key: PublicKey | None,
    *,
    as_json: bool,
) -> None:
    image = beside.image
    if as_json:
        common.print_json(
            {
                "image": image.reference,
                "digest": image.manifest_digest,
                "result": latest.statement.predicate.result if latest else None,
                "signed": latest.signed if latest else False,
                "attestation": latest.digest if latest else None,
                "how": latest.statement.how.model_dump() if latest else None,
                "failed": latest.statement.predicate.failedTests if latest else (),
                "verdicts": len(found),
                "left_out": others,
            }
        )
        return
    print(text.lines(f"{image.reference}  {image.manifest_digest}"))
    if latest is None:
        nobody = "no verdict signed by this key" if key is not None else "no verdict"
        print(f"  {nobody} is beside it in its registry")
    else:
        for line in _lines(latest, len(found)):
            print(text.line(f"  {line}"))
    for other in others[:_SHOWN]:
        print(f"mlcheck: left out: {text.line(other)}", file=sys.stderr)
    if len(others) > _SHOWN:
        print(f"mlcheck: and {len(others) - _SHOWN} more left out", file=sys.stderr)


def _lines(one: _Verdict, count: int) -> list[str]:
    statement, how = one.statement, one.statement.how
    result = statement.predicate.result
    lines = [f"{result}  {how.verdict}  ({how.tally})"]
    if failed := statement.predicate.failedTests:
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        lines.append(f"failed: {', '.join(failed[:_SHOWN])}{more}")
    if how.not_judged:
        lines.append(f"not judged: {how.not_judged}")
    lines.append(
        f"judged {how.started} with mlcheck {how.mlcheck_version}, engine {how.engine}, "
        f"profile {how.profile}"
    )
    if count > 1:
        lines.append(f"the latest of {count} verdicts")
    signed = "signed by the key" if one.signed else "not verified: no --key was given"
    lines.append(f"{one.digest}, {signed}")
    return lines
