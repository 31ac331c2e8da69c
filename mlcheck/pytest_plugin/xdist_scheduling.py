"""Distribution of the tests of several images over pytest-xdist's workers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController


class ImageScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Scheduling by image: all tests of an image go to one worker, which opens and probes it once.

    With fewer images than workers, an image's tests are divided by their files, so that no core
    is idle: tests of one file mostly need the same facts.

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

    def remove_node(self, node: WorkerController) -> str | None:
        """Give the undone tests of a worker that ended to others, except the test in which it died:
        pytest-xdist's own would have that kill one worker after the other.

        Returns:
            The test in which the worker died, or None if it had done all.
        """
        units: OrderedDict[str, dict[str, bool]] = self.assigned_work.pop(node)
        died_in = None
        for scope, tests in units.items():
            left = [test for test, done in tests.items() if not done]
            if left and died_in is None:
                died_in = left.pop(0)
                tests[died_in] = True
            if left:
                self.workqueue[scope] = tests
        if died_in is not None:
            for other in self.assigned_work:
                self._reschedule(other)
        return died_in
