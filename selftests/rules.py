"""Rules of the suite, called with literal facts."""

from __future__ import annotations

import functools
from typing import Any

from mlcheck.inspect.rules import all_rules
from mlcheck.model.rule import Rule
from mlcheck.model.verdict import Verdict


@functools.cache
def rule(name: str) -> Rule:
    """The rule of that id."""
    return all_rules()[name]


def judge(name: str, *facts: Any) -> Verdict:
    """The verdict of a rule on these facts, in the order of its parameters."""
    return rule(name).check(*facts)
