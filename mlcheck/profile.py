"""Profiles: find, validate and merge `image.toml` files.

An image's profile is its parents' expectations with their variants for its tag, then its own,
then its own variants. Tables are merged key by key; every other value replaces the one before;
waivers add up.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mlcheck.errors import UsageError
from mlcheck.expectations import Expectations, ImageToml
from mlcheck.toml_lines import Path as KeyPath
from mlcheck.toml_lines import line_numbers
from mlcheck.verdict import Source

FILE_NAME = "image.toml"


def _suite() -> Path:
    shipped = Path(__file__).with_name("suite")  # scripts/hatch_build.py puts it into the wheel
    return (shipped if shipped.is_dir() else Path(__file__).parents[1]) / "tests"


SUITE = _suite()
"""The profiles that come with mlcheck, and their tests."""
CONFIGURATION = SUITE.with_name("pytest.toml")
"""How pytest runs them."""


@dataclass(frozen=True)
class Profile:
    """What one image with one tag is expected to be.

    Args:
        name: name of its folder.
        tag: the tag whose variants were applied, or None.
        lineage: names of the profiles it is made of, itself first, then its parents.
        folder: where its image.toml and its own tests are.
        expect: the merged expectations.
        sources: for every value of `expect`, where it is written.
        bases: those of its parents that are images, the nearest first. A profile whose tags have
            no examples is none: it says what several images have in common.
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
        """Name and tag, as `--profile` takes them."""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    def source(self, *path: str | int) -> Source | None:
        """The line that says what stands at `path` of the expectations, or the nearest above."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.sources:
                return self.sources[path[:length]]
        return None

    @classmethod
    def of(cls, data: Mapping[str, Any], name: str = "profile") -> Profile:
        """A profile from plain data, without a file, for tests and tools."""
        return cls(name, None, (name,), Path(), Expectations.model_validate(dict(data)))


class Catalog:
    """The profiles of some directories: every folder there that has an image.toml.

    Args:
        directories: searched in order; the first that has a profile of a name wins.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(directories)
        self._files: dict[str, Path] = {}
        for directory in directories:
            for file in _files(directory):
                self._files.setdefault(file.parent.name, file)
        self._documents: dict[str, Document] = {}

    def names(self) -> list[str]:
        """All profiles' names, sorted."""
        return sorted(self._files)

    def name_of(self, name: str) -> str | None:
        """The name of the profile that an image's name, or an alias of it, means; None: of none."""
        if name in self._files:
            return name
        documents = (self._document(known, None) for known in self.names())
        return next((d.name for d in documents if name in d.data.get("aliases", ())), None)

    def load(self, name: str, tag: str | None = None) -> Profile:
        """The profile of an image.

        Raises:
            UsageError: there is no such profile, its file or a parent's is not valid, or the
                image has no such tag.
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
        return Profile(name, tag, lineage, chain[0].file.parent, expect, sources, bases)

    def chain(self, name: str) -> list[Document]:
        """The profile's document and its parents', itself first.

        Raises:
            UsageError: there is no such profile, or its file or a parent's is not valid.
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
                f"{who}there is no profile {name!r} in {places}.{_did_you_mean(name, self._files)}",
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
    """One image.toml as it was written."""

    name: str
    file: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]

    @property
    def directory(self) -> Path:
        """The directory of profiles in which this one is."""
        return self.file.parent.parent

    @classmethod
    def read(cls, name: str, file: Path) -> Document:
        """Read and validate a file.

        Raises:
            UsageError: it cannot be read, or is not valid; the message names the line.
        """
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # a FIFO would be read for ever
                raise UsageError(f"{_shown(file)}: is no regular file.", "Put one in its place.")
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{_shown(file)}: cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            number = error.object.count(b"\n", 0, error.start) + 1
            raise UsageError(
                f"{_shown(file)}:{number}: this is not TOML: it is not encoded as UTF-8.",
                "Save the file as UTF-8.",
            ) from None
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"at line (\d+)", str(error))
            place = f"{file}:{line[1]}" if line else str(file)
            raise UsageError(f"{place}: this is not TOML: {error}.") from None
        lines = line_numbers(text)
        try:
            ImageToml.model_validate(data)
        except ValidationError as error:
            # A table may be completed by a parent or a variant; only lists stand for themselves.
            messages = [
                _explain(file, lines, data, dict(item))
                for item in error.errors()
                if item["type"] != "missing"
                or item["loc"][0] in ("tags", "published")
                or "waivers" in item["loc"]
            ]
            if messages:
                raise UsageError("\n".join(messages)) from None
        try:
            re.compile(data.get("tags", {}).get("pattern", ""))
        except re.error as error:
            place = f"{_shown(file)}:{lines[('tags', 'pattern')]}"
            raise UsageError(f"{place}: tags.pattern: no regular expression: {error}.") from None
        return cls(name, file, data, lines)

    def where(self, path: KeyPath) -> Source:
        """The line of the key at `path`, or of the nearest above it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return Source(_shown(self.file), self.lines[path[:length]])
        return Source(_shown(self.file), 1)

    def layers(self, tag: str | None) -> Iterator[tuple[dict[str, Any], KeyPath]]:
        """The expectations for a tag, each with the keys under which it stands in the file."""
        own = {key: self.data[key] for key in self.data if key in Expectations.model_fields}
        yield own, ()
        for pattern, variant in self.data.get("variants", {}).items():
            if tag is not None and fnmatch.fnmatchcase(tag, pattern):
                yield variant, ("variants", pattern)


def _files(directory: Path) -> list[Path]:
    """Every image.toml of a directory of profiles, also one that is no file."""
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
    """What keeps a profile from being found that is there, and what to do."""
    if "/" in name:
        path = Path(name)
        return (
            "a profile is named, and its directory is --profiles",
            f"Write --profiles {path.parent} --profile {path.name}",
        )
    if directory.name == name and os.path.lexists(directory / FILE_NAME):
        return (
            f"{_shown(directory)} is its folder, not the directory that holds such folders",
            f"Name that: --profiles {_shown(directory.parent)}",
        )
    folder = directory / name
    try:
        entries = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return (
            f"{_shown(folder)} cannot be read: {error.strerror}",
            "Let this user read the folder and what is in it.",
        )
    for entry in entries:
        if entry.lower() == FILE_NAME:
            return (
                f"{_shown(folder / entry)} is not spelled {FILE_NAME}",
                f"Rename it: mv {_shown(folder / entry)} {_shown(folder / FILE_NAME)}",
            )
    return None


def _shown(file: Path) -> str:
    """A path as short as a person at this working directory would type it."""
    try:
        # Not where the file itself leads to, which may be nowhere or in a circle.
        directory = os.path.realpath(file.parent)
        return str((Path(directory) / file.name).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(file)


def _is_image(chain: Sequence[Document]) -> bool:
    tags = next((d.data["tags"] for d in chain if "tags" in d.data), None)
    return tags is None or bool(tags.get("examples"))


def _tag_groups(chain: list[Document], name: str, tag: str | None) -> dict[str, str] | None:
    """The groups of the tag by the nearest `tags.pattern`; None without a tag."""
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
                f"{tags['pattern']}.{known}{_did_you_mean(tag, examples)}",
                f"Say which one to expect with --profile {name}:TAG.",
            )
        return {key: value or "" for key, value in match.groupdict().items()}
    return {}


_PLACEHOLDER = re.compile(r"\{tag\.(\w+)\}")


def _fill(value: Any, groups: dict[str, str] | None) -> Any:
    """Put the tag's groups into strings; without a tag, leave out what depends on it."""
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
    """Validate what was merged: now no table may lack a key."""
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
    # Without a tag, a table whose required key depends on the tag says nothing.
    for path in missing:
        above: Any = data
        for part in path[:-2]:
            above = above.get(part, {})
        above.pop(path[-2], None)
    return _expectations(data, sources, name, tag)


def _did_you_mean(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _explain(
    file: Path, lines: dict[KeyPath, int], data: dict[str, Any], error: dict[str, Any]
) -> str:
    """One of pydantic's errors as file, line, key, what is wrong and what is allowed."""
    # pydantic adds the names of types and "[key]" to the location; the document tells which
    # parts are its own.
    path: KeyPath = ()
    here: Any = data
    for part in error["loc"]:
        known = part in here if isinstance(here, dict) else isinstance(part, int)
        if known:
            path, here = (*path, part), here[part]
        elif error["type"] == "missing":
            path = (*path, part)
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 1)
    key = ".".join(str(part) for part in path) or "the document"
    if error["type"] == "extra_forbidden":
        allowed = _allowed(path[:-1])
        hint = _did_you_mean(str(path[-1]), allowed)
        what = f"unknown key. Allowed here: {', '.join(allowed)}.{hint}"
    elif error["type"] == "missing":
        what = f"this key is missing. Allowed here: {', '.join(_allowed(path[:-1]))}."
    else:
        what = f"{_in_words_of_toml(error['msg'])}. Found: {error['input']!r}."
    return f"{_shown(file)}:{line}: {key}: {what}"


_WORDS = {"tuple": "list", "dictionary": "table", "date or datetime": "date such as 2027-06-30"}
"""Python's words for what TOML calls otherwise."""


def _in_words_of_toml(message: str) -> str:
    for theirs, ours in _WORDS.items():
        message = message.replace(f"a valid {theirs}", f"a valid {ours}")
    return message


def _allowed(path: KeyPath) -> list[str]:
    """The keys that the table at `path` may have."""
    annotation: Any = ImageToml
    for part in path:
        model = _model(annotation)
        if model is not None:
            fields = {info.alias or name: info for name, info in model.model_fields.items()}
            annotation = fields[str(part)].annotation
        else:
            # dict[KEY, VALUE] or tuple[ELEMENT, ...]
            annotation = [item for item in get_args(annotation) if item is not Ellipsis][-1]
    model = _model(annotation)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation means, also as `Model | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if (
            isinstance(candidate, type)
            and issubclass(candidate, BaseModel)
            and (candidate is annotation or type(None) in get_args(annotation))
        ):
            return candidate
    return None
