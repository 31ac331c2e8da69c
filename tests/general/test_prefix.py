"""The prefix, on which most rules depend."""

from __future__ import annotations

import difflib

from mlcheck.inspect.prefix.facts import NAMES, PromisedPrefix
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, Verdict, judged
from mlcheck.profile.catalog import Profile

_MOST = 20
"""Environments that are named."""


@rule("prefix-there", keys=["prefix"])
def test_prefix_there(prefix: PromisedPrefix, profile: Profile) -> Verdict:
    """The image has an environment at the prefix: conda's, a virtual one, or a Python.

    Why: Most rules are about what is in the prefix. Where it is missing or misspelt they have
    nothing to look at, and say so instead of failing for reasons that are none (what makes a
    directory an environment: https://peps.python.org/pep-0405/, and conda-meta).

    Fix: Correct `prefix` in the image.toml to where the image has its environment, or create the
    environment there in the image's build.
    """
    if prefix.kind is not None:
        return judged(1, notes=[f"{prefix.path} is {NAMES[prefix.kind]}"])
    others = {other.path: other.kind for other in prefix.others}
    most = min(_MOST, len(others)) or 1
    like = difflib.get_close_matches(prefix.path, others, most, 0.0)  # the likeliest first
    listed = ", ".join(f"{path} ({NAMES[others[path]]})" for path in like)
    found = f"{prefix.problem}; the image has {listed or 'no environment anywhere'}"
    show = ShowFile("ls -la" if prefix.filled else "ls -ld", prefix.path)
    expected = "an environment: conda's, a virtual one, or a Python"
    finding = Finding(prefix.path, found, expected, profile.source("prefix"), show)
    return judged(1, [finding])
