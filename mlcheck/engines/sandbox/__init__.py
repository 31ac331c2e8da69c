"""Image directories, with no container engine."""

from __future__ import annotations

from mlcheck.engines.base import Declaration, Engine


def _engine(name: str) -> Engine:
    from mlcheck.engines.sandbox.engine import Sandbox

    return Sandbox(name)


SANDBOX = Declaration(
    _engine,
    opens={"directory": 10, "reference": 10},
    reads_anyway=True,
    keeps_owners=False,
    obvious=True,
)
