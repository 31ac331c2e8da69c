"""From what a user writes for an image to the image reference that is meant.

`ml-pyroot:alma9-python311` is an image of docker or podman that has just this name, as a build
has that was not published yet, else the published image of that name. `all` is every published
image. Everything else means itself.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

from mlcheck import opening
from mlcheck.engines.base import PullPolicy
from mlcheck.errors import UsageError
from mlcheck.image import ImageRef
from mlcheck.published import ALL, Published, PublishedImage


@dataclass(frozen=True, slots=True)
class Resolved:
    """Which image is meant.

    Args:
        why: why this image, in words, where the text alone does not say it; else "".
        published: where it is published, if the published image is meant.
    """

    ref: ImageRef
    why: str = ""
    published: PublishedImage | None = None


def resolve(
    texts: Sequence[str],
    published: Published,
    *,
    engines: Sequence[str] = (opening.AUTO,),
    pull: PullPolicy = "missing",
    stores: bool = True,
) -> list[Resolved]:
    """What each text means, each image once.

    The published image is the directory in which this machine has it, when every engine that was
    asked for opens directories and `pull` is not "always"; else that of the registry.

    Args:
        engines: names of opening.ENGINES that were asked for.
        stores: whether docker and podman are asked what they have; one that cannot be asked has
            nothing.

    Raises:
        UsageError: a text is no image reference or the name of a file here, or a published name
            has no such tag.
    """

    stores_asked = [store for store in opening.STORES if {store, opening.AUTO} & set(engines)]
    held = functools.cache(opening.names_in)
    found: dict[str, Resolved] = {}
    for text in texts:
        if text == ALL:
            if not published.images:
                raise UsageError("all: no profile says where an image is published ([published]).")
            meant = [_published(image, engines, pull) for image in published.images]
        else:
            ref = opening.with_default_tag(understood(text))
            # A name with a registry or a path in it, or pinned, is one image whatever is here.
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
    """What a text means.

    Raises:
        UsageError: it is no image reference, or what it names is a file here.
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
    # Of an automatic choice, some engine opens directories.
    open_directories = all(
        name == opening.AUTO or "directory" in opening.KINDS[name] for name in engines
    )
    if open_directories and pull != "always":
        for directory in image.directories:
            # Not Path.is_dir: a directory that this user may not enter is none that can be used.
            if os.path.isdir(directory):  # noqa: PTH112
                why = f"{image.short} as published, unpacked on this machine"
                return Resolved(ImageRef.parse(directory), why, image)
        why = "not unpacked on this machine" if image.directories else ""
    else:
        why = "asked for from its registry" if pull == "always" else ""
    why = ", ".join(filter(None, (f"{image.short} as published", why)))
    return Resolved(ImageRef.parse(image.registry), why, image)
