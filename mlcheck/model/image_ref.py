"""Image references: parsing and printing, without I/O."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from mlcheck.model.errors import UsageError

Kind = Literal["directory", "reference", "sif", "docker-archive", "oci", "oci-archive", "registry"]

Place = Literal["docker", "podman", "registry"]

_PLACES: dict[str, Place] = {
    "docker-daemon": "docker",
    "docker": "docker",
    "containers-storage": "podman",
    "podman": "podman",
}
"""URL schemes, of skopeo and similar tools, that say where an image is stored."""

_FETCH = "fetch it first: apptainer pull image.sif {text}, then name ./image.sif"
_OTHERS = {
    "dir": "mlcheck does not read skopeo's dir: (skopeo copy {text} oci:DIR, then name oci:DIR)",
    "library": _FETCH,
    "oras": _FETCH,
    "shub": _FETCH,
    "apptainer": "name FILE.sif, a directory or an image, with --engine apptainer",
    "singularity": "name FILE.sif, a directory or an image, with --engine singularity",
}
"""URL schemes of other tools, with what to use instead."""

_OF_IMAGES = {"docker", "apptainer", "singularity"}
"""Schemes that are also names of images: docker:28-dind is an image with a tag."""

_SCHEMES: tuple[Kind, ...] = ("reference", "docker-archive", "oci-archive", "oci")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d+)?")
_DIGEST = re.compile(r"[a-z0-9+.-]+:[0-9a-f]{32,}")

FORMS = """\
  DIR                      a directory that holds an image (./X, /X or X/; sandbox, CVMFS)
  reference:NAME[:TAG]     a reference image, built on the spot
  NAME[:TAG] NAME@DIGEST   an image of docker, podman or a registry, or a published image by its
                           short name (`mlcheck images` lists them)
  FILE.sif                 a SIF file
  docker-daemon:NAME[:TAG]    the image that docker has
  podman:NAME[:TAG]        the image that podman has; also containers-storage:NAME[:TAG]
  docker://NAME[:TAG]      the image that its registry has
  docker-archive:FILE  oci:DIR  oci-archive:FILE"""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A parsed image reference.

    Args:
        text: the reference as the user wrote it.
        kind: the form in which the image is stored.
        location: directory, file, or registry name with host and path.
        name: last part of the name ("ml-pyroot"), which selects the profile.
        tag: "alma9-python311", which selects the variants; None without one.
        digest: "sha256:..." if the image is pinned.
        place: where to look for the image, if the user said so; else None.
    """

    text: str
    kind: Kind
    location: str
    name: str
    tag: str | None = None
    digest: str | None = None
    place: Place | None = None

    @property
    def label(self) -> str:
        """Name and tag, short enough for a test id."""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Parse an image reference.

        Raises:
            UsageError: the text has none of the known forms; the message lists them.
        """
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
            # It would end up in test names, in reports and in the logs of CI.
            raise _malformed(text, "it has a line break, a control character or no UTF-8 in it")
        scheme, colon, rest = text.partition(":")
        if scheme == "docker" and rest.startswith("//"):
            return cls._named(text, rest[2:], "registry")
        bare = scheme in _OF_IMAGES and _TAG.fullmatch(rest)
        if colon and scheme in _OTHERS and not bare:
            raise _malformed(text, _OTHERS[scheme].format(text=text))
        if colon and rest.startswith("//") and scheme not in _SCHEMES:
            raise _malformed(text, f"leave {scheme}:// out, as in {_without_scheme(rest)}")
        if colon and scheme in _PLACES and not bare:
            if not rest:
                raise _malformed(text, f"nothing follows {scheme}:")
            return cls._named(text, rest, _PLACES[scheme])
        if colon and scheme in _SCHEMES:
            if not rest:
                raise _malformed(text, f"nothing follows {scheme}:")
            if scheme == "reference":
                name, tag = _name_and_tag(text, rest)
                return cls(text, "reference", name, name, tag)
            name, tag = _from_path(rest)
            return cls(text, scheme, rest, name, tag)
        if not text.strip():
            raise _malformed(text, "it is empty")
        if text.endswith(".sif"):
            file = text.removeprefix("sif:")
            name, tag = _from_path(file.removesuffix(".sif"))
            return cls(text, "sif", file, name, tag)
        if text.startswith(("/", "./", "../", "~")) or text.endswith("/") or text in (".", ".."):
            name, tag = _from_path(text)
            return cls(text, "directory", text, name, tag)
        return cls._named(text, text)

    @classmethod
    def _named(cls, text: str, named: str, place: Place | None = None) -> ImageRef:
        """Build a reference from a name that an engine or a registry knows."""
        name_part, at, digest = named.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise _malformed(text, f"{digest!r} is no digest such as sha256:<64 hex digits>")
        directory, slash, last = name_part.rpartition("/")
        first, *others = directory.split("/")
        host = _HOST.fullmatch(first) and ("." in first or ":" in first or first == "localhost")
        if slash and not host and not _NAME.fullmatch(first):
            raise _malformed(text, f"{first!r} is no registry (HOST or HOST:PORT) and no name")
        for part in others:
            if not _NAME.fullmatch(part):
                raise _malformed(text, f"{part!r} is no image name (small letters, digits, . _ -)")
        name, tag = _name_and_tag(text, last)
        location = f"{directory}{slash}{name}"
        return cls(text, "registry", location, name, tag, digest or None, place)


def _from_path(path: str) -> tuple[str, str | None]:
    """Derive name and tag from the last part of a path, as CVMFS and sandboxes name images."""
    last = path.rstrip("/").rpartition("/")[2]
    for suffix in (".tar.gz", ".tar", ".tgz"):
        last = last.removesuffix(suffix)
    name, colon, tag = last.rpartition(":")
    if colon and name and _TAG.fullmatch(tag):
        return name, tag
    return last, None


def _name_and_tag(text: str, last: str) -> tuple[str, str | None]:
    name, colon, tag = last.partition(":")
    if not _NAME.fullmatch(name):
        raise _malformed(text, f"{name!r} is no image name (small letters, digits, . _ -)")
    if colon and not _TAG.fullmatch(tag):
        raise _malformed(text, f"{tag!r} is no tag (letters, digits, . _ -, at most 128)")
    return name, tag or None


def _without_scheme(rest: str) -> str:
    """Strip what precedes a name in `docker://NAME`, or in an address copied from a browser."""
    name = rest.removeprefix("//")
    return re.sub(r"^(?:hub\.docker\.com/(?:r|_|layers)/)", "", name) or "NAME:TAG"


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} is no image reference: {why}.", f"Known forms are:\n{FORMS}")


def is_loopback(name: str) -> bool:
    """Return whether the registry in the name of an image is on this machine."""
    host = name.partition("/")[0] if "/" in name else ""
    return re.fullmatch(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", host) is not None
