"""How pytest-xdist spreads the tests of several images over its workers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


class ImageScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """All tests of an image go to one worker, which opens it once and probes it once.

    With fewer images than workers, an image's tests are divided by their files, so that no core
    is idle: tests of one file mostly ask for the same facts.

    Args:
        targets: ids of the run's images on their engines.
    """

    def __init__(self, config: pytest.Config, log: Producer, targets: Sequence[str]) -> None:
        super().__init__(config, log)
        self._targets = sorted(targets, key=len, reverse=True)

    def _split_scope(self, nodeid: str) -> str:
        file, _, rest = nodeid.partition("::")
        parameters = rest.partition("[")[2]
        for target in self._targets:
            if target in parameters:
                return target if len(self._targets) >= self.numnodes else f"{target} {file}"
        return nodeid
