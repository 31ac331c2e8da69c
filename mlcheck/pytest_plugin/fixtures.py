"""Fixtures: the images of a run, their profiles, and the facts that are found in them.

Every fixture is made once per image. Trouble of an engine is raised here, so that it makes the
tests that need the image end as ERROR, not as FAILED.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from testinfra.host import Host

from mlcheck import cache
from mlcheck.engines import select
from mlcheck.engines.base import OpenImage
from mlcheck.inspect.facts import Facts
from mlcheck.profile.catalog import Profile
from mlcheck.pytest_plugin import rule_items
from mlcheck.pytest_plugin.outcome import Judge, show_with
from mlcheck.pytest_plugin.run import RUN, WHOLE_IMAGES, Target
from mlcheck.pytest_plugin.testinfra_host import connect


@pytest.fixture(scope="session")
def mlcheck_target(request: pytest.FixtureRequest) -> Target:
    """The image and engine that this test is about."""
    chosen = request.param
    assert isinstance(chosen, Target)
    return chosen


@pytest.fixture(scope="session")
def profile(mlcheck_target: Target) -> Profile:
    """The expectations for the image."""
    return mlcheck_target.profile


@pytest.fixture(scope="session")
def image(mlcheck_target: Target, request: pytest.FixtureRequest) -> Iterator[OpenImage]:
    """The image, opened by its engine."""
    run = request.config.stash[RUN]
    prepared, start = run.prepared(mlcheck_target), run.start(mlcheck_target)
    with select.opened(prepared, mlcheck_target.engine, start=start) as opened:
        yield opened


@pytest.fixture(scope="session")
def static(
    image: OpenImage, mlcheck_target: Target, request: pytest.FixtureRequest
) -> cache.Static:
    """A function that calls probes that only read: `static(elf.probe, image.rootfs, prefix)`. Their
    results are kept until the image or a probe changes."""
    run = request.config.stash[RUN]
    gpu = run.start(mlcheck_target).gpu
    return cache.asking(image, run.started_ns, gpu=gpu)


@pytest.fixture(scope="session")
def facts(
    image: OpenImage, static: cache.Static, mlcheck_target: Target, request: pytest.FixtureRequest
) -> Iterator[Facts]:
    """The facts of the image, by their types: `facts[ElfFiles]`.

    If this process has all tests of an image, those that run something begin with the first of
    its tests. Workers of pytest-xdist that share the tests of an image are side by side already:
    there each fact begins when a test needs it.
    """
    run = request.config.stash[RUN]
    worker: Mapping[str, Any] | None = getattr(request.config, "workerinput", None)
    share = 1 if worker is None else int(worker["workercount"])
    threads = max(1, (os.cpu_count() or 1) // share)
    profile = mlcheck_target.profile
    facts = Facts(image, static, profile, run.session(mlcheck_target), threads=threads)
    try:
        if worker is None or worker.get(WHOLE_IMAGES):
            rule_items.begin(facts, request.session, mlcheck_target)
        yield facts
    finally:
        facts.close()


@pytest.fixture(scope="session")
def host(image: OpenImage) -> Host:
    """testinfra's host: `host.file("/etc/passwd").exists`, `host.package("zsh").is_installed`."""
    return connect(image)


@pytest.fixture
def judge(
    request: pytest.FixtureRequest, mlcheck_target: Target, image: OpenImage, static: cache.Static
) -> Judge:
    """A function that turns the verdict of a rule into the outcome of the test."""
    return Judge(request.node, mlcheck_target, show_with(image, static))
