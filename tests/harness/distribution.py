"""Distributes the files of tests to the workers of pytest-xdist.

The tests of real servers wait for a quarter of the time. A worker for the tests without a stack of servers uses this
time.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling

WITHOUT_STACK = ("tests/unit/", "tests/simulation/", "tests/packaging/", "tests/engine/")
"""The generated histories of `tests/engine` start a PostgreSQL of their own, and nothing else."""


class LightWorkerScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives the last worker only files that need no stack. The others begin with the files that need one.

    The last worker ends when no such file is left.
    """

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        self.light = f"gw{self.numnodes - 1}"

    def _next_light(self) -> str | None:
        return next((file for file in self.workqueue if file.startswith(WITHOUT_STACK)), None)

    def _assign_work_unit(self, node: Any) -> None:
        if node.gateway.id == self.light and (file := self._next_light()):
            self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        if node.gateway.id == self.light and not self._next_light():
            if not node.shutting_down:
                node.shutdown()
        else:
            super()._reschedule(node)
