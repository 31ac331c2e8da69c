"""Image references: parse and print, no I/O."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from mlcheck.errors import UsageError

Kind = Literal["directory", "reference", "sif", "docker-archive", "oci", "oci-archive", "registry"]

_SCHEMES: tuple[Kind, ...] = ("reference", "docker-archive", "oci-archive", "oci")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9+.-]+:[0-9a-f]{32,}")

FORMS = """\
  DIR                      a directory that holds an image (./X, /X or X/; sandbox, CVMFS)
  reference:NAME[:TAG]     a reference image, built on the spot
  NAME[:TAG] NAME@DIGEST   an image of docker, podman or a registry, or a published image by its
                           short name (`mlcheck images` lists them)
  FILE.sif                 a SIF file
  docker-archive:FILE  oci:DIR  oci-archive:FILE"""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Which image is meant.

    Args:
        text: as the user wrote it.
        kind: how it is stored.
        location: directory, file, or registry name with host and path.
        name: last part of the name ("ml-pyroot"), which chooses the profile.
        tag: "alma9-python311", which chooses the variant; None when there is none.
        digest: "sha256:..." when it is pinned.
    """

    text: str
    kind: Kind
    location: str
    name: str
    tag: str | None = None
    digest: str | None = None

    @property
    def label(self) -> str:
        """Name and tag, short enough for a test id."""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Read an image reference.

        Raises:
            UsageError: it has none of the known forms; the message lists them.
        """
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
            # It would stand in names of tests, in reports and in the logs of CI.
            raise _malformed(text, "it has a line break, a control character or no UTF-8 in it")
        scheme, colon, rest = text.partition(":")
        if colon and rest.startswith("//") and scheme not in _SCHEMES:
            raise _malformed(text, f"leave {scheme}:// out, as in {_without_scheme(rest)}")
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
            name, tag = _from_path(text.removesuffix(".sif"))
            return cls(text, "sif", text, name, tag)
        if text.startswith(("/", "./", "../", "~")) or text.endswith("/") or text in (".", ".."):
            name, tag = _from_path(text)
            return cls(text, "directory", text, name, tag)
        name_part, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise _malformed(text, f"{digest!r} is no digest such as sha256:<64 hex digits>")
        directory, slash, last = name_part.rpartition("/")
        name, tag = _name_and_tag(text, last)
        return cls(text, "registry", f"{directory}{slash}{name}", name, tag, digest or None)


def _from_path(path: str) -> tuple[str, str | None]:
    """Name and tag from the last part of a path, as CVMFS and sandboxes are named."""
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
    """What somebody means who writes `docker://NAME`, or copies an address from a browser."""
    name = rest.removeprefix("//")
    return re.sub(r"^(?:hub\.docker\.com/(?:r|_|layers)/)", "", name) or "NAME:TAG"


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} is no image reference: {why}.", f"Known forms are:\n{FORMS}")
