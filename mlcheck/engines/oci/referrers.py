"""Documents beside an image in its registry: OCI's referrers.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers, for
registries with the referrers API and for those without, which have a list under a tag made of the
image's digest. Nothing that a registry sends is trusted: lists and documents are bounded, each
document must match its digest, and say that it belongs to this image.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mlcheck.engines.oci.conversation import LIMIT_S, Conversation, converse
from mlcheck.engines.oci.documents import DOCUMENT_LIMIT, INDEX_TYPES, is_digest, matches, sha256
from mlcheck.engines.oci.registry import RegistryImage, described
from mlcheck.model.errors import EngineError
from mlcheck.model.image_ref import ImageRef
from mlcheck.model.units import binary

MOST = 100
"""Most documents that are read of one image."""

_INDEX, _MANIFEST = INDEX_TYPES[0], "application/vnd.oci.image.manifest.v1+json"
_NO_API = (400, 404, 405)
"""Statuses of registries that do not know of referrers."""

_EMPTY_TYPE, _EMPTY = "application/vnd.oci.empty.v1+json", b"{}"


@dataclass(frozen=True, slots=True)
class Attached:
    """A document beside an image.

    Args:
        digest: digest of the manifest that names it.
        media_type: its type, as that manifest says.
        content: the document; it matches its digest there.
    """

    digest: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Beside:
    """The documents beside an image.

    Args:
        image: the image as its registry describes it.
        documents: those of the types that were asked for.
        broken: why others could not be read, one reason each.
    """

    image: RegistryImage
    documents: tuple[Attached, ...]
    broken: tuple[str, ...]


def attached(ref: ImageRef, types: Collection[str], *, limit_s: float = LIMIT_S) -> Beside:
    """Return the documents of some types beside an image.

    Args:
        ref: of kind "registry". Of an image for several platforms, that for this machine is meant.
        types: media types, as `attach` was given them.
        limit_s: seconds for all requests.

    Raises:
        UsageError: there is no such image.
        EngineError: the registry cannot be reached, refuses, or sends something that is not an
            intact image or no list of documents.
    """
    return converse(ref, lambda asking: _attached(asking, types), limit_s)


def attach(
    ref: ImageRef,
    image: RegistryImage,
    content: bytes,
    media_type: str,
    annotations: Mapping[str, str],
    *,
    limit_s: float = LIMIT_S,
) -> str:
    """Put a document beside an image.

    Args:
        ref: of kind "registry".
        image: that image, as its registry describes it.
        media_type: type of the document, and of the artifact that consists of it.
        annotations: told in the list of referrers, too.
        limit_s: seconds for all requests.

    Returns:
        The digest of the manifest that names the document.

    Raises:
        EngineError: the registry cannot be reached, refuses, or takes no such document.
    """
    return converse(
        ref, lambda asking: _attach(asking, image, content, media_type, annotations), limit_s
    )


def _attached(asking: Conversation, types: Collection[str]) -> Beside:
    image = described(asking)
    entries = _listed(asking, image.manifest_digest)
    wanted = [entry for entry in entries if _type(entry) in types]
    found: list[Attached] = []
    broken: list[str] = []
    if len(wanted) > MOST:
        broken.append(f"{len(wanted) - MOST} of them were not read: {MOST} are at most")
    # A registry appends: the last are the newest.
    for entry in wanted[-MOST:]:
        digest = str(entry.get("digest"))
        try:
            found += _documents(asking, digest, image.manifest_digest, types)
        except ValueError as error:
            broken.append(f"{digest[:80]}: {error}")
    return Beside(image, tuple(found), tuple(broken))


def _type(entry: Mapping[str, Any]) -> str:
    return str(entry.get("artifactType", ""))


def _listed(asking: Conversation, digest: str) -> list[Mapping[str, Any]]:
    """Return the entries of the list of an image's referrers.

    A registry with the API answers with an index, even with an empty one (404 is that of one
    without). Pages after the first are read up to the limit of `attached`.
    """
    path = f"referrers/{digest}"
    found: list[Mapping[str, Any]] = []
    for _ in range(MOST):
        answer = asking.ask("GET", path, {"Accept": _INDEX}, accepted=(200, *_NO_API))
        if answer.status != 200:
            return found or _under_tag(asking, digest)
        found += _entries(asking, answer.content)
        link = answer.headers.get("Link", "")
        target, _, rest = link.partition(">")
        if not target.startswith("<") or 'rel="next"' not in rest or len(found) > 10 * MOST:
            break
        path = asking.elsewhere(target[1:])
    return found


def _under_tag(asking: Conversation, digest: str) -> list[Mapping[str, Any]]:
    """Return the same from a registry without the API: its list is under a tag."""
    path = f"manifests/{_tag(digest)}"
    answer = asking.ask("GET", path, {"Accept": _INDEX}, accepted=(200, 404))
    return _entries(asking, answer.content) if answer.status == 200 else []


def _tag(digest: str) -> str:
    return digest.replace(":", "-")[:128]


def _entries(asking: Conversation, content: bytes) -> list[Mapping[str, Any]]:
    try:
        listed = json.loads(content)["manifests"]
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise asking.broken("its list of what belongs to the image is no index") from None
    return listed


def _documents(
    asking: Conversation, digest: str, image: str, types: Collection[str]
) -> list[Attached]:
    """Return the documents that a manifest names.

    Raises:
        ValueError: it is not what the list says, or of another image; the message completes a
            sentence.
    """
    content = _exactly(asking, "manifests", digest, None)
    try:
        manifest = json.loads(content)
        subject = manifest["subject"]["digest"]
        blobs = [(one["mediaType"], one["digest"], one["size"]) for one in manifest["layers"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("its manifest has no subject, or no documents") from None
    if subject != image:
        raise ValueError("its manifest says that it belongs to another image")
    found = [
        Attached(digest, str(kind), _exactly(asking, "blobs", str(blob), size))
        for kind, blob, size in blobs[:MOST]
        if kind in types
    ]
    if not found:
        raise ValueError("it has no document of its type")
    return found


def _exactly(asking: Conversation, kind: str, digest: str, size: object) -> bytes:
    """Return what has a digest.

    Raises:
        ValueError: nothing has, or it is too large.
    """
    if not is_digest(digest):
        raise ValueError("it has no valid digest")
    if size is not None and not (isinstance(size, int) and 0 <= size <= DOCUMENT_LIMIT):
        raise ValueError(f"it has no valid size, or more than {binary(DOCUMENT_LIMIT)}")
    answer = asking.ask("GET", f"{kind}/{digest}", {"Accept": _MANIFEST}, accepted=(200, 404))
    if answer.status == 404:
        raise ValueError(f"it is in the list, but not in the registry ({digest})")
    if not matches(answer.content, digest):
        raise ValueError(f"what the registry sends does not match its digest ({digest})")
    return answer.content


def _attach(
    asking: Conversation,
    image: RegistryImage,
    content: bytes,
    media_type: str,
    annotations: Mapping[str, str],
) -> str:
    if len(content) > DOCUMENT_LIMIT:
        raise EngineError(
            f"{asking.text}: what is to be put beside it has {binary(len(content))}; registries "
            f"take {binary(DOCUMENT_LIMIT)}."
        )
    subject = asking.manifest(image.manifest_digest)
    if not matches(subject.content, image.manifest_digest):
        raise asking.broken("the manifest is not that of its digest")
    for blob in (content, _EMPTY):
        _upload(asking, blob)
    config = {"mediaType": _EMPTY_TYPE, "digest": sha256(_EMPTY), "size": len(_EMPTY)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": media_type,
        "config": config,
        "layers": [{"mediaType": media_type, "digest": sha256(content), "size": len(content)}],
        "subject": {
            "mediaType": _media_type(subject.content, subject.headers),
            "digest": image.manifest_digest,
            "size": len(subject.content),
        },
        "annotations": dict(annotations),
    }
    made = json.dumps(manifest, indent=1).encode()
    digest = sha256(made)
    answer = _put(asking, digest, made, _MANIFEST)
    if "OCI-Subject" not in answer.headers:  # a registry that knows nothing of subjects
        entry = {
            "mediaType": _MANIFEST,
            "digest": digest,
            "size": len(made),
            "artifactType": media_type,
            "annotations": dict(annotations),
        }
        listed = _under_tag(asking, image.manifest_digest)
        others = [one for one in listed if one.get("digest") != digest]
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [*others, entry]}
        _put(asking, _tag(image.manifest_digest), json.dumps(index, indent=1).encode(), _INDEX)
    return digest


def _media_type(manifest: bytes, headers: Mapping[str, str]) -> str:
    """Return the type of an intact manifest; docker's and OCI's may leave it to the header."""
    told = json.loads(manifest).get("mediaType") or headers.get("Content-Type", "")
    return str(told).partition(";")[0] or _MANIFEST


def _upload(asking: Conversation, content: bytes) -> None:
    """Store a blob, unless it is there."""
    digest = sha256(content)
    if asking.ask("HEAD", f"blobs/{digest}", accepted=(200, 404)).status == 200:
        return
    begun = asking.ask("POST", "blobs/uploads/", content=b"", accepted=(202,))
    url = asking.elsewhere(begun.headers.get("Location", ""))
    mark = "&" if urllib.parse.urlsplit(url).query else "?"
    kind = {"Content-Type": "application/octet-stream"}
    url += f"{mark}digest={urllib.parse.quote(digest)}"
    asking.ask("PUT", url, kind, content, accepted=(201,))


def _put(asking: Conversation, name: str, manifest: bytes, kind: str) -> Any:
    path = f"manifests/{name}"
    return asking.ask("PUT", path, {"Content-Type": kind}, manifest, accepted=(201, 202))
