"""The prefix, on which most other rules rest."""

from __future__ import annotations

import difflib

from mlcheck.facts import PrefixKind, PromisedPrefix
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, Verdict

THERE = Rule(
    "prefix-there",
    "The image has an environment at the prefix: conda's, a virtual one, or a Python.",
    "Correct `prefix` in the image.toml to where the image has its environment, or create the "
    "environment there in the image's build.",
    "Most rules are about what is in the prefix. Where it is missing or misspelt they have nothing "
    "to look at, and say so instead of failing for reasons that are none "
    "(what makes a directory an environment: https://peps.python.org/pep-0405/, and conda-meta).",
    keys=("prefix",),
)

NAMES: dict[PrefixKind, str] = {
    "conda": "a conda environment",
    "venv": "a virtual environment",
    "python": "a Python",
    "system": "the system's Python",
    "packages": "Python packages without a Python",
}

_MOST = 20
"""Environments that are named."""


def there(fact: PromisedPrefix | None, profile: Profile) -> Verdict:
    """The prefix is an environment; else what the image has instead."""
    if fact is None:
        return THERE.skipped("the profile names no prefix")
    if fact.kind is not None:
        return THERE.judged(1, notes=[f"{fact.path} is {NAMES[fact.kind]}"])
    others = {other.path: other.kind for other in fact.others}
    most = min(_MOST, len(others)) or 1
    like = difflib.get_close_matches(fact.path, others, most, 0.0)  # the likeliest first
    listed = ", ".join(f"{path} ({NAMES[others[path]]})" for path in like)
    found = f"{fact.problem}; the image has {listed or 'no environment anywhere'}"
    show = ShowFile("ls -la" if fact.filled else "ls -ld", fact.path)
    expected = "an environment: conda's, a virtual one, or a Python"
    finding = Finding(fact.path, found, expected, profile.source("prefix"), show)
    return THERE.judged(1, [finding])


def missing(fact: PromisedPrefix) -> str:
    """Why a rule about what is in the prefix is skipped, where there is nothing."""
    return f"{fact.path} {fact.problem} (see {THERE.check})"
