"""Images that serve: their user, their server, and what is installed for users."""

from __future__ import annotations

import pytest

from mlcheck.checks import serving
from mlcheck.facts import (
    Accounts,
    Agreements,
    Environment,
    Programs,
    ReadFiles,
    Started,
    Writability,
)
from mlcheck.judge import Judge
from mlcheck.profile import Profile


@pytest.mark.slow
def test_server_starts_under_its_prefix(
    started_server: Started, environment: Environment, profile: Profile, judge: Judge
) -> None:
    judge(serving.starts(started_server, environment, profile))


@pytest.mark.slow
def test_server_turns_healthy(
    started_server: Started, environment: Environment, profile: Profile, judge: Judge
) -> None:
    judge(serving.health(started_server, environment, profile))


@pytest.mark.slow
def test_server_starts_for_any_user(
    started_as_anybody: Started | None, profile: Profile, judge: Judge
) -> None:
    judge(serving.any_user(started_as_anybody, profile))


@pytest.mark.slow
def test_server_user_installs_packages(
    started_server: Started, profile: Profile, judge: Judge
) -> None:
    judge(serving.installs(started_server, profile))


def test_user_is_not_root(
    accounts: Accounts, environment: Environment, profile: Profile, judge: Judge
) -> None:
    judge(serving.user(accounts, environment, profile))


def test_user_can_write(user_writability: Writability, profile: Profile, judge: Judge) -> None:
    judge(serving.writable(user_writability, profile))


def test_programs_are_executable(
    installed_programs: Programs, profile: Profile, judge: Judge
) -> None:
    judge(serving.executable(installed_programs, profile))


def test_wrappers_find_their_programs(
    installed_programs: Programs, profile: Profile, judge: Judge
) -> None:
    judge(serving.wrappers(installed_programs, profile))


def test_start_script_reads_what_is_there(
    start_reads: ReadFiles, profile: Profile, judge: Judge
) -> None:
    judge(serving.start_files(start_reads, profile))


def test_files_agree(agreed: Agreements, profile: Profile, judge: Judge) -> None:
    judge(serving.agreements(agreed, profile))
