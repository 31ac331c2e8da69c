"""`mlcheck matrix`: print the published images and engines as a matrix of CI jobs."""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from mlcheck.cli import common
from mlcheck.engines import select
from mlcheck.model.errors import UsageError
from mlcheck.profile.catalog import Catalog
from mlcheck.profile.published import Published
from mlcheck.report import text

GITHUB_LIMIT = 256
"""Maximum jobs of a matrix.
https://docs.github.com/actions/reference/limits#existing-system-limits
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One image on one engine.

    Args:
        image: name that `mlcheck check` accepts.
        reference: reference in its registry.
        gpu: whether the image is made for a GPU, so that the job needs a runner with one.
        slug: image and engine as a name for files and artifacts.
    """

    image: str
    name: str
    tag: str
    reference: str
    engine: str
    gpu: bool
    slug: str


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `matrix`."""
    parser = commands.add_parser(
        "matrix",
        help="print images and engines as a matrix of CI jobs",
        description="Print the published images of the profiles, each on every engine: the jobs of "
        "a release validation. No network is used.",
        epilog="examples:\n"
        "  mlcheck matrix\n"
        "  mlcheck matrix 'ml-*:alma9-*' --engine docker,podman --json\n"
        '  mlcheck matrix --profiles profiles --github >>"$GITHUB_OUTPUT"\n'
        "docs/ci.md has a whole workflow.",
    )
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="only images that match one of these: NAME or NAME:TAG with * and ? (default: all)",
    )
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="ENGINE",
        help=f"{', '.join(select.engines())}; separate several by commas or repeat (default: auto)",
    )
    common.add_profiles(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--github",
        action="store_true",
        help="one line matrix={...} for $GITHUB_OUTPUT; the job has strategy.matrix: "
        "${{ fromJSON(needs.JOB.outputs.matrix) }}",
    )
    form.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the jobs."""
    engines = list(dict.fromkeys(",".join(arguments.engine).split(","))) if arguments.engine else []
    found = list(jobs(common.catalog(arguments), arguments.patterns, engines or [select.AUTO]))
    if arguments.github:
        if len(found) > GITHUB_LIMIT:
            raise UsageError(
                f"{len(found)} jobs: GitHub takes no more than {GITHUB_LIMIT} in a matrix.",
                "Name fewer images with patterns, or one engine for each matrix.",
            )
        told = {"include": [asdict(job) for job in found]}
        print(f"matrix={json.dumps(told, separators=(',', ':'))}")
    elif arguments.json:
        common.print_json({"jobs": [asdict(job) for job in found]})
    else:
        width = max(len(job.image) for job in found)
        for job in found:
            print(text.line(f"{job.image:{width}}  {job.engine}{'  GPU' * job.gpu}"))
    return 0


def jobs(catalog: Catalog, patterns: Sequence[str], engines: Sequence[str]) -> Iterator[Job]:
    """Yield each published image that a pattern matches, on each engine.

    Raises:
        UsageError: there is no such engine, or a pattern matches no image: GitHub refuses an
            empty matrix, and a mistyped pattern would validate nothing.
    """
    for engine in engines:
        if engine not in select.engines():
            known = ", ".join(select.engines())
            raise UsageError(f"--engine: there is no engine {engine!r}.", f"Known are: {known}.")
    images = Published(catalog).images
    for pattern in patterns:
        if not any(_matches(image.name, image.tag, pattern) for image in images):
            raise UsageError(
                f"{pattern!r} names no published image.", "`mlcheck images` lists them."
            )
    for image in images:
        if patterns and not any(_matches(image.name, image.tag, one) for one in patterns):
            continue
        framework = catalog.load(image.name, image.tag).expect.framework
        gpu = framework is not None and bool(framework.cuda)
        for engine in engines:
            slug = re.sub(r"[^A-Za-z0-9._-]", "-", f"{image.short}-{engine}")
            yield Job(image.short, image.name, image.tag, image.registry, engine, gpu, slug)


def _matches(name: str, tag: str, pattern: str) -> bool:
    whole = pattern if ":" in pattern else f"{pattern}:*"
    return fnmatch.fnmatchcase(f"{name}:{tag}", whole)
