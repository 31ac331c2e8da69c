"""The published images: which there are, in which registry, and where they are unpacked.

What the profiles say in `[published]`, and nothing that was looked up.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mlcheck.errors import UsageError
from mlcheck.image import ImageRef
from mlcheck.profile import Catalog
from mlcheck.verdict import Source

ALL = "all"
"""Stands for every published image."""

_UNPACKED = re.compile(
    r"/cvmfs/unpacked\.cern\.ch/+([^/]*[.:][^/]*)/+((?:[a-z0-9][a-z0-9._-]*/)*[^/]+:[^/:]+)/*"
)
_DOCKER_HUB = ("registry.hub.docker.com", "registry-1.docker.io", "index.docker.io")


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """One image that is published.

    Args:
        registry: its reference, with the registry's host and the tag.
        directories: where it is unpacked on machines that have these file systems.
        aliases: other names of the same image.
        source: which line of a profile says so.
    """

    name: str
    tag: str
    registry: str
    directories: tuple[str, ...]
    aliases: tuple[str, ...]
    source: Source

    @property
    def short(self) -> str:
        """Name and tag, by which a user may ask for it."""
        return f"{self.name}:{self.tag}"


class Published:
    """The published images of some directories of profiles."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @cached_property
    def images(self) -> tuple[PublishedImage, ...]:
        """All of them, in the order of names, and of each the tags as its profile lists them.

        Raises:
            UsageError: an image.toml is not valid.
        """
        return tuple(image for name in self._catalog.names() for image in self._of(name))

    def knows(self, name: str) -> bool:
        """Whether an image of this name or alias is published."""
        profile = self._catalog.name_of(name)
        return profile is not None and any(self._of(profile))

    def find(self, name: str, tag: str | None) -> PublishedImage | None:
        """The image that a short name means; None when no image of that name is published.

        Raises:
            UsageError: the name is published, and the tag is not, or there is none.
        """
        profile = self._catalog.name_of(name)
        images = {} if profile is None else {image.tag: image for image in self._of(profile)}
        if not images:
            return None
        if tag in images:
            return images[tag]
        known = f"Published are: {', '.join(f'{name}:{known}' for known in images)}."
        if tag is None:
            raise UsageError(
                f"{name!r}: which tag is meant? No docker or podman here that was asked has an "
                "image of just this name.",
                known,
            )
        close = difflib.get_close_matches(tag, images, 1)
        elsewhere = next(iter(images.values())).registry.rpartition(":")[0]
        raise UsageError(
            f"{name}:{tag} is not published, and no docker or podman here that was asked has it."
            + (f" Did you mean {name}:{close[0]}?" if close else ""),
            f"{known} An image that is published all the same: {elsewhere}:{tag}",
        )

    def reference_of(self, directory: str) -> str | None:
        """The reference in a registry of which a directory is a copy; None: it is not known."""
        for image in self.images:
            if directory.rstrip("/") in image.directories:
                return image.registry
        return of_unpacked_path(directory)

    def _of(self, name: str) -> Iterator[PublishedImage]:
        chain = self._catalog.chain(name)
        own = chain[0]
        # Who extends the profile of somebody else does not publish in his places.
        family = [document for document in chain if document.directory == own.directory]
        says = next((document for document in family if "published" in document.data), None)
        if says is None:
            return
        tags = next((d.data["tags"].get("examples", ()) for d in chain if "tags" in d.data), ())
        where = says.where(("published", "registry"))
        if not tags and says is own:
            raise UsageError(
                f"{where}: published: of which tags? tags.examples lists none.",
                "Add [tags] with pattern and examples, the published tags.",
            )
        for tag in tags:
            table = says.data["published"]
            registry, *directories = (
                text.replace("{name}", name).replace("{tag}", tag)
                for text in (table["registry"], *table.get("cvmfs", ()))
            )
            try:
                ref = ImageRef.parse(registry)
            except UsageError as error:
                raise UsageError(f"{where}: published.registry: {error.what}") from None
            if ref.kind != "registry" or ref.tag != tag:
                raise UsageError(
                    f"{where}: published.registry: {registry!r} is no reference of a registry "
                    f"with the tag {tag}."
                )
            aliases = tuple(own.data.get("aliases", ()))
            yield PublishedImage(name, tag, registry, tuple(directories), aliases, where)


def of_unpacked_path(path: str) -> str | None:
    """The reference in a registry of which a path below /cvmfs/unpacked.cern.ch is a copy.

    `/cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000/ml-base:TAG` is
    `docker.io/yesw2000/ml-base:TAG`; None: it is no path of an image there.
    """
    match = _UNPACKED.fullmatch(path)
    if match is None:
        return None
    host, name = match.groups()
    text = f"{'docker.io' if host in _DOCKER_HUB else host}/{name}"
    try:
        return text if ImageRef.parse(text).kind == "registry" else None
    except UsageError:
        return None
