"""Keep pytest from treating an image as a directory of tests.

Before pytest knows our options, it treats DIR in `--image DIR` as a directory of tests: it looks
there for its configuration, which can name Python code to load, and so an image with a
`pytest.ini` would run code on the host. `--image=DIR` is one word and has no such effect. pytest
reads its configuration before it loads any plugin or conftest.py, so nothing of pytest's can do
this in time: `mlcheck.pth` does when Python starts. Only a clone has that file, where bare pytest
judges images; `mlcheck check` joins the words itself.
https://docs.pytest.org/en/stable/reference/customize.html#finding-the-rootdir
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

PATH_OPTIONS = (
    "--image",
    "--compare",
    "--profiles",
    "--package-list",
    "--base-list",
    "--waivers",
    "--write-waivers",
    "--output",
    "--mlcheck-json",
    "--mlcheck-html",
    "--html",
)


def joined(argv: Sequence[str]) -> Iterator[str]:
    """Yield the arguments with each of our path options and its value as one word.

    `--nv` alone gets its value, so that it cannot take the next argument for one.
    """
    words = iter(argv)
    for word in words:
        if word == "--nv":
            yield "--nv=auto"
            continue
        value = next(words, None) if word in PATH_OPTIONS else None
        yield word if value is None else f"{word}={value}"


def _starts_pytest() -> bool:
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 - runs at every start of Python
    return name in ("pytest", "py.test") or sys.orig_argv[1:3] == ["-m", "pytest"]


if len(sys.argv) > 2 and _starts_pytest():
    sys.argv[1:] = joined(sys.argv[1:])
