"""Profiles: find, validate and merge `image.toml` files.

Expectations are merged in this order: those of the parents, with their variants for the tag; those
of the image; those of its variants. Tables are merged key by key, and waivers add up. Any other
value replaces the one before.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mlcheck.model.errors import UsageError
from mlcheck.model.verdict import Source
from mlcheck.profile import toml_file
from mlcheck.profile.schema import Expectations, ImageToml
from mlcheck.profile.schema.keys import JUDGED_WITH, is_said
from mlcheck.profile.toml_file import did_you_mean, shown
from mlcheck.profile.toml_lines import Path as KeyPath

FILE_NAME = "image.toml"


def _suite() -> Path:
    package = Path(__file__).parents[1]
    shipped = package / "suite"  # scripts/hatch_build.py puts it into the wheel
    return (shipped if shipped.is_dir() else package.parent) / "tests"


SUITE = _suite()
"""The profiles that come with mlcheck, together with their tests."""
CONFIGURATION = SUITE.with_name("pytest.toml")
"""pytest's configuration for them."""


T = TypeVar("T")


def promised(value: T | None) -> T:
    """A part of the expectations that is there, because a rule is judged only where one of its
    keys is.

    Raises:
        TypeError: it is not there: the rule's `keys` are wrong.
    """
    if value is None:
        raise TypeError("the profile does not promise this: the keys of the rule are wrong")
    return value


@dataclass(frozen=True)
class Profile:
    """The expectations for one image with one tag.

    Args:
        name: name of its folder.
        tag: the tag whose variants were applied, or None.
        lineage: names of the profiles that were merged: this one first, then its parents.
        folder: directory of its image.toml and its own tests.
        expect: the merged expectations.
        sources: for every value of `expect`, the line that states it.
        bases: the parents that are images, the nearest first. A profile whose tags have no examples
            is not an image: it states what several images have in common.
    """

    name: str
    tag: str | None
    lineage: tuple[str, ...]
    folder: Path
    expect: Expectations
    sources: Mapping[KeyPath, Source] = field(default_factory=dict, repr=False)
    bases: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name and tag, in the form of `--profile`."""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    def source(self, *path: str | int) -> Source | None:
        """Return the line that states the value at `path`, or the nearest table above it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.sources:
                return self.sources[path[:length]]
        return None

    def source_of_kernel(self, name: str, *path: str | int) -> Source | None:
        """The line for what stands at `path` of a kernel, of the generation that the image
        follows."""
        specs = self.expect.kernelspecs
        generation = specs.generation if specs else ""
        return self.source("kernelspecs", "generations", generation, name, *path)

    def says(self, *keys: str) -> bool:
        """Return whether the profile has any of these keys, such as "packages.required"; `*`
        stands for any name."""
        return any(is_said(self.expect, key.split(".")) for key in keys)

    @classmethod
    def of(cls, data: Mapping[str, Any], name: str = "profile") -> Profile:
        """Build a profile from plain data, without a file, for tests and tools."""
        return cls(name, None, (name,), Path(), Expectations.model_validate(dict(data)))


def can_say(data: Mapping[str, Any]) -> bool:
    """Return whether a profile can say this: an image may have what it cannot, such as half a
    character in a name."""
    try:
        Expectations.model_validate(dict(data))
    except ValidationError:
        return False
    return True


class Catalog:
    """The profiles in some directories: every folder with an image.toml.

    Args:
        directories: searched in order; the first one with a profile of the name wins.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(directories)
        self._files: dict[str, Path] = {}
        for directory in directories:
            for file in _files(directory):
                self._files.setdefault(file.parent.name, file)
        self._documents: dict[str, Document] = {}

    def names(self) -> list[str]:
        """Return the names of all profiles, sorted."""
        return sorted(self._files)

    def name_of(self, name: str) -> str | None:
        """Return the name of the profile for an image's name or alias; None if there is none."""
        if name in self._files:
            return name
        documents = (self._document(known, None) for known in self.names())
        return next((d.name for d in documents if name in d.data.get("aliases", ())), None)

    def load(self, name: str, tag: str | None = None) -> Profile:
        """Load and merge the profile of an image.

        Raises:
            UsageError: there is no such profile, its file or a parent's is invalid, or the image
                has no such tag.
        """
        name = self.name_of(name) or name
        chain = self.chain(name)
        groups = _tag_groups(chain, name, tag)
        data: dict[str, Any] = {}
        sources: dict[KeyPath, Source] = {}
        for document in reversed(chain):
            for layer, above in document.layers(tag):
                filled = _fill(layer, groups)
                _merge(data, filled, document, above, (), sources)
        expect = _expectations(data, sources, name, tag)
        kernels = expect.kernelspecs
        if kernels is not None and tag and kernels.generation not in kernels.generations:
            raise UsageError(
                f"{sources['kernelspecs', 'generation']}: kernelspecs.generation: there is no "
                f"generation {kernels.generation!r}.",
                f"Defined are: {', '.join(kernels.generations)}.",
            )
        lineage = tuple(document.name for document in chain)
        bases = tuple(chain[n].name for n in range(1, len(chain)) if _is_image(chain[n:]))
        profile = Profile(name, tag, lineage, chain[0].file.parent, expect, sources, bases)
        for key, other in JUDGED_WITH.items():
            if profile.says(key) and not profile.says(other):
                raise UsageError(
                    f"{profile.source(*key.split('.'))}: {key} is judged together with {other}, "
                    f"about which {profile.label} says nothing.",
                    f"Add {other}, or take {key} away.",
                )
        return profile

    def chain(self, name: str) -> list[Document]:
        """Return the profile's document and those of its parents, its own first.

        Raises:
            UsageError: there is no such profile, or its file or a parent's is invalid.
        """
        chain = [self._document(name, None)]
        while (parent := chain[-1].data.get("extends")) is not None:
            chain.append(self._document(parent, chain[-1]))
            if parent in [document.name for document in chain[:-1]]:
                circle = " -> ".join(document.name for document in chain)
                raise UsageError(
                    f"{chain[-2].where(('extends',))}: extends goes in a circle: {circle}.",
                    "Take one of these extends away.",
                )
        return chain

    def _document(self, name: str, child: Document | None) -> Document:
        if name not in self._files:
            known = ", ".join(self.names()) or "none"
            places = ", ".join(str(directory) for directory in self.directories)
            who = f"{child.where(('extends',))}: extends: " if child else ""
            if slip := next(filter(None, (_slip(one, name) for one in self.directories)), None):
                raise UsageError(f"{who}there is no profile {name!r}: {slip[0]}.", slip[1])
            raise UsageError(
                f"{who}there is no profile {name!r} in {places}.{did_you_mean(name, self._files)}",
                f"Known profiles: {known}. "
                + (
                    "Correct the name."
                    if child
                    else "Choose one with --profile NAME[:TAG], or add a folder with an image.toml "
                    "and name its parent directory with --profiles DIR."
                ),
            )
        if name not in self._documents:
            self._documents[name] = Document.read(name, self._files[name])
        return self._documents[name]


@dataclass(frozen=True)
class Document:
    """One image.toml as written, before merging."""

    name: str
    file: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]

    @property
    def directory(self) -> Path:
        """The directory of profiles that contains this one."""
        return self.file.parent.parent

    @classmethod
    def read(cls, name: str, file: Path) -> Document:
        """Read and validate a file.

        Raises:
            UsageError: the file cannot be read or is invalid; the message names the line.
        """
        data, lines = toml_file.read(file)
        # A parent or a variant may complete a table, but not a list.
        toml_file.validate(
            ImageToml,
            file,
            data,
            lines,
            may_lack=lambda path: path[0] not in ("tags", "published") and "waivers" not in path,
        )
        try:
            re.compile(data.get("tags", {}).get("pattern", ""))
        except re.error as error:
            place = f"{shown(file)}:{lines[('tags', 'pattern')]}"
            raise UsageError(f"{place}: tags.pattern: no regular expression: {error}.") from None
        return cls(name, file, data, lines)

    def where(self, path: KeyPath) -> Source:
        """Return the line of the key at `path`, or of the nearest key above it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return Source(shown(self.file), self.lines[path[:length]])
        return Source(shown(self.file), 1)

    def layers(self, tag: str | None) -> Iterator[tuple[dict[str, Any], KeyPath]]:
        """Yield the expectations for a tag, each with its path of keys in the file."""
        own = {key: self.data[key] for key in self.data if key in Expectations.model_fields}
        yield own, ()
        for pattern, variant in self.data.get("variants", {}).items():
            if tag is not None and fnmatch.fnmatchcase(tag, pattern):
                yield variant, ("variants", pattern)


def _files(directory: Path) -> list[Path]:
    """List every image.toml in a directory of profiles, even one that is not a regular file."""
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208
    except OSError as error:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        what = "does not exist or is a file" if gone else f"cannot be read: {error.strerror}"
        remedy = f"A directory of profiles holds one folder per image with an {FILE_NAME}."
        if directory.name == FILE_NAME:
            remedy += f" Name the one above that folder: --profiles {directory.parent.parent}"
        raise UsageError(f"{directory} is no directory of profiles: it {what}.", remedy) from None
    files = (directory / name / FILE_NAME for name in names)
    return [file for file in files if os.path.lexists(file)]


def _slip(directory: Path, name: str) -> tuple[str, str] | None:
    """Explain why a profile that does exist is not found, and what to do."""
    if "/" in name:
        path = Path(name)
        return (
            "a profile is named, and its directory is --profiles",
            f"Write --profiles {path.parent} --profile {path.name}",
        )
    if directory.name == name and os.path.lexists(directory / FILE_NAME):
        return (
            f"{shown(directory)} is its folder, not the directory that holds such folders",
            f"Name that: --profiles {shown(directory.parent)}",
        )
    folder = directory / name
    try:
        entries = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return (
            f"{shown(folder)} cannot be read: {error.strerror}",
            "Let this user read the folder and what is in it.",
        )
    for entry in entries:
        if entry.lower() == FILE_NAME:
            return (
                f"{shown(folder / entry)} is not spelled {FILE_NAME}",
                f"Rename it: mv {shown(folder / entry)} {shown(folder / FILE_NAME)}",
            )
    return None


def _is_image(chain: Sequence[Document]) -> bool:
    tags = next((d.data["tags"] for d in chain if "tags" in d.data), None)
    return tags is None or bool(tags.get("examples"))


def _tag_groups(chain: list[Document], name: str, tag: str | None) -> dict[str, str] | None:
    """Match the tag with the nearest `tags.pattern` and return the groups; None without a tag."""
    if tag is None:
        return None
    for document in chain:
        tags = document.data.get("tags")
        if tags is None:
            continue
        match = re.fullmatch(tags["pattern"], tag)
        if match is None:
            examples = tags.get("examples", [])
            known = f" Published are {', '.join(examples)}." if examples else ""
            raise UsageError(
                f"{tag!r} is no tag of {name}: {document.where(('tags', 'pattern'))} wants "
                f"{tags['pattern']}.{known}{did_you_mean(tag, examples)}",
                f"Say which one to expect with --profile {name}:TAG.",
            )
        return {key: value or "" for key, value in match.groupdict().items()}
    return {}


_PLACEHOLDER = re.compile(r"\{tag\.(\w+)\}")


def _fill(value: Any, groups: dict[str, str] | None) -> Any:
    """Replace placeholders by the tag's groups; without a tag, drop whatever depends on it."""
    if isinstance(value, dict):
        filled = {key: _fill(item, groups) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item is not _UNKNOWN}
    if isinstance(value, list):
        items = [_fill(item, groups) for item in value]
        return _UNKNOWN if any(item is _UNKNOWN for item in items) else items
    if isinstance(value, str) and _PLACEHOLDER.search(value):
        if groups is None:
            return _UNKNOWN
        unknown = [word for word in _PLACEHOLDER.findall(value) if word not in groups]
        if unknown:
            raise UsageError(
                f"{value!r}: the tag has no part {unknown[0]!r}.",
                f"tags.pattern defines: {', '.join(groups) or 'none'}.",
            )
        return _PLACEHOLDER.sub(lambda match: groups[match[1]], value)
    return value


_UNKNOWN = object()


def _merge(
    into: dict[str, Any],
    layer: Mapping[str, Any],
    document: Document,
    above: KeyPath,
    path: KeyPath,
    sources: dict[KeyPath, Source],
) -> None:
    for key, value in layer.items():
        here = (*path, key)
        source = document.where((*above, *here))
        if isinstance(value, dict):
            sources.setdefault(here, source)
            _merge(into.setdefault(key, {}), value, document, above, here, sources)
            continue
        start = 0
        if here == ("waivers",):
            start = len(into.get(key, []))
            value = [*into.get(key, []), *value]
        into[key] = value
        sources[here] = source
        if isinstance(value, list):
            for index in range(start, len(value)):
                sources[*here, index] = document.where((*above, *here, index - start))


def _expectations(
    data: dict[str, Any], sources: Mapping[KeyPath, Source], name: str, tag: str | None
) -> Expectations:
    """Validate the merged data: from here on, a table must have all its required keys."""
    try:
        return Expectations.model_validate(data)
    except ValidationError as error:
        missing = [tuple(item["loc"]) for item in error.errors()]
    if tag is not None:
        table, key = missing[0][:-1], missing[0][-1]
        where = next(sources[table[:n]] for n in range(len(table), 0, -1) if table[:n] in sources)
        raise UsageError(
            f"{where}: {'.'.join(map(str, table))}: the key {key!r} is missing, here and in the "
            f"profiles that {name} extends."
        )
    # Without a tag, drop a table whose required key depends on the tag.
    for path in missing:
        above: Any = data
        for part in path[:-2]:
            above = above.get(part, {})
        above.pop(path[-2], None)
    return _expectations(data, sources, name, tag)
