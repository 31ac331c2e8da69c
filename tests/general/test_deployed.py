"""Images that are deployed as directories: CVMFS and sandboxes."""

from __future__ import annotations

from mlcheck.checks import deployed
from mlcheck.facts import Deployment, Files, PublishedDigest, UnreadableFiles
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_directory_is_the_published_image(
    deployment: Deployment | None, published_digest: PublishedDigest, judge: Judge
) -> None:
    judge(deployed.digest(deployment, published_digest))


def test_singularity_d_is_complete(
    deployment: Deployment | None, singularity_files: Files, profile: Profile, judge: Judge
) -> None:
    judge(deployed.singularity_d(deployment, singularity_files, profile))


def test_everybody_can_read_it(
    deployment: Deployment | None,
    unreadable_files: UnreadableFiles | None,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(deployed.readable(deployment, unreadable_files, profile))
