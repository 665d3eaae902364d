"""What goes wrong: daemons are killed, stopped, frozen and doubled, a backfill is killed and goes on."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from tests.convergence.deployment import Deployment, Process
from tests.harness.waiting import remaining

_READY_WITHIN = 30.0


class Faults:
    """Does something to the syncer's processes every few seconds. For one thread."""

    def __init__(self, deployment: Deployment, seed: str) -> None:
        self.deployment = deployment
        self.random = random.Random(f"{seed}/faults")
        self.done: Counter[str] = Counter()
        self._began = time.monotonic()
        self.daemons: list[Process] = []
        self.backfill: Process | None = None

    def begin(self) -> None:
        """The daemon, and a backfill beside it."""
        self._start_backfill()
        self._start_daemon()

    def go_on(self, deadline: float, *, backfills: bool) -> None:
        """Until the deadline (monotonic seconds)."""
        actions: dict[Callable[[], None], float] = {
            self._kill_daemon: 5,
            self._stop_daemon: 2,
            self._second_daemon: 3,
            self._freeze_daemon: 4,
            self._kill_backfill: 4 if backfills else 0,
            self._await_ready: 3,
        }
        while True:
            pause = self.random.uniform(0.5, 3.0)
            if time.monotonic() + pause > deadline:
                return
            time.sleep(pause)
            self.random.choices(list(actions), list(actions.values()))[0]()
            self._look_after()

    def finish_backfill(self, deadline: float) -> None:
        """It comes to its end before the deadline, whatever happened to it."""
        for _ in remaining(deadline):
            if self.backfill is None:
                return
            self._look_after()
        raise AssertionError("the backfill did not end")

    def stop(self) -> None:
        """No more faults: a daemon runs."""
        if not self.daemons:
            self._start_daemon()

    def summary(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(self.done.items()))

    # -- what is done -------------------------------------------------------------------------------------

    def _kill_daemon(self) -> None:
        if self.daemons:
            self._take().kill()
            self._count("daemons killed")
        if self.random.random() < 0.8 and not self.daemons:
            self._start_daemon()

    def _stop_daemon(self) -> None:
        if self.daemons:
            self._take().terminate()
            self._count("daemons stopped")
        if not self.daemons:
            self._start_daemon()

    def _second_daemon(self) -> None:
        """Then partitions are shared, and shared anew when one of the two goes."""
        if len(self.daemons) < 2:
            self._start_daemon()

    def _freeze_daemon(self) -> None:
        """For longer or shorter than it takes to be counted as dead, while another one goes on."""
        self._second_daemon()
        self._await_ready()
        self.random.choice(self.daemons).freeze(self.random.uniform(0.3, 4.0))
        self._count("daemons frozen")

    def _kill_backfill(self) -> None:
        """It goes on where it was; if it had come to its end, another one begins."""
        if self.backfill is not None:
            self.backfill.kill()
            self._count("backfills killed")
        self._start_backfill(again=self.backfill is None)

    def _await_ready(self) -> None:
        """So that not every daemon is killed before it has done anything."""
        if not self.daemons:
            self._start_daemon()
        for _ in remaining(time.monotonic() + _READY_WITHIN):
            late = [daemon for daemon in self.daemons if not daemon.ready()]
            if not late:
                return
        raise AssertionError(f"{late[0].name} did not become ready:\n{late[0].tail()}")

    def _look_after(self) -> None:
        """Nothing ends by itself but a backfill that is done."""
        for daemon in self.daemons:
            assert daemon.alive, f"{daemon.name} ended by itself:\n{daemon.tail()}"
        if self.backfill is not None and not self.backfill.alive:
            status = self.backfill.popen.returncode
            assert status == 0, f"{self.backfill.name} ended with {status}:\n{self.backfill.tail()}"
            self.backfill = None
            self._count("backfills done")

    def _start_daemon(self) -> None:
        self.daemons.append(self.deployment.start("run"))
        self._count("daemons started")

    def _start_backfill(self, *, again: bool = False) -> None:
        self.backfill = self.deployment.start("backfill", *(["--restart"] if again else []))
        self._count("backfills started")

    def _take(self) -> Process:
        return self.daemons.pop(self.random.randrange(len(self.daemons)))

    def _count(self, what: str) -> None:
        self.done[what] += 1
        self.log(what)

    def log(self, what: str) -> None:
        """For the log, which is a file beside the syncer's own."""
        line = f"{time.strftime('%H:%M:%S')}  {time.monotonic() - self._began:6.2f} s  {what}"
        with (self.deployment.folder / "logs" / "faults.log").open("a") as out:
            print(line, file=out)
