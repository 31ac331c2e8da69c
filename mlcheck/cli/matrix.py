"""`mlcheck matrix`: print the published images and engines as a matrix of CI jobs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from mlcheck.cli import common
from mlcheck.engines import select
from mlcheck.model.errors import UsageError
from mlcheck.release import jobs
from mlcheck.release.jobs import Job
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
    form.add_argument(
        "--gitlab",
        metavar="FILE",
        help="as a child pipeline of GitLab's, for trigger: include: artifact; it includes FILE of "
        "your repository, a copy of mlcheck's ci/gitlab.yml",
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
    elif arguments.gitlab is not None:
        common.print_json(_pipeline(found, arguments.gitlab))
    elif arguments.json:
        common.print_json(_told(found))
    else:
        width = max(len(job.image) for job in found)
        for job in found:
            print(text.line(f"{job.image:{width}}  {job.engine}{'  GPU' * job.gpu}"))
    return 0


def _told(found: Sequence[Job]) -> dict[str, object]:
    return {"jobs": [asdict(job) for job in found]}


def _pipeline(found: Sequence[Job], file: str) -> dict[str, object]:
    """Return a pipeline of GitLab's, in JSON, which is YAML: a job each, and one that joins."""
    pipeline: dict[str, object] = {
        "include": [{"local": f"/{file.removeprefix('./').lstrip('/')}"}],
        "stages": ["check", "report"],
    }
    for job in found:
        pipeline[job.slug] = {
            "extends": ".mlcheck-gpu" if job.gpu else ".mlcheck",
            "stage": "check",
            "variables": {
                "MLCHECK_IMAGES": job.image,
                "MLCHECK_ENGINE": job.engine,
                # All artifacts are unpacked into one directory.
                "MLCHECK_REPORTS": f"mlcheck-reports/{job.slug}",
            },
        }
    pipeline["report"] = {
        "extends": ".mlcheck-report",
        "stage": "report",
        "variables": {"MLCHECK_JOBS": json.dumps(_told(found), separators=(",", ":"))},
    }
    return pipeline
