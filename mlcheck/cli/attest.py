"""`mlcheck report attest`: a verdict as an in-toto statement, put beside the image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mlcheck.cli import common
from mlcheck.engines import select
from mlcheck.engines.oci import referrers, registry
from mlcheck.model.errors import NOTHING_JUDGED, UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.report import attestation, reading, signatures, text
from mlcheck.report.model import ImageModel


def add(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the kind `attest`."""
    part = parts.add_parser(
        "attest",
        help="the verdict as an in-toto statement; --push puts it beside the image",
        description="Write the verdict about an image as an in-toto statement (test-result "
        "predicate) over the digest that was judged. With --push it is put beside the image in "
        "its registry, as an OCI referrer, where `mlcheck verify` reads it. With --key it is "
        "signed (a DSSE envelope).",
        epilog="examples:\n  mlcheck report attest report.json -o verdict.intoto.json\n"
        "  mlcheck report attest report.json --push --key key.pem\n"
        "  mlcheck report attest report.json --push --at ghcr.io/me/image:v1\n\n"
        "exit code: 0 written, whatever the verdict is; 3 the registry failed; 4 a mistake; 5 the "
        "image was\nnot judged",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    part.add_argument("file", type=Path, metavar="REPORT.json")
    part.add_argument("--image", metavar="IMAGE", help="which one, if the report has several")
    part.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: standard output (-)"
    )
    part.add_argument("--push", action="store_true", help="put it beside the image")
    part.add_argument(
        "--at", metavar="IMAGE", help="name in the registry, if the report has another"
    )
    part.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help=f"private key in PEM that signs it; {signatures.PASSWORD} has its password",
    )
    part.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    content = reading.content_of(arguments.file)
    report = reading.parsed(arguments.file, content)
    image = attestation.chosen(report, arguments.image)
    if arguments.at and not arguments.push:
        raise UsageError("--at names where to --push.", "Add --push.")
    by = signatures.signer(arguments.key) if arguments.key else None
    if arguments.push:
        ref = _in_registry(image, arguments.at)
        found = registry.describe(ref)
        _check_same(image, found)
        digest = found.manifest_digest
    else:
        digest, kind = attestation.subject_digest(image)
        if kind != "manifest":
            common.progress(
                f"{digest} is the digest of its {kind}, which it keeps in no registry"
                if kind == "file"
                else f"{digest} is the digest of its configuration: it has no manifest until it "
                "is pushed"
            )
    made = attestation.statement(report, image, digest, arguments.file.name, content)
    if made is None:
        print(
            f"mlcheck: {text.line(image.reference)} was not judged: there is no verdict to attest.",
            file=sys.stderr,
        )
        return NOTHING_JUDGED
    media_type = attestation.MEDIA_TYPE
    if by is not None:
        made = signatures.signed(made, attestation.MEDIA_TYPE, by)
        media_type = signatures.MEDIA_TYPE
    if arguments.output is not None or not arguments.push:
        common.write_report(made.decode(), arguments.output)
    if arguments.push:
        annotations = {
            "org.opencontainers.image.created": report.started,
            "in-toto.io/predicate-type": attestation.PREDICATE_TYPE,
        }
        put = referrers.attach(ref, found, made, media_type, annotations)
        signed = "signed" if by is not None else "unsigned"
        common.progress(f"{signed}, {put} is now beside {found.reference} ({digest})")
    return 0


def _in_registry(image: ImageModel, named: str | None) -> ImageRef:
    from mlcheck.engines.resolve import understood

    ref = select.with_default_tag(understood(named or image.reference))
    if ref.kind != "registry" or ref.place is not None:
        raise UsageError(
            f"{ref.text}: no image of a registry.",
            "Push it there, and say its name: --at REGISTRY/NAME:TAG",
        )
    return ref


def _check_same(image: ImageModel, found: registry.RegistryImage) -> None:
    """See that the image in the registry is the one that was judged.

    Raises:
        UsageError: it is another one, or this cannot be known.
    """
    ours = [one for one in (image.config_digest, image.digest) if one]
    if not ours:
        attestation.subject_digest(image)  # which says why
    theirs = (found.config_digest, found.manifest_digest, found.index_digest)
    # An index is of several images: the configuration, where it is known, says which was judged.
    if ours[0] not in theirs:
        raise UsageError(
            f"{found.reference} is another image in its registry now: {found.manifest_digest} "
            f"(configuration {found.config_digest}). The report is about {ours[0]}.",
            "Judge what is there: mlcheck check --pull always",
        )
