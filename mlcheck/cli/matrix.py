"""`mlcheck matrix`: print the published images and engines as a matrix of CI jobs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from mlcheck.cli import common
from mlcheck.engines import select
from mlcheck.model.errors import UsageError
from mlcheck.release import jobs
from mlcheck.report import text

GITHUB_LIMIT = 256
"""Maximum jobs of a matrix.
https://docs.github.com/actions/reference/limits#existing-system-limits
"""


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
    catalog = common.catalog(arguments)
    found = list(jobs.published(catalog, arguments.patterns, engines or [select.AUTO]))
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
