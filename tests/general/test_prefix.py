"""The prefix, on which most rules rest."""

from __future__ import annotations

from mlcheck.checks import prefix
from mlcheck.facts import PromisedPrefix
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_prefix_is_there(
    prefix_found: PromisedPrefix | None, profile: Profile, judge: Judge
) -> None:
    judge(prefix.there(prefix_found, profile))
