"""Images of docker and podman: found on this machine, pulled, loaded, and pinned."""

from __future__ import annotations

import contextlib
import difflib
import os
import platform
import re
import sys
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlcheck.engines.base import Inspected, Prepared, Progress, PullPolicy
from mlcheck.engines.oci import containerd
from mlcheck.engines.oci.archive import renamed
from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.documents import INDEX_TYPES
from mlcheck.engines.oci.errors import despite_removals, engine_errors
from mlcheck.engines.oci.pull import SILENCE_LIMIT_S
from mlcheck.engines.oci.pull import pull as pull_image
from mlcheck.machine import janitor
from mlcheck.model.architecture import OCI_NAMES
from mlcheck.model.errors import EngineError, MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef

_SHORT_ID = re.compile(r"[0-9a-f]{12,64}")

LOADED = "localhost/mlcheck-loaded"
"""Repository of the images that are loaded from an archive, each with a tag of its own."""

_CRASHED = "nil pointer dereference"
"""podman's answer if it inspects an image while another is removed: seen with 4.3.1."""

_ASKED = 5
"""Attempts at a request that podman answers so; the condition passes by itself."""

_INSTEAD = {
    "directory": "A directory is judged with --engine sandbox or --engine apptainer.",
    "sif": "A SIF file is judged with --engine apptainer or --engine singularity.",
    "oci": "Use --engine podman, or convert it: skopeo copy oci:DIR docker-archive:FILE.",
    "oci-archive": "Use --engine podman, or convert it: "
    "skopeo copy oci-archive:FILE docker-archive:FILE2.",
    "reference": "Build it first: mlcheck reference build NAME.",
}


@contextmanager
def prepare(
    client: Client, ref: ImageRef, *, pull: PullPolicy, progress: Progress
) -> Iterator[Prepared]:
    """Make an image ready for this engine; see `mlcheck.engines.base.Engine.prepare`.

    The location is the image's ID; the digest is that of its manifest or index, or the ID if it has
    neither: if it never was in a registry, and is not in containerd's store.
    """
    if ref.kind == "registry":
        yield _checked(client, ref, _from_registry(client, ref, pull, progress))
        return
    if ref.kind not in client.dialect.formats:
        raise UsageError(
            f"{ref.text}: {client.dialect.label} cannot open this kind of image.",
            _INSTEAD.get(ref.kind, ""),
        )
    with _loaded(client, ref, progress) as found:
        yield _checked(client, ref, found)


def name_of(ref: ImageRef) -> str:
    """Return the engines' name of an image of a registry; without a tag it means "latest"."""
    return f"{ref.location}@{ref.digest}" if ref.digest else f"{ref.location}:{ref.tag or 'latest'}"


def _from_registry(
    client: Client, ref: ImageRef, pull: PullPolicy, progress: Progress
) -> Mapping[str, Any]:
    name = name_of(ref)
    found = None if pull == "always" else inspect(client, name)
    if found is not None:
        return found
    if pull == "never":
        raise UsageError(
            f"{client.dialect.label} has no image {name}, and "
            + (f"{ref.text} means no other." if ref.place else "--pull=never forbids to fetch it."),
            _near(client, name)
            or ("Name it without the scheme, and it is fetched." if ref.place else "")
            or "Use --pull=missing.",
        )
    try:
        # The tag may be moved meanwhile: the engine reports which image it fetched.
        found = inspect(client, pull_image(client, name, progress) or name)
    except MlcheckError as error:
        with contextlib.suppress(EngineError):
            error.remedy = " ".join(filter(None, (error.remedy, _near(client, name))))
        raise
    if found is None:
        raise EngineError(f"{client.dialect.label} pulled {name}, but does not have it now.")
    return found


def inspect(client: Client, name: str) -> Mapping[str, Any] | None:
    """Return the engine's description of an image that it has, by a name in the form of the
    engine's own command, or by ID; None if it has no such image.

    Raises:
        EngineError: the engine did not answer.
    """
    url = f"{client.base_url}{client.images_url}/{urllib.parse.quote(name, safe='')}/json"
    with engine_errors(client.dialect, f"look for {name}"):
        for _ in range(_ASKED):
            answer = client.get(url)
            if answer.status_code != 500 or _CRASHED not in answer.text:
                break
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise EngineError(
                f"{client.dialect.label} could not look for {name}: {answer.text[:500].strip()}"
            )
        found: Mapping[str, Any] = answer.json()
    return found


def _checked(client: Client, ref: ImageRef, found: Mapping[str, Any]) -> Prepared:
    """Identify the image; raise a UsageError if it is made for another kind of machine."""
    image = (found.get("Os"), found.get("Architecture"))
    machine = _machine(client)
    # An imported image may record neither.
    if any(theirs and theirs != ours for theirs, ours in zip(image, machine, strict=True)):
        raise UsageError(
            f"{ref.text} is made for {'/'.join(map(str, image))}, and {client.dialect.label} here "
            f"runs {'/'.join(machine)}.",
            "Give a tag for this machine, or use a machine that fits the image.",
        )
    known = inspected(client, ref, found)
    location = _identity(found)
    return Prepared(ref, location, digest(ref, found) or location, known.config)


def inspected(client: Client, ref: ImageRef, found: Mapping[str, Any]) -> Inspected:
    """Return an image's description with its digests.

    Raises:
        EngineError: the engine did not answer.
    """
    if not containerd.holds(found):
        size = found.get("Size")
        return Inspected(
            found,
            None,
            digest(ref, found),
            _identity(found),
            unpacked_size=size if isinstance(size, int) else None,
        )
    if (documents := containerd.documents(client, found)) is not None:
        return Inspected(
            found,
            documents.index_digest,
            documents.manifest_digest,
            documents.manifest.config.digest,
            compressed_size=documents.manifest.size,
        )
    if found["Descriptor"].get("mediaType") not in INDEX_TYPES:
        return Inspected(found, None, _identity(found), None)
    return Inspected(found, _identity(found), None, None)


def store_of(told: Mapping[str, Any]) -> str:
    """Return the kind of an engine's store: "overlay2", "containerd (overlayfs)".

    Args:
        told: the engine's description of itself (`info`).
    """
    driver = str(told.get("Driver"))
    statuses = [status for status in told.get("DriverStatus") or () if isinstance(status, list)]
    containerd_s = ["driver-type", "io.containerd.snapshotter.v1"] in statuses
    return f"containerd ({driver})" if containerd_s else driver


def _identity(found: Mapping[str, Any]) -> str:
    """Return an image's ID as a digest; podman omits the algorithm."""
    return f"sha256:{str(found['Id']).removeprefix('sha256:')}"


def _machine(client: Client) -> tuple[str, str]:
    """Return the operating system and architecture of the engine, by their names in images."""
    local = OCI_NAMES.get(platform.machine())
    if local is not None and client.is_local and sys.platform == "linux":
        return "linux", local
    with engine_errors(client.dialect, "say what it runs on"):
        here = client.version()
    return str(here["Os"]), str(here["Arch"])


def digest(ref: ImageRef, found: Mapping[str, Any]) -> str | None:
    """Return the digest of the manifest under the requested name, or None if it is not
    known here."""
    if ref.digest:
        return ref.digest
    if ref.kind != "registry":
        return None
    names = {f"{prefix}{ref.location}" for prefix in ("", *_DEFAULTS)}
    pairs = [str(pair).rpartition("@") for pair in found.get("RepoDigests") or ()]
    digests = [digest for name, _, digest in pairs if name in names]
    # One image may have come with several manifests; podman reports the one it holds.
    own = found.get("Digest")
    return own if own in digests else next(iter(digests), None)


_DEFAULTS = ("docker.io/", "docker.io/library/", "localhost/")
"""Prefixes that engines add to a name without a registry."""


def listed(client: Client) -> Sequence[Mapping[str, Any]]:
    """Return the engine's images, as its API tells them.

    Raises:
        EngineError: the engine did not answer.
    """

    def asked() -> Sequence[Mapping[str, Any]]:
        with engine_errors(client.dialect, "list its images"):
            found: Sequence[Mapping[str, Any]] = client.images()
            return found

    return despite_removals(asked)


def names(client: Client) -> frozenset[str]:
    """Return the names of the engine's images, in the form in which docker shows names.

    Raises:
        EngineError: the engine did not answer.
    """
    tags = (str(tag) for image in listed(client) for tag in image.get("RepoTags") or ())
    return frozenset(plain_name(tag) for tag in tags if not tag.startswith((LOADED, "<none>")))


def plain_name(name: str) -> str:
    """Return a name without the prefixes that engines add to one with no registry, or with
    only docker.io.

    podman's "localhost/me/x:v1" stays as it is: "me/x:v1" is an image of docker.io.
    """
    for prefix in ("docker.io/library/", "localhost/"):
        rest = name.removeprefix(prefix)
        if rest != name and "/" not in rest:
            return rest
    return name.removeprefix("docker.io/")


def _registry(name: str) -> str:
    """Return the registry in a name; "" for docker.io, and for images that are in none."""
    host, slash, _ = name.partition("/")
    return host if slash and ("." in host or ":" in host) else ""


def _near(client: Client, name: str) -> str:
    """Return a remedy that names images here of the same registry with similar names; "" if there
    are none."""
    wanted = plain_name(name)
    here = sorted(other for other in names(client) if _registry(other) == _registry(wanted))
    identity = wanted.removesuffix(":latest")
    if _SHORT_ID.fullmatch(identity) and (found := inspect(client, identity)):
        tags = found.get("RepoTags") or [f"sha256:{str(found['Id']).removeprefix('sha256:')}"]
        return f"{client.dialect.label} has an image with that ID: name it {' or '.join(tags)}."
    same = [other for other in here if other.rpartition(":")[0] == wanted.rpartition(":")[0]]
    close = [*dict.fromkeys([*same, *difflib.get_close_matches(wanted, here, 3)])][:5]
    return f"Like it and here: {', '.join(close)}." if close else ""


@contextmanager
def _loaded(client: Client, ref: ImageRef, progress: Progress) -> Iterator[Mapping[str, Any]]:
    """Load the image of an archive under a name of its own.

    Removing that name removes the image only if it has no other: an image that was here before
    under a name stays, and two runs do not take it from each other.
    """
    path = Path(ref.location).expanduser()
    if not path.exists():
        raise UsageError(f"{ref.text}: there is no {path.absolute()}.", "Check the path.")
    name = f"{LOADED}:{os.urandom(8).hex()}"
    delete = _delete_path(client, name)
    with janitor.undone(client.deletion(delete)):
        progress(f"loading {path}")
        with janitor.answered(client.deletion(delete, in_work=True), Exception):
            load(client, path, name)
        found = inspect(client, name)
        if found is None:
            raise EngineError(f"{client.dialect.label} loaded {path}, but does not have it now.")
        yield found


def _delete_path(client: Client, name: str) -> str:
    # Never by force, which for podman would also remove containers of the image.
    return f"{client.images_url}/{urllib.parse.quote(name, safe='')}"


def load(client: Client, path: Path, name: str) -> None:
    """Load the image of an archive into the engine's store under one name, and no other.

    Raises:
        UsageError: it is not an archive of one image.
        EngineError: the engine could not load it.
    """
    despite_removals(lambda: _load(client, path, name))


def _load(client: Client, path: Path, name: str) -> None:
    with engine_errors(client.dialect, f"load {path}"):
        answer = client.post(
            f"{client.base_url}{client.images_url}/load",
            # An empty chunk would end the request's body.
            data=filter(None, renamed(path, name)),
            headers={"Content-Type": "application/x-tar"},
            timeout=SILENCE_LIMIT_S,
        )
        text = answer.text
    # docker reports errors in the body of an answer whose status is success.
    if answer.status_code != 200 or '"errorDetail"' in text:
        full = "no space left" in text
        raise EngineError(
            f"{client.dialect.label} could not load {path}: {' '.join(text.split())[:1000]}",
            f"Free space on the disk of its images: {client.dialect.name} system prune."
            if full
            else "",
        )
