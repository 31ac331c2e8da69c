"""The list of jobs of a release, each one image on one engine, and the order in which they start.

`mlcheck matrix` prints this list for a CI, and `mlcheck release` has its jobs judged.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlcheck.engines import installed, select
from mlcheck.engines.resolve import understood
from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import Catalog
from mlcheck.profile.published import ALL, Published, PublishedImage

ALL_REFERENCES = "all-references"
"""Name for all reference images."""

_LONGEST_SLUG = 120
"""Characters of the name of a file, without the rest that a directory of a user's adds."""

_FILES = ("sif", "docker-archive", "oci-archive")
_PATHS = ("directory", "oci", *_FILES)


@dataclass(frozen=True, slots=True)
class Job:
    """One image on one engine.

    Args:
        image: name that `mlcheck check` accepts; a path is absolute.
        reference: reference in its registry; the name itself if it is no published image.
        gpu: whether the image is made for a GPU, so that the job needs a machine with one.
        slug: image and engine as a name for files and artifacts.
    """

    image: str
    name: str
    tag: str
    reference: str
    engine: str
    gpu: bool
    slug: str


def published(catalog: Catalog, patterns: Sequence[str], engines: Sequence[str]) -> Iterator[Job]:
    """Yield each published image that a pattern matches, on each engine.

    Args:
        patterns: NAME or NAME:TAG with * and ?; none: all images.
        engines: of `select.engines`.

    Raises:
        UsageError: there is no such engine, or a pattern matches no image: GitHub refuses an
            empty matrix, and a mistyped pattern would validate nothing.
    """
    check_engines(engines)
    images = Published(catalog).images
    for pattern in patterns:
        if not any(_matches(image, pattern) for image in images):
            raise UsageError(
                f"{pattern!r} names no published image.", "`mlcheck images` lists them."
            )
    for image in images:
        if not patterns or any(_matches(image, pattern) for pattern in patterns):
            gpu = _for_gpu(catalog, image.name, image.tag)
            for engine in engines:
                slug = _slug(image.short, engine)
                yield Job(image.short, image.name, image.tag, image.registry, engine, gpu, slug)


def of_images(
    catalog: Catalog, texts: Sequence[str], engines: Sequence[str], profile: str | None = None
) -> list[Job]:
    """Return the jobs of images as `mlcheck check` takes them, each once.

    Nothing is looked for: an image may be on the machines that judge it, and not on this one.

    Args:
        texts: image references, patterns of published images, `all` and `all-references`.
        engines: of `select.engines`.
        profile: NAME[:TAG] that every image is judged by; None: its own.

    Raises:
        UsageError: a text is no image, a pattern matches none, an engine does not open it, or its
            profile is invalid.
    """
    check_engines(engines)
    found: dict[tuple[str, str], Job] = {}
    for text in texts:
        for job in _of_text(catalog, text, engines, profile):
            found.setdefault((job.image, job.engine), job)
    jobs: list[Job] = []
    slugs: set[str] = set()
    for job in found.values():
        # Paths whose last parts are alike, or what no file's name may have.
        slug, number = job.slug, 2
        while slug in slugs:
            slug, number = f"{number}-{job.slug}", number + 1
        slugs.add(slug)
        jobs.append(replace(job, slug=slug))
    return jobs


def read(file: Path) -> list[Job]:
    """Read a list of jobs, as `mlcheck matrix` prints it with --json or for GitHub.

    Raises:
        UsageError: the file cannot be read, or is none.
    """
    remedy = "It is what `mlcheck matrix --json` printed, or the matrix of a job on GitHub."
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        jobs = [Job(**job) for job in data["jobs" if "jobs" in data else "include"]]
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}.", remedy) from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{file}: no list of jobs.", remedy) from None
    if not jobs:
        raise UsageError(f"{file}: a list without a job.", remedy)
    return jobs


def check_engines(engines: Sequence[str]) -> None:
    """Refuse names that are no engines.

    Raises:
        UsageError: there is no such engine.
    """
    for engine in engines:
        if engine not in select.engines():
            known = ", ".join(select.engines())
            raise UsageError(f"--engine: there is no engine {engine!r}.", f"Known are: {known}.")


def longest_first(jobs: Sequence[Job], seconds: Mapping[tuple[str, str], float]) -> list[Job]:
    """Order jobs so that the longest start first: begun last, one of them would be waited for.

    A job that nothing is known of goes before those whose time is known, the one with the largest
    file first: it may be the longest, and known times say what can wait.

    Args:
        seconds: of earlier releases, by image and engine.
    """

    def key(job: Job) -> tuple[float, int]:
        return -seconds.get((job.image, job.engine), float("inf")), -_size(job)

    return sorted(jobs, key=key)


def _of_text(
    catalog: Catalog, text: str, engines: Sequence[str], profile: str | None
) -> Iterator[Job]:
    if text == ALL:
        yield from published(catalog, [], engines)
        return
    if text == ALL_REFERENCES:
        from mlcheck import reference

        for name in reference.NAMES:
            yield from _of_text(catalog, f"reference:{name}", engines, profile)
        return
    if re.search(r"[*?]", text) and "/" not in text:
        yield from published(catalog, [text], engines)
        return
    ref = absolute(select.with_default_tag(understood(text)))
    image = None
    short = ref.kind == "registry" and ref.place is None and "/" not in ref.location
    if short and ref.digest is None:
        image = Published(catalog).find(ref.name, ref.tag)
    name, _, tag = (profile or "").partition(":")
    gpu = _for_gpu(catalog, name or ref.name, (tag or None) if name else ref.tag)
    for engine in engines:
        if engine != select.AUTO and ref.kind not in installed.declaration(engine).opens:
            able = [
                one for one, known in installed.declarations().items() if ref.kind in known.opens
            ]
            raise UsageError(
                f"{text!r} is an image of kind {ref.kind}, which {engine} does not open.",
                f"These do: {', '.join(able)}.",
            )
        reference_ = image.registry if image else ref.text
        slug = _slug(ref.label if ref.kind in _PATHS else ref.text, engine)
        yield Job(ref.text, ref.name, ref.tag or "", reference_, engine, gpu, slug)


def absolute(ref: ImageRef) -> ImageRef:
    """Return the same reference as it is written in any other directory."""
    if ref.kind in ("registry", "reference"):
        return ref
    path = os.path.abspath(os.path.expanduser(ref.location))  # noqa: PTH100, PTH111 - no links
    return ImageRef.parse(path if ref.kind in ("directory", "sif") else f"{ref.kind}:{path}")


def _for_gpu(catalog: Catalog, name: str, tag: str | None) -> bool:
    if catalog.name_of(name) is None:
        return False  # judged by what holds for every image
    framework = catalog.load(name, tag).expect.framework
    return framework is not None and bool(framework.cuda)


def _matches(image: PublishedImage, pattern: str) -> bool:
    whole = pattern if ":" in pattern else f"{pattern}:*"
    return fnmatch.fnmatchcase(f"{image.name}:{image.tag}", whole)


def _slug(image: str, engine: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._-]", "-", image).lstrip(".-")
    if len(slug) > _LONGEST_SLUG:
        digest = hashlib.sha256(image.encode(errors="surrogateescape")).hexdigest()[:12]
        slug = f"{digest}-{slug[-_LONGEST_SLUG:]}"
    return f"{slug}-{engine}"


def _size(job: Job) -> int:
    """Return the bytes of an image that is one file on this machine; 0 for any other."""
    ref = ImageRef.parse(job.image)
    try:
        return Path(ref.location).stat().st_size if ref.kind in _FILES else 0
    except OSError:
        return 0
