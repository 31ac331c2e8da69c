"""mlcheck's options for pytest, which are also those of `mlcheck check`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mlcheck.engines import select

TITLE = "mlcheck: which images, and what is expected of them"

FILES = {"--mlcheck-json": "mlcheck_json", "--html": "mlcheck_html"}
"""Options that write a report, and the names of their values."""


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
        help="judge this rule alone, by the name with which its failures begin; repeatable "
        "(`mlcheck explain` lists them all; default: every rule that the profile promises)",
    )
    option("--mlcheck-json", metavar="FILE", help="write a report of all findings as JSON")
    option(
        *(["--html"] if html else []),
        "--mlcheck-html",
        dest=FILES["--html"],
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
