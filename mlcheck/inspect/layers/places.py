"""Directories in which packages have their files, and those of their tests and examples."""

from __future__ import annotations

import re

SITE = re.compile(r"/(?:site|dist)-packages/")
"""Where Python's packages are installed."""

_TREES = re.compile(
    r"/(?:site-packages|dist-packages|node_modules|library|site-library|gems|perl5|perl|rustlib)/"
    r"|/lib/python[^/]*/|/go/(?:src|pkg)/|/share/doc/|/pkgs/"
    r"|^/usr/(?:share|lib|lib64|libexec|src)/"
)
"""Where packages have their files."""
_SHOWN = re.compile(
    r"(?:.*[-_.])?(?:tests?|testing|test-?data|t|docs?|examples?|demos?|fixtures?|samples?)"
    r"|tests?_\w+",
    re.IGNORECASE,
)
"""Directories of a package for its tests and examples."""


def is_shown(path: str) -> bool:
    """Return whether a file lies in a directory for tests, examples or documentation of a
    package."""
    tree = _TREES.search(path)
    if tree is None:
        return False
    below = path[tree.start() + 1 : path.rindex("/")].split("/")
    module = SITE.search(path)
    whole = path[module.end() :].partition("/")[0] if module else ""
    # `slapdtest` is a package for tests as a whole.
    return whole.endswith(("test", "tests")) or any(_SHOWN.fullmatch(name) for name in below)
