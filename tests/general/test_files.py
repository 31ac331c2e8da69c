"""Promised files, the configuration, the entrypoint, and scripts."""

from __future__ import annotations

from mlcheck.checks import files
from mlcheck.facts import Deployment, EntrypointRuns, Environment, Files, Scripts
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_files_are_there(
    promised_files: Files, profile: Profile, deployment: Deployment | None, judge: Judge
) -> None:
    judge(files.files(promised_files, profile, deployment))


def test_environment_is_set(environment: Environment, profile: Profile, judge: Judge) -> None:
    judge(files.environment(environment, profile))


def test_entrypoint_can_start(
    environment: Environment, promised_files: Files, profile: Profile, judge: Judge
) -> None:
    expected = profile.expect.entrypoint
    script = promised_files.files.get(expected.argv[0]) if expected else None
    judge(files.entrypoint(environment, script, profile))


def test_entrypoint_runs_its_command(
    entrypoint_runs: EntrypointRuns | None, profile: Profile, judge: Judge
) -> None:
    judge(files.entrypoint_command(entrypoint_runs, profile))


def test_scripts_have_their_interpreter(scripts: Scripts, profile: Profile, judge: Judge) -> None:
    judge(files.shebangs(scripts, profile))
