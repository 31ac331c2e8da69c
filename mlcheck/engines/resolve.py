"""Resolve a user's text to an image reference.

`ml-pyroot:alma9-python311` is an image of docker or podman that has exactly this name, such as a
build that has not been published yet, or else the published image of that name. `all` is every
published image. Everything else is taken literally.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

from mlcheck.engines import installed, select
from mlcheck.engines.base import PullPolicy
from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.published import ALL, Published, PublishedImage


@dataclass(frozen=True, slots=True)
class Resolved:
    """The image that a text refers to.

    Args:
        why: the reason for choosing this image, in words, if the text alone does not determine it;
            else "".
        published: entry of the published image, if the text refers to one.
    """

    ref: ImageRef
    why: str = ""
    published: PublishedImage | None = None


def resolve(
    texts: Sequence[str],
    published: Published,
    *,
    engines: Sequence[str] = (select.AUTO,),
    pull: PullPolicy = "missing",
    stores: bool = True,
) -> list[Resolved]:
    """Resolve each text, and return each image once.

    The published image is its directory on this machine if every requested engine opens directories
    and `pull` is not "always"; otherwise, that of the registry.

    Args:
        engines: the requested ones of `select.engines`.
        stores: True to look in the stores of docker and podman; one that does not answer counts
            as empty.

    Raises:
        UsageError: a text is not an image reference or is the name of a file here, or a published
            name has no such tag.
    """

    stores_asked = [store for store in select.stores() if {store, select.AUTO} & set(engines)]
    held = functools.cache(select.names_in)
    found: dict[str, Resolved] = {}
    for text in texts:
        if text == ALL:
            if not published.images:
                raise UsageError("all: no profile says where an image is published ([published]).")
            meant = [_published(image, engines, pull) for image in published.images]
        else:
            ref = select.with_default_tag(understood(text))
            # A name with a registry, a path or a digest is one image, whatever is on this machine.
            plain = ref.kind == "registry" and ref.place is None
            short = plain and "/" not in ref.location and ref.digest is None
            full = f"{ref.name}:{ref.tag or 'latest'}"
            asked = stores_asked if short and stores else ()
            local = [store for store in asked if full in held(store)]
            image = published.find(ref.name, ref.tag) if short and not local else None
            if image is not None:
                meant = [_published(image, engines, pull)]
            elif short and local and published.knows(ref.name):
                meant = [Resolved(ref, f"of {' and '.join(local)} here, not the published one")]
            else:
                meant = [Resolved(ref)]
        for one in meant:
            found.setdefault(one.ref.text, one)
    return list(found.values())


def understood(text: str) -> ImageRef:
    """Parse a text as an image reference.

    Raises:
        UsageError: it is not an image reference, or it is the name of a file here.
    """
    slip = UsageError(
        f"{text!r} is a file here, and the name of no image.",
        f"An archive is written docker-archive:{text} or oci-archive:{text}; what a Dockerfile "
        "builds has the name that `docker build --tag NAME` gives it.",
    )
    try:
        ref = ImageRef.parse(text)
    except UsageError:
        if os.path.isfile(text):  # noqa: PTH113 - a text may be too long for Path
            raise slip from None
        raise
    archive = text.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz"))
    if ref.kind == "registry" and archive and os.path.isfile(text):  # noqa: PTH113
        raise slip
    return ref


def _published(image: PublishedImage, engines: Sequence[str], pull: PullPolicy) -> Resolved:
    # With an automatic choice, some engine opens directories.
    open_directories = all(
        name == select.AUTO or "directory" in installed.declaration(name).opens for name in engines
    )
    if open_directories and pull != "always":
        for directory in image.directories:
            # Not Path.is_dir: a directory that this user may not enter cannot be used.
            if os.path.isdir(directory):  # noqa: PTH112
                why = f"{image.short} as published, unpacked on this machine"
                return Resolved(ImageRef.parse(directory), why, image)
        why = "not unpacked on this machine" if image.directories else ""
    else:
        why = "asked for from its registry" if pull == "always" else ""
    why = ", ".join(filter(None, (f"{image.short} as published", why)))
    return Resolved(ImageRef.parse(image.registry), why, image)
