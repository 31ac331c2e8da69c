"""Published images: their names, registries, and directories that hold them unpacked.

All of it is read from `[published]` in the profiles; no registry is asked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.model.verdict import Source
from mlcheck.profile.catalog import Catalog

ALL = "all"
"""Name for all published images."""

_UNPACKED = re.compile(
    r"/cvmfs/unpacked\.cern\.ch/+([^/]*[.:][^/]*)/+((?:[a-z0-9][a-z0-9._-]*/)*[^/]+:[^/:]+)/*"
)
_PLACEHOLDER = re.compile(r"\{[\w.]+\}")
_DOCKER_HUB = ("registry.hub.docker.com", "registry-1.docker.io", "index.docker.io")


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """One published image.

    Args:
        registry: its reference, with the registry's host and the tag.
        directories: its unpacked copies, on machines that mount these file systems.
        aliases: other names of the same image.
        source: the line of the profile that says so.
    """

    name: str
    tag: str
    registry: str
    directories: tuple[str, ...]
    aliases: tuple[str, ...]
    source: Source

    @property
    def short(self) -> str:
        """Name and tag, as a user may type them."""
        return f"{self.name}:{self.tag}"


class Published:
    """The published images of several directories of profiles."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @cached_property
    def images(self) -> tuple[PublishedImage, ...]:
        """Return all published images, sorted by name, tags in the order of the profile.

        Raises:
            UsageError: an image.toml is invalid.
        """
        return tuple(image for name in self._catalog.names() for image in self._of(name))

    def knows(self, name: str) -> bool:
        """Return whether an image of this name or alias is published."""
        profile = self._catalog.name_of(name)
        return profile is not None and any(self._of(profile))

    def find(self, name: str, tag: str | None) -> PublishedImage | None:
        """Find the image with a short name; None if no image of that name is published.

        Raises:
            UsageError: the name is published but not with that tag, or the tag is missing.
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
        """Return the registry reference of the image unpacked in a directory; None if unknown."""
        for image in self.images:
            if directory.rstrip("/") in image.directories:
                return image.registry
        return of_unpacked_path(directory)

    def _of(self, name: str) -> Iterator[PublishedImage]:
        chain = self._catalog.chain(name)
        own = chain[0]
        # A profile that extends one of another directory is not published where that one is.
        family = [document for document in chain if document.directory == own.directory]
        says = next((document for document in family if "published" in document.data), None)
        if says is None:
            return
        about: dict[str, Any] = next((d.data["tags"] for d in chain if "tags" in d.data), {})
        tags = about.get("examples", ())
        where = says.where(("published", "registry"))
        if not tags and says is own:
            raise UsageError(
                f"{where}: published: of which tags? tags.examples lists none.",
                "Add [tags] with pattern and examples, the published tags.",
            )
        for tag in tags:
            table = says.data["published"]
            match = re.fullmatch(about["pattern"], tag) if "pattern" in about else None
            groups = match.groupdict(default="") if match is not None else {}
            filled = {"{name}": name, "{tag}": tag}
            filled |= {f"{{tag.{key}}}": value for key, value in groups.items()}
            registry, *directories = (
                _filled(text, filled) for text in (table["registry"], *table.get("cvmfs", ()))
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


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values.get(match[0], match[0]), text)


def of_unpacked_path(path: str) -> str | None:
    """Return the registry reference of an image unpacked below /cvmfs/unpacked.cern.ch.

    `/cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000/ml-base:TAG` is
    `docker.io/yesw2000/ml-base:TAG`. None if the path is not an image there.
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
