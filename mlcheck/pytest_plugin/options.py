"""mlcheck's options for pytest, which are also those of `mlcheck check`."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcheck.engines import select
from mlcheck.model.errors import UsageError
from mlcheck.report import formats

if TYPE_CHECKING:
    import pytest

TITLE = "mlcheck: which images, and what is expected of them"

FILES = {"--mlcheck-json": "json", "--html": "html"}
"""Options that write a report of one format, and that format."""


@dataclass(frozen=True)
class Output:
    """A report that a run writes.

    Args:
        option: as the user wrote it, for messages.
        format: a name in `mlcheck.report.formats`.
        file: None: standard output.
    """

    option: str
    format: str
    file: Path | None


def outputs(config: pytest.Config) -> list[Output]:
    """Return the reports that a run was asked for.

    Raises:
        UsageError: there is no such format, or two reports would be written to one place.
    """
    directory = config.invocation_params.dir
    asked = [
        (f"{option} {value}", form, str(value))
        for option, form in FILES.items()
        if (value := config.getoption(f"mlcheck_{form}"))
    ]
    for value in config.getoption("--output"):
        form, _, name = str(value).partition("=")
        if form not in formats.FORMATS:
            near = difflib.get_close_matches(form, formats.FORMATS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"--output {value}: there is no format {form!r}.{hint}",
                f"Write FORMAT or FORMAT=FILE; formats are {', '.join(formats.FORMATS)}.",
            )
        asked.append((f"--output {value}", form, name or formats.STDOUT))
    found: dict[Path | None, Output] = {}
    for option, form, name in asked:
        file = None if name == formats.STDOUT else directory / name
        place = file and file.resolve()
        if place in found:
            where = "standard output" if file is None else name
            raise UsageError(
                f"{option}: {found[place].option} goes to {where} as well.",
                "Name another file: --output FORMAT=FILE",
            )
        found[place] = Output(option, form, file)
    return [*found.values()]


def add_limits(option: Callable[..., object]) -> None:
    """Add the options for the limits of the commands in an image."""
    option(
        "--limit-memory",
        metavar="SIZE",
        help="memory that the commands in an image may take together, as 8G or 500M (default: "
        "three quarters of this machine's)",
    )
    option(
        "--limit-processes",
        type=int,
        metavar="N",
        help="processes and threads that they may have together (default: 4096, and 256 for each "
        "CPU)",
    )


def add(option: Callable[..., object], *, html: bool = True) -> None:
    """Add the options.

    Args:
        option: adds one, as argparse's `add_argument` does.
        html: True if one of them is --html; otherwise --mlcheck-html alone is added.
    """
    option(
        "--image",
        action="append",
        default=[],
        metavar="IMAGE",
        help="image to judge; repeat for several. NAME[:TAG] or NAME@DIGEST of docker, podman or a "
        "registry, a directory (./X, /X), FILE.sif, docker-archive:FILE, oci:DIR, "
        "oci-archive:FILE or reference:NAME[:TAG]; the short name of a published image or all "
        "(`mlcheck images` lists them). Default of pytest: the reference images.",
    )
    option(
        "--engine",
        action=_Engines,
        default=[],
        metavar="ENGINE",
        help=f"what opens the images: {', '.join(select.engines())}; several, with commas or by "
        "repeating, run every test on each (default: auto, which says what it chose)",
    )
    option(
        "--pull",
        choices=("missing", "always", "never"),
        default="missing",
        help="when to fetch an image from its registry (default: missing, if it is not here)",
    )
    option(
        "--nv",
        choices=("auto", "always", "never"),
        default="never",
        metavar="auto|always|never",
        help="ask for NVIDIA GPUs: auto, where this machine has their driver. --nv alone is "
        "--nv=auto (default: never)",
    )
    option(
        "--require-gpu",
        action="store_true",
        help="for runners that promise a GPU: asks for one as --nv does, and a test that would be "
        "skipped for lack of it is an error",
    )
    option(
        "--profile",
        metavar="NAME[:TAG]",
        help="what to expect of the images; default: the name and tag of the image itself",
    )
    option(
        "--profiles",
        action="append",
        default=[],
        metavar="DIR",
        help="directory with folders of your own, each with an image.toml and tests; repeatable",
    )
    option(
        "--package-list",
        metavar="FILE",
        help="checked-in copy of the package list to compare the image's list with",
    )
    option(
        "--base-list",
        metavar="FILE",
        help="package list of the image that this one is built from, where that is not found "
        "beside it (default: NAME:TAG in the same directory, registry or engine)",
    )
    option(
        "--compare",
        metavar="IMAGE",
        help="another image that should hold the same as each --image, but for what [parity] in "
        "the profile allows (see also `mlcheck diff`)",
    )
    option(
        "--config-digest",
        action="append",
        default=[],
        metavar="[IMAGE=]sha256:...",
        help="digest of the published image's configuration, to compare with the directory that "
        "CVMFS has of it; repeat for several images",
    )
    option(
        "--bind",
        action="append",
        default=[],
        metavar="DIR:TARGET",
        help="a directory of this machine that commands in the images see at TARGET, read-only, "
        "where an image has a directory for it; repeatable (default: none)",
    )
    add_limits(option)
    option(
        "--network",
        action="store_true",
        help="let commands in the images use the network (default: none)",
    )
    option(
        "--no-cache",
        action="store_true",
        help="read every image anew, and keep nothing of it (see `mlcheck cache`)",
    )
    option(
        "--rule",
        action="append",
        default=[],
        metavar="RULE",
        help="judge this rule alone, by the name with which its failures begin, or by a pattern "
        "(layers-*); repeatable (`mlcheck explain` lists them all; default: every rule that the "
        "profile promises)",
    )
    option(
        "--skip-rule",
        action="append",
        default=[],
        metavar="RULE",
        help="leave this rule out, by its name or a pattern; repeatable. An image is then not said "
        "to conform: to accept a finding until a day, waive it",
    )
    option(
        "--fail-on",
        choices=("error", "warning"),
        default="error",
        help="warning: also fail for rules to which the profile gives this severity "
        "(default: error)",
    )
    option(
        "--waivers",
        action="append",
        default=[],
        metavar="FILE",
        help="more waivers than the profiles have, such as --write-waivers wrote; repeatable",
    )
    option(
        "--write-waivers",
        metavar="FILE",
        help="waive what fails in this run from the next one on, until the day of --until: add it "
        "to FILE, and take out what is no longer found",
    )
    option("--until", metavar="DATE", help="of --write-waivers: the last day, as in 2027-06-30")
    option("--reason", metavar="TEXT", help="of --write-waivers: why this is accepted")
    option(
        "--output",
        action="append",
        default=[],
        metavar="FORMAT[=FILE]",
        help=f"write a report: {', '.join(formats.FORMATS)}. Without FILE, or as -, on standard "
        "output, and all else on standard error; repeatable",
    )
    option(
        "--mlcheck-json",
        metavar="FILE",
        help="write a report of all findings as JSON, as --output json=FILE does",
    )
    option(
        *(["--html"] if html else []),
        "--mlcheck-html",
        dest="mlcheck_html",
        metavar="FILE",
        help="write a report as one page for a browser, which needs nothing else (--mlcheck-html "
        "where pytest-html is installed)",
    )


class _Engines(argparse.Action):
    """Names with commas between them, added to those before."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        names = [name.strip() for name in str(values).split(",")]
        for name in names:
            if name not in select.engines():
                known = ", ".join(select.engines())
                raise argparse.ArgumentError(self, f"there is no engine {name!r}; known: {known}")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), *names])
