"""Versions and dependencies of conda packages, compared with what rattler makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rattler import BuildString, PackageRecord, Version
from rattler import MatchSpec as RattlersSpec

from mlcheck.inspect.conda.match_spec import (
    CondaVersion,
    MatchSpec,
    NotUnderstood,
    glob_fits,
    version_fits,
)

VERSIONS = [
    *("1", "1.0", "1.0.0", "1.2", "1.2.3", "1.20", "1.2a1", "1.2.0a0", "1.2rc1", "1.2.rc1"),
    *("1.2.dev1", "1.2.post1", "1.2_1", "1.2.3_1", "1.2-3", "1!1.0", "1.2+cu1"),
    *("1.2.3+cu118.1", "3.11.7", "3.12.0", "3.12.0a0", "3.12.0rc3", "3.9", "2024a", "2024.1"),
    *("9e", "9d", "10a", "1.0.1_", "1.0.1a", "1.0.1", "0.5.2.20210801", "4.0a0", "20220623.0"),
    *("2.0b", "2.0.b1", "1.1dev1", "1.1dev", "1.1_", "dev", "a.b", "1.2.3.post303"),
]
CONDITIONS = [
    *("=1.2", "1.2", "==1.2", "1.2.*", "1.2*", "=1.2.*", "==1.2.*", "!=1.2", "!=1.2.*", "!=1.2*"),
    *(">=1.2", ">1.2", "<1.2", "<=1.2", ">=1.2,<2", ">=1.2,<2.0a0|3.12.*", "~=1.2.3", "~=1.2"),
    *("*", "=1", "1.*", "3.11.*", "=3.12", ">=3.11,<3.12.0a0", "(>=1,<2)|>3", ">=1.2.*", "<1.2.*"),
    *("2024a", "=2024", "2024", ">=2024", "<10a", ">=9e,<10a", "=1.2a", "1.2.post1", "=1.0.1"),
    *("1!1.*", "<4.0a0", "1.2.3.*", "=1.0.0", "~=1.2.0a0", "=9", "=dev", "<=1.2.*", "=1.2.3+cu118"),
    *("1.2+cu1", "~=3.11.2", ">=1.2|", "1.*.2", "==", "1..2", "a b"),
]
SPECS = [
    *("a", "A", "a 1.2", "a =1.2", "a=1.2", "a==1.2", "a=1.2=h_0", "a 1.2 h_0", "a 1.2 h_*"),
    *("a 1.2 *_0", "a * *_cp311", "a =1.2 h_0", "a =1.2 *_0", "a=1.2.*", "a=1.2.*=h_0", "a >= 1.2"),
    *("a >= 1.2, <2", "a >=1.2,<2 h_0", "a >=1.2 , <2 x*", "conda-forge::a 1.2", "a 1.2|1.3"),
    *("a[version='>=1.2']", "a[version='>=1.2',build='h*']", "a[version=1.2]", "a[build=h_0]"),
    *("a 1.2[build=x]", "a>=1.2", "a>=1.2,<2", "a 1.2 | 1.3", "a 1.2.* h*0*", "a ==1.2 h_0"),
    *("conda-forge/linux-64::a", "a!=1.2", "a~=1.2.0", "a <2", "a ~=1.2.3 h*", "a 1.2 # comment"),
    *("a *", "a * *", "a = 1.2", "a == 1.2", "a 3.11.* *_cp311", "a 3.11.* *_cp312"),
]


def of_rattler(spec: str, version: str, build: str = "h_0") -> bool | None:
    """What rattler says; None if the dependency is none for it."""
    package = PackageRecord(
        name="a",
        version=version,
        build=BuildString(build),
        build_number=0,
        subdir="linux-64",
        arch=None,
        platform=None,
    )
    try:
        return RattlersSpec(spec, strict=False).matches(package)
    except Exception:  # rattler has one class of error for each of its parsers
        return None


def own(spec: str, version: str, build: str = "h_0") -> bool | None:
    try:
        return MatchSpec.of(spec).fits(version, build)
    except NotUnderstood:
        return None


@pytest.mark.parametrize("version", VERSIONS)
def test_order_of_versions_compared_with_rattler(version: str) -> None:
    one, ours = Version(version), CondaVersion.of(version)
    for text in VERSIONS:
        other = Version(text)
        assert ours.compared(CondaVersion.of(text)) == (one > other) - (one < other), text


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_compared_with_rattler(condition: str) -> None:
    for version in VERSIONS:
        spec = f"a {condition}"
        assert own(spec, version) == of_rattler(spec, version), version


@pytest.mark.parametrize("spec", SPECS)
def test_dependencies_compared_with_rattler(spec: str) -> None:
    for version in ("1.2", "1.2.3", "1.3", "3.11", "1.20"):
        for build in ("h_0", "x_1", "0_cp311", "hxx0y"):
            assert own(spec, version, build) == of_rattler(spec, version, build), (version, build)


NUMBERS = st.lists(
    st.sampled_from(["0", "1", "2", "10", "3a", "1rc1", "0a0", "dev", "post2", "2b", "a"]),
    min_size=1,
    max_size=4,
).map(".".join)


@settings(max_examples=300, deadline=None)
@given(NUMBERS, st.sampled_from(["", "==", "!=", "<", "<=", ">", ">="]), NUMBERS)
def test_any_version_and_condition_compared_with_rattler(one: str, sign: str, other: str) -> None:
    spec = f"a {sign}{other}"
    assert own(spec, one) == of_rattler(spec, one)


@settings(max_examples=100)
@given(st.text("a 1.*=<>!~|,()[]'^$+-_", max_size=20))
def test_no_dependency_raises_anything_else(text: str) -> None:
    own(text, "1.2")


@pytest.mark.parametrize(
    "spec",
    ["", "=1", "a[md5=0]", "a ^1.*$", "a * ^h.*$", "a 1 b c", f"a {'9' * 100}", "a" * 10_000],
)
def test_what_is_not_understood_is_said(spec: str) -> None:
    with pytest.raises(NotUnderstood):
        MatchSpec.of(spec).fits("1.0", "h_0")


def test_deep_parentheses_are_not_followed() -> None:
    with pytest.raises(NotUnderstood):
        version_fits("1.0", "(" * 1000 + "1.0" + ")" * 1000)


@pytest.mark.parametrize(
    ("text", "pattern", "fits"),
    [
        ("py311_0", "py311*", True),
        ("py311_0", "*_0", True),
        ("aXbXc", "a*b*c", True),
        ("ab", "a*b*b", False),
        ("a", "a*a", False),
        ("a.c", "a?c", False),
        ("", "*", True),
        ("x" * 5000, "x*" * 500 + "y", False),
    ],
)
def test_patterns_of_builds(text: str, pattern: str, fits: bool) -> None:
    assert glob_fits(text, pattern) is fits
