"""What the layers of the image cost, and what must be in none of them."""

from __future__ import annotations

from mlcheck.checks import layers as checks
from mlcheck.facts import Layers
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_size_of_all_layers(layers: Layers | None, profile: Profile, judge: Judge) -> None:
    judge(checks.size(layers, profile))


def test_nothing_is_stored_twice(layers: Layers | None, profile: Profile, judge: Judge) -> None:
    judge(checks.permissions(layers, profile))


def test_nothing_is_deleted_later(layers: Layers | None, profile: Profile, judge: Judge) -> None:
    judge(checks.deleted(layers, profile))


def test_no_package_cache(layers: Layers | None, profile: Profile, judge: Judge) -> None:
    judge(checks.caches(layers, profile))


def test_no_secret(layers: Layers | None, profile: Profile, judge: Judge) -> None:
    judge(checks.secrets(layers, profile))
