"""From an image reference to an open image: choose the engine, make the image ready, open it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from mlcheck.engines import installed
from mlcheck.engines.base import Engine, OpenImage, Prepared, Progress, PullPolicy, Start, silent
from mlcheck.engines.directories import check_directory
from mlcheck.machine import janitor
from mlcheck.model.errors import EngineError, UsageError, raising_only
from mlcheck.model.image_ref import ImageRef, Kind

T = TypeVar("T")

AUTO = "auto"

_WHY: dict[Kind, str] = {
    "directory": "a directory needs no container engine",
    "reference": "a directory needs no container engine",
    "sif": "what runs SIF files",
}


class Choice(NamedTuple):
    """An engine for an image, and the reason for the choice."""

    engine: str
    why: str


_ONLY_FILES = "only the files can be judged: nothing here runs commands in them"


def engines() -> tuple[str, ...]:
    """Return the values of `--engine`."""
    return (AUTO, *installed.names())


@functools.cache
def engine(name: str) -> Engine:
    """Return the engine of that name. Its dependencies are imported now, and no sooner.

    Raises:
        UsageError, EngineError: as `installed.declaration`.
    """
    return installed.declaration(name).engine(name)


def preferred(kind: Kind) -> list[str]:
    """Return the engines that "auto" tries for images of a kind, in this order: first those that
    need the least of the machine, and those that only read at the end."""
    places = {
        name: place
        for name, declared in installed.declarations().items()
        if (place := declared.opens.get(kind)) is not None
    }
    return sorted(places, key=lambda name: places[name])


def reader(kind: Kind) -> str | None:
    """Return the engine that reads files of such images even if it cannot run commands here."""
    able = (name for name in preferred(kind) if installed.declaration(name).reads_anyway)
    return next(able, None)


def stores() -> list[str]:
    """Return the engines that keep images by name."""
    return [name for name, one in installed.declarations().items() if one.keeps_images]


def choose(ref: ImageRef, wanted: Sequence[str] = (AUTO,)) -> list[Choice]:
    """Choose the engines for an image.

    Args:
        wanted: names from `engines`.

    Raises:
        UsageError: an engine does not open such images, or for "auto" none works here.
    """
    if ref.place in stores():
        if other := next((name for name in wanted if name not in (AUTO, ref.place)), None):
            raise UsageError(
                f"{ref.text} is an image of {ref.place}, and --engine says {other}.",
                f"Leave --engine out, or name the image without {ref.text.partition(':')[0]}:.",
            )
        return [Choice(str(ref.place), "the image's name says so")]
    found: dict[str, Choice] = {}
    for name in wanted:
        choice = _automatic(ref) if name == AUTO else _asked_for(ref, name)
        found.setdefault(choice.engine, choice)
    return list(found.values())


def _asked_for(ref: ImageRef, name: str) -> Choice:
    if ref.kind not in installed.declaration(name).opens:
        declared = installed.declarations()
        able = [other for other, one in declared.items() if ref.kind in one.opens]
        raise UsageError(
            f"{ref.text!r} is an image of kind {ref.kind}, which {name} does not open.",
            f"These do: {', '.join(able)}.",
        )
    return Choice(name, "asked for")


def names_in(store: str) -> frozenset[str]:
    """Return the names of an engine's images (`Store.names`); nothing if it cannot be used."""
    try:
        return engine(store).store.names()
    except EngineError:
        return frozenset()


def stores_with(ref: ImageRef) -> list[str]:
    """Return the engines that have an image under exactly this name."""
    from mlcheck.engines.oci.images import name_of, plain_name

    if ref.digest is not None:
        return []
    name = plain_name(name_of(ref))
    return [store for store in stores() if name in names_in(store)]


def _automatic(ref: ImageRef) -> Choice:
    reasons: list[tuple[str, str]] = []
    first: Choice | None = None
    for name in preferred(ref.kind):
        declared = installed.declaration(name)
        if first is not None and not declared.keeps_images:
            break
        trouble = engine(name).unusable()
        if trouble is not None:
            reasons.append((name, " ".join(str(trouble).splitlines())))
            continue
        if ref.kind == "registry" and declared.keeps_images and engine(name).store.inspect(ref):
            return Choice(name, "it has this image")
        if first is None:
            others = f"; not {', '.join(name for name, _ in reasons)}" if reasons else ""
            why = _WHY.get(ref.kind, "the first that works here")
            first = Choice(name, (_ONLY_FILES if declared.only_reads else why) + others)
        if ref.kind != "registry":
            break
    if first is not None:
        return first
    if (able := reader(ref.kind)) is not None:
        return Choice(able, _ONLY_FILES)
    hint = _directory_hint(ref)
    listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons)
    raise UsageError(
        f"{ref.text!r} is an image of kind {ref.kind}, and nothing on this machine opens "
        f"those:\n{listed}",
        f"{hint}\n`mlcheck doctor` says more.".strip(),
    )


def _directory_hint(ref: ImageRef) -> str:
    """Return what to write if the name of an image is that of a directory here, or ""."""
    if ref.kind == "registry" and os.path.isdir(ref.text):  # noqa: PTH112 - it may be too long
        return f"For the directory of that name, write ./{ref.text}."
    return ""


def with_default_tag(ref: ImageRef) -> ImageRef:
    """Add the tag of this machine's Python to a reference image without a tag."""
    if ref.kind == "reference" and ref.tag is None:
        from mlcheck import reference

        return dataclasses.replace(ref, tag=reference.default_tag(ref.name or ""))
    return ref


def check_exists(ref: ImageRef) -> None:
    """Detect the user's mistakes that can be found at once.

    Raises:
        UsageError: there is no such directory or file, or no such reference image.
    """
    if ref.kind == "reference":
        from mlcheck import reference

        if ref.name not in reference.NAMES:
            raise UsageError(
                f"there is no reference image {ref.name!r}.",
                f"There are: {', '.join(reference.NAMES)}.",
            )
    elif ref.kind == "directory":
        check_directory(ref)
    elif ref.kind != "registry" and not Path(ref.location).expanduser().exists():
        file, colon, name = ref.location.partition(":")
        if colon and Path(file).expanduser().exists():
            raise UsageError(
                f"{ref.text}: there is no {ref.location}.",
                f"There is {file}. mlcheck judges an archive of one image, and what it is expected "
                f"to be is said with --profile: {ref.kind}:{file} --profile "
                f"{name.rpartition('/')[2] or 'NAME:TAG'}",
            )
        raise UsageError(f"{ref.text}: there is no {ref.location}.")


def base(ref: ImageRef, name: str, engine_name: str) -> tuple[ImageRef, str]:
    """Return the image `name` of the same tag beside an image, and the engine that reads its files.

    "Beside" means: among the reference images, in the same directory (as on CVMFS), or under the
    same name of the registry.

    Raises:
        UsageError: such an image has none beside it.
    """
    full = f"{name}:{ref.tag}" if ref.tag else name
    match ref.kind:
        case "reference":
            return ImageRef.parse(f"reference:{full}"), reader(ref.kind) or engine_name
        case "directory":
            directory = Path(ref.location).expanduser().absolute().parent / full
            return ImageRef.parse(f"{directory}/"), reader(ref.kind) or engine_name
        case "registry" if not ref.digest:
            return ImageRef.parse(ref.location.removesuffix(ref.name) + full), engine_name
    raise UsageError(f"{ref.text} has no {full} beside it.")


@contextmanager
def prepare(
    ref: ImageRef,
    engine_name: str,
    *,
    pull: PullPolicy = "missing",
    progress: Progress = silent,
) -> Iterator[Prepared]:
    """Make an image ready for an engine; a reference image is built if it is not in the cache.

    Raises:
        UsageError, EngineError: as the engine's own `prepare`. Whatever else the engine raises is
            an EngineError here.
    """
    preparing = functools.partial(_prepare, ref, engine_name, pull, progress)
    with _entered(preparing, f"preparing {ref.text} for {engine_name}") as prepared:
        yield prepared


@contextmanager
def opened(prepared: Prepared, engine_name: str, *, start: Start = Start()) -> Iterator[OpenImage]:
    """Open an image that is ready.

    Raises:
        EngineError: as the engine's own `open`, or for whatever else the engine raises.
    """
    opening = functools.partial(engine(engine_name).open, prepared, start=start)
    with _entered(opening, f"opening {prepared.ref.text} by {engine_name}") as image:
        yield image


@contextmanager
def _entered(context: Callable[[], AbstractContextManager[T]], doing: str) -> Iterator[T]:
    """Enter an engine's context. What its body raises is not the engine's."""
    with ExitStack() as stack:
        with raising_only(EngineError, doing):
            value = stack.enter_context(context())
        yield value


@contextmanager
def _prepare(
    ref: ImageRef, engine_name: str, pull: PullPolicy, progress: Progress
) -> Iterator[Prepared]:
    chosen = engine(engine_name)
    if ref.place is not None and pull == "missing":
        pull = "always" if ref.place == "registry" else "never"
    if ref.kind != "reference":
        with contextlib.ExitStack() as stack:
            try:
                prepared = stack.enter_context(chosen.prepare(ref, pull=pull, progress=progress))
            except (UsageError, EngineError) as error:
                if hint := _directory_hint(ref):
                    raise type(error)(error.what, f"{hint}\n{error.remedy}".strip()) from error
                raise
            yield prepared
        return
    from mlcheck import reference

    directory = reference.build(ref.name, tag=ref.tag, progress=progress)
    if "directory" in installed.declaration(engine_name).opens:
        wanted = dataclasses.replace(ref, kind="directory", location=str(directory))
    else:
        wanted = _in_store(ref, directory, engine_name, progress)
    with chosen.prepare(wanted, pull="never", progress=progress) as prepared:
        yield dataclasses.replace(prepared, ref=ref)


def _in_store(ref: ImageRef, directory: Path, engine_name: str, progress: Progress) -> ImageRef:
    """Turn a built reference image into an image in an engine's store, which keeps it."""
    from mlcheck import reference

    chosen = engine(engine_name)
    # Its directory in the cache is named after everything that it was made from.
    stored = ImageRef.parse(f"localhost/mlcheck-reference/{ref.name}:{directory.parent.name}")
    try:
        with chosen.prepare(stored, pull="never"):
            pass
    except UsageError:
        with janitor.temporary_directory() as temporary:
            archive = temporary / "image.tar"
            progress(f"loading it into {engine_name}, once")
            reference.export_docker_archive(directory, archive)
            chosen.store.keep(archive, stored.text)
    return stored


@contextmanager
def open_image(
    ref: ImageRef,
    engine_name: str,
    *,
    pull: PullPolicy = "missing",
    start: Start = Start(),
    progress: Progress = silent,
) -> Iterator[OpenImage]:
    """Make an image ready and open it.

    Raises:
        UsageError, EngineError: as the engine's own `prepare` and `open`.
    """
    with (
        prepare(ref, engine_name, pull=pull, progress=progress) as prepared,
        opened(prepared, engine_name, start=start) as image,
    ):
        yield image
