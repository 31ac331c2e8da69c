"""The simulation of a release in docs/performance.md."""

from __future__ import annotations

import pytest

from benchmarks.release import BANDWIDTH, IMAGE_BYTES, START_S, simulated


def test_the_longest_job_is_the_limit() -> None:
    assert simulated([10.0, 1.0, 1.0], 64) == START_S + 10
    assert simulated([10.0, 1.0, 1.0], 1) == START_S + 12


def test_the_wire_is_the_limit_with_cold_stores() -> None:
    fetch_s = IMAGE_BYTES / BANDWIDTH
    assert simulated([1.0] * 10, 64, cold=True) == pytest.approx(START_S + 10 * fetch_s + 1)
