"""Fixtures of --compare: another image, and what both are compared in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlcheck import facts, kept, opening
from mlcheck.engines.base import OpenImage
from mlcheck.probes import parity
from mlcheck.profile import Profile
from mlcheck.run import RUN, Target


@pytest.fixture(scope="session")
def compared_target(request: pytest.FixtureRequest) -> Target:
    """The image of --compare."""
    target = request.config.stash[RUN].compared
    if target is None:
        pytest.skip("no image to compare with was given (--compare IMAGE)")
    return target


@pytest.fixture(scope="session")
def other_image(compared_target: Target, request: pytest.FixtureRequest) -> Iterator[OpenImage]:
    """That image, opened by its engine."""
    run = request.config.stash[RUN]
    with opening.engine(compared_target.engine).open(run.prepared(compared_target)) as opened:
        yield opened


@pytest.fixture(scope="session")
def other_static(other_image: OpenImage, request: pytest.FixtureRequest) -> kept.Static:
    """Asks probes that only read about that image."""
    return kept.asking(other_image, request.config.stash[RUN].started_ns)


@pytest.fixture(scope="session")
def this_side(
    image: OpenImage, static: kept.Static, prefix_or_none: str | None, mlcheck_target: Target
) -> facts.Side:
    """What the judged image has."""
    return parity.probe(image, static, prefix_or_none, mlcheck_target.ref.text)


@pytest.fixture(scope="session")
def other_side(
    other_image: OpenImage, other_static: kept.Static, other_prefix: str | None
) -> facts.Side:
    """What the image of --compare has."""
    return parity.probe(other_image, other_static, other_prefix, other_image.ref.text)


@pytest.fixture(scope="session")
def other_prefix(compared_target: Target, profile: Profile) -> str | None:
    """The root of conda in the image of --compare: where its own profile says, or this one's."""
    return compared_target.profile.expect.prefix or profile.expect.prefix


@pytest.fixture(scope="session")
def these_files(
    image: OpenImage, static: kept.Static, prefix_or_none: str | None
) -> facts.ImageFiles:
    """All files of the judged image."""
    return static(parity.files, image.rootfs, prefix_or_none)


@pytest.fixture(scope="session")
def other_files(
    other_image: OpenImage, other_static: kept.Static, other_prefix: str | None
) -> facts.ImageFiles:
    """All files of the image of --compare."""
    return other_static(parity.files, other_image.rootfs, other_prefix)
