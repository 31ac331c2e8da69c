"""Rules as tests: a function with `@rule` is collected for each image whose profile promises it,
gets facts by the types of its parameters, and its verdict becomes the outcome of the test."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import pytest

from mlcheck.inspect.facts import Facts
from mlcheck.inspect.registry import needs_of
from mlcheck.inspect.rules import all_rules, is_about, promises, unknown
from mlcheck.model.errors import NotApplicable
from mlcheck.model.rule import Rule, registered, rule_of
from mlcheck.profile.schema.keys import meaning
from mlcheck.pytest_plugin.outcome import Judge
from mlcheck.pytest_plugin.run import RUN, Target


def _a_rule(
    mlcheck_target: Target, facts: Facts, judge: Judge, request: pytest.FixtureRequest
) -> None:
    """The fixtures of every rule."""


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Item | pytest.Collector] | None:
    """Collect a rule with the fixtures of every rule in place of its parameters."""
    rule = rule_of(obj)
    if rule is None:
        return None
    if wrong := [key for key in (*rule.keys, *rule.also) if meaning(key) is None]:
        raise collector.CollectError(
            f"rule {rule.id!r}: an image.toml has no key {wrong[0]!r}, so the rule would never be "
            "judged (`mlcheck schema image` lists the keys)"
        )
    about = [
        target for target in collector.config.stash[RUN].targets if is_about(rule, target.profile)
    ]
    without = [target for target in about if not promises(target.profile, rule)]
    for target in without:
        left = collector.config.stash.setdefault(NOT_PROMISED, {})
        left.setdefault(target.id, []).append(f"{collector.nodeid}::{name}")
    if len(without) == len(about):
        return []
    items: list[pytest.Item | pytest.Collector] = collector.ihook.pytest_pycollect_makeitem(
        collector=collector, name=name, obj=_a_rule
    )
    for item in items:
        assert isinstance(item, pytest.Item)
        item.stash[RULE] = rule
        item.extra_keyword_matches.add(rule.id)
        if rule.slow:
            item.add_marker(pytest.mark.slow)
    return items


NOT_PROMISED = pytest.StashKey[dict[str, list[str]]]()
"""The rules of each image's folders that its profile does not promise."""

RULE = pytest.StashKey[Rule]()
"""Rule of a test, in the test's stash."""


def rule_named(definition: pytest.Function) -> Rule | None:
    """Return the rule of a function while its items are made, or None if it is no rule."""
    parent = definition.parent
    assert isinstance(parent, (pytest.Module, pytest.Class))
    return rule_of(getattr(parent.obj, definition.name, None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that are no rule of --rule, and the rules of --skip-rule."""
    chosen: list[str] = config.getoption("--rule")
    skipped: list[str] = config.getoption("--skip-rule")
    if not chosen and not skipped:
        return
    there = {item.stash[RULE].id for item in items if RULE in item.stash}
    known = {*there, *all_rules(), *registered()}
    for option, patterns in (("--rule", chosen), ("--skip-rule", skipped)):
        for pattern in patterns:
            if not fnmatch.filter(known, pattern):
                what, remedy = unknown(pattern)
                raise pytest.UsageError(f"{option} {pattern}: {what}\n{remedy}")
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        name = item.stash[RULE].id if RULE in item.stash else ""
        wanted = not chosen or (name and _fits(name, chosen))
        (kept if wanted and not _fits(name, skipped) else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Find the facts of a rule, and judge by them."""
    rule = pyfuncitem.stash.get(RULE, None)
    if rule is None:
        return None
    facts, judge = pyfuncitem.funcargs["facts"], pyfuncitem.funcargs["judge"]
    assert isinstance(facts, Facts)
    assert isinstance(judge, Judge)
    request = pyfuncitem.funcargs["request"]
    assert isinstance(request, pytest.FixtureRequest)
    try:
        given = facts.needs(rule.check)
        fixtures = [name for name in needs_of(rule.check) if name not in (*given, "return")]
        given |= {name: request.getfixturevalue(name) for name in fixtures}
    except NotApplicable as reason:
        pytest.skip(str(reason))
    judge(rule, rule.check(**given))
    return True


def begin(facts: Facts, session: pytest.Session, target: Target) -> None:
    """Begin to find the facts that the session's rules about an image need."""
    wanted = {
        kind
        for item in session.items
        if RULE in item.stash
        and isinstance(item, pytest.Function)
        and item.callspec.params.get("mlcheck_target") is target
        for kind in needs_of(item.stash[RULE].check).values()
    }
    facts.start(wanted)
