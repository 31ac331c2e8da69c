"""From an image reference to an open image: choose the engine, have the image ready, open it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlcheck.engines import janitor
from mlcheck.engines.base import Engine, OpenImage, Prepared, Progress, PullPolicy, Start, silent
from mlcheck.engines.sandbox import Sandbox, check_directory
from mlcheck.errors import EngineError, UsageError
from mlcheck.image import ImageRef, Kind

if TYPE_CHECKING:
    from mlcheck.engines.oci import Inspected

AUTO = "auto"

KINDS: dict[str, tuple[Kind, ...]] = {
    "docker": ("registry", "docker-archive", "reference"),
    "podman": ("registry", "docker-archive", "oci-archive", "oci", "reference"),
    "apptainer": (
        *("sif", "directory", "registry", "docker-archive", "oci-archive", "oci", "reference"),
    ),
    "singularity": (
        *("sif", "directory", "registry", "docker-archive", "oci-archive", "oci", "reference"),
    ),
    "sandbox": ("directory", "reference"),
    "archive": ("docker-archive", "oci-archive", "oci"),
}
"""Which images an engine opens."""

ENGINES = (AUTO, *KINDS)

PREFERRED: dict[Kind, tuple[str, ...]] = {
    "directory": ("sandbox", "apptainer", "singularity"),
    "reference": ("sandbox", "apptainer", "singularity", "docker", "podman"),
    "sif": ("apptainer", "singularity"),
    "registry": ("docker", "podman", "apptainer", "singularity"),
    "docker-archive": ("docker", "podman", "apptainer", "singularity", "archive"),
    "oci-archive": ("podman", "apptainer", "singularity", "archive"),
    "oci": ("podman", "apptainer", "singularity", "archive"),
}
"""What "auto" tries, in this order: first what needs the least of the machine, and what only reads
at the end."""

ONLY_READ = ("archive",)
"""Engines that start nothing."""

GIVE_GPUS = ("docker", "podman", "apptainer", "singularity")
"""Engines that can give a GPU to an image."""

STORES = ("docker", "podman")
"""Engines that keep images by name."""

_WHY: dict[Kind, str] = {
    "directory": "a directory needs no container engine",
    "reference": "a directory needs no container engine",
    "sif": "what runs SIF files",
}


class Choice(NamedTuple):
    """An engine for an image, and why it was chosen."""

    engine: str
    why: str


@functools.cache
def engine(name: str) -> Engine:
    """The engine of that name. Its module is imported now, and no sooner."""
    if name in ("docker", "podman"):
        from mlcheck.engines.oci import Oci
        from mlcheck.engines.oci_dialect import DOCKER, PODMAN

        return Oci(DOCKER if name == "docker" else PODMAN)
    if name in ("apptainer", "singularity"):
        from mlcheck.engines.apptainer import Apptainer

        return Apptainer("apptainer" if name == "apptainer" else "singularity")
    if name == "archive":
        from mlcheck.engines.archive import Archive

        return Archive()
    return Sandbox()


def choose(ref: ImageRef, wanted: Sequence[str] = (AUTO,)) -> list[Choice]:
    """The engines for an image.

    Args:
        wanted: names of ENGINES.

    Raises:
        UsageError: an engine does not open such images, or for "auto" none works here.
    """
    if ref.place in STORES:
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
    if ref.kind not in KINDS[name]:
        able = [other for other, kinds in KINDS.items() if ref.kind in kinds]
        raise UsageError(
            f"{ref.text!r} is an image of kind {ref.kind}, which {name} does not open.",
            f"These do: {', '.join(able)}.",
        )
    return Choice(name, "asked for")


def _has(name: str, ref: ImageRef) -> bool:
    """Whether an engine has an image in its store."""
    from mlcheck.engines.oci import Oci

    chosen = engine(name)
    return isinstance(chosen, Oci) and chosen.has(ref)


def names_in(store: str) -> frozenset[str]:
    """What the images of docker or podman are called; nothing where that engine cannot be used.

    In the form in which docker shows them: `NAME:TAG` for what was built here, `USER/NAME:TAG` of
    docker.io, `HOST/PATH:TAG`.
    """
    from mlcheck.engines.oci import Oci

    chosen = engine(store)
    assert isinstance(chosen, Oci)
    try:
        return chosen.names()
    except EngineError:
        return frozenset()


def stores_with(ref: ImageRef) -> list[str]:
    """Which of docker and podman have an image under just this name."""
    from mlcheck.engines.oci_images import name_of, plain_name

    if ref.digest is not None:
        return []
    name = plain_name(name_of(ref))
    return [store for store in STORES if name in names_in(store)]


def inspect(ref: ImageRef, store: str) -> Inspected | None:
    """What docker or podman says of an image; None: it has no such image.

    Raises:
        EngineError: the engine did not answer.
    """
    from mlcheck.engines.oci import Oci

    chosen = engine(store)
    assert isinstance(chosen, Oci)
    return chosen.inspect(ref)


def _automatic(ref: ImageRef) -> Choice:
    reasons: list[tuple[str, str]] = []
    first: Choice | None = None
    for name in PREFERRED[ref.kind]:
        if first is not None and name not in STORES:
            break
        reason = engine(name).unusable()
        if reason is not None:
            reasons.append((name, " ".join(reason.splitlines())))
            continue
        if ref.kind == "registry" and name in STORES and _has(name, ref):
            return Choice(name, "it has this image")
        if first is None:
            others = f"; not {', '.join(name for name, _ in reasons)}" if reasons else ""
            why = _WHY.get(ref.kind, "the first that works here")
            if name in ONLY_READ:
                why = "only the files can be judged: nothing here runs commands in them"
            first = Choice(name, why + others)
        if ref.kind != "registry":
            break
    if first is not None:
        return first
    if "sandbox" in PREFERRED[ref.kind]:
        return Choice("sandbox", "only the files can be judged: nothing here runs commands in them")
    hint = ""
    if ref.kind == "registry" and Path(ref.text).is_dir():
        hint = f"\nFor the directory of that name, write ./{ref.text}."
    listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons)
    raise UsageError(
        f"{ref.text!r} is an image of kind {ref.kind}, and nothing on this machine opens "
        f"those:\n{listed}{hint}",
        "`mlcheck doctor` says more.",
    )


def with_default_tag(ref: ImageRef) -> ImageRef:
    """A reference image without a tag gets the tag of this machine's Python."""
    if ref.kind == "reference" and ref.tag is None:
        from mlcheck import reference

        return dataclasses.replace(ref, tag=reference.default_tag(ref.name or ""))
    return ref


def check_exists(ref: ImageRef) -> None:
    """Find the user's mistakes that can be found at once.

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
    """The image `name` of the same tag beside an image, and the engine that reads its files.

    Beside it is: among the reference images, in the same directory (as CVMFS has them), or under
    the same name of the registry.

    Raises:
        UsageError: such an image has none beside it.
    """
    full = f"{name}:{ref.tag}" if ref.tag else name
    match ref.kind:
        case "reference":
            return ImageRef.parse(f"reference:{full}"), Sandbox.name
        case "directory":
            directory = Path(ref.location).expanduser().absolute().parent / full
            return ImageRef.parse(f"{directory}/"), Sandbox.name
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
    """Have an image ready for an engine; a reference image is built if it is not in the cache.

    Raises:
        UsageError, EngineError: as the engine's own `prepare`.
    """
    chosen = engine(engine_name)
    if ref.place is not None and pull == "missing":
        pull = "always" if ref.place == "registry" else "never"
    if ref.kind != "reference":
        with chosen.prepare(ref, pull=pull, progress=progress) as prepared:
            yield prepared
        return
    from mlcheck import reference

    directory = reference.build(ref.name, tag=ref.tag, progress=progress)
    if "directory" in KINDS[engine_name]:
        wanted = dataclasses.replace(ref, kind="directory", location=str(directory))
    else:
        wanted = _in_store(ref, directory, engine_name, progress)
    with chosen.prepare(wanted, pull="never", progress=progress) as prepared:
        yield dataclasses.replace(prepared, ref=ref)


def _in_store(ref: ImageRef, directory: Path, engine_name: str, progress: Progress) -> ImageRef:
    """A built reference image as an image of docker or podman, which keep it."""
    from mlcheck import reference
    from mlcheck.engines.oci import Oci

    chosen = engine(engine_name)
    assert isinstance(chosen, Oci)
    # Its directory in the cache is named after all that it was made from.
    stored = ImageRef.parse(f"localhost/mlcheck-reference/{ref.name}:{directory.parent.name}")
    try:
        with chosen.prepare(stored, pull="never"):
            pass
    except UsageError:
        with janitor.temporary_directory() as temporary:
            archive = temporary / "image.tar"
            progress(f"loading it into {engine_name}, once")
            reference.export_docker_archive(directory, archive)
            chosen.keep(archive, stored.text)
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
    """Have an image ready and open it.

    Raises:
        UsageError, EngineError: as the engine's own `prepare` and `open`.
    """
    with (
        prepare(ref, engine_name, pull=pull, progress=progress) as prepared,
        engine(engine_name).open(prepared, start=start) as image,
    ):
        yield image
