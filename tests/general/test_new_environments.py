"""Environments of the user's own on top of the image's."""

from __future__ import annotations

import pytest

from mlcheck.checks import newenv
from mlcheck.facts import EnvArchive, NewEnv
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_archive_of_links(
    environment_archive: EnvArchive | None, profile: Profile, judge: Judge
) -> None:
    judge(newenv.archive(environment_archive, profile))


@pytest.mark.slow
def test_environment_is_made(
    new_environment: NewEnv | None, profile: Profile, judge: Judge
) -> None:
    judge(newenv.created(new_environment, profile))


@pytest.mark.slow
def test_environment_is_one_of_python(
    new_environment: NewEnv | None, profile: Profile, judge: Judge
) -> None:
    judge(newenv.pyvenv(new_environment, profile))


@pytest.mark.slow
def test_own_packages_come_first(
    new_environment: NewEnv | None, profile: Profile, judge: Judge
) -> None:
    judge(newenv.path(new_environment, profile))


@pytest.mark.slow
def test_environment_is_entered_again(
    new_environment: NewEnv | None, profile: Profile, judge: Judge
) -> None:
    judge(newenv.reuse(new_environment, profile))


@pytest.mark.slow
def test_usage(new_environment: NewEnv | None, profile: Profile, judge: Judge) -> None:
    judge(newenv.usage(new_environment, profile))


@pytest.mark.slow
def test_executed_it_ends(new_environment: NewEnv | None, profile: Profile, judge: Judge) -> None:
    judge(newenv.executed(new_environment, profile))
