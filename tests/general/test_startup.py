"""How the image starts: configuration, entrypoint, banner."""

from __future__ import annotations

from mlcheck.checks import startup
from mlcheck.facts import Banner, EntrypointRuns, Environment, ResolvedFile
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_environment_is_set(environment: Environment, profile: Profile, judge: Judge) -> None:
    judge(startup.environment(environment, profile))


def test_entrypoint_can_start(
    environment: Environment,
    entrypoint_program: ResolvedFile | None,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(startup.entrypoint(environment, entrypoint_program, profile))


def test_entrypoint_runs_its_command(
    entrypoint_runs: EntrypointRuns | None, profile: Profile, judge: Judge
) -> None:
    judge(startup.entrypoint_command(entrypoint_runs, profile))


def test_configuration_is_as_promised(
    environment: Environment, profile: Profile, judge: Judge
) -> None:
    judge(startup.configuration(environment, profile))


def test_banner_tells_the_truth(
    entrypoint_runs: EntrypointRuns | None, banner: Banner | None, profile: Profile, judge: Judge
) -> None:
    judge(startup.banner(entrypoint_runs, banner, profile))


def test_entrypoint_activates_as_promised(
    entrypoint_runs: EntrypointRuns | None, profile: Profile, judge: Judge
) -> None:
    judge(startup.activation(entrypoint_runs, profile))
