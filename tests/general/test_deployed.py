"""Images that are deployed as directories: CVMFS and sandboxes."""

from __future__ import annotations

from mlcheck.checks import deployed
from mlcheck.facts import Deployment, Files, UnreadableFiles
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_directory_is_the_published_image(
    deployment: Deployment | None, config_digest: str | None, judge: Judge
) -> None:
    judge(deployed.digest(deployment, config_digest))


def test_singularity_d_is_complete(
    deployment: Deployment | None, singularity_files: Files, judge: Judge
) -> None:
    judge(deployed.singularity_d(deployment, singularity_files))


def test_everybody_can_read_it(
    deployment: Deployment | None,
    unreadable_files: UnreadableFiles | None,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(deployed.readable(deployment, unreadable_files, profile))
