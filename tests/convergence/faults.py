"""Injects faults into the processes of the syncer: daemons and backfills are killed, stopped and frozen."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from tests.convergence.deployment import MODELS, Deployment, Process
from tests.harness.waiting import remaining

_OPENING_TIMEOUT = 180.0
"""Seconds until a daemon has opened every read model. Some servers restart in the meantime."""


class Faults:
    """Injects a fault every few seconds. Use it in one thread."""

    def __init__(self, deployment: Deployment, seed: str) -> None:
        self.deployment = deployment
        self.random = random.Random(f"{seed}/faults")
        self.done: Counter[str] = Counter()
        self._began = time.monotonic()
        self.daemons: list[Process] = []
        self.backfill: Process | None = None

    def begin(self) -> None:
        """Starts a daemon and, concurrently, a backfill."""
        self._start_backfill()
        self._start_daemon()

    def run_until(self, deadline: float, *, backfills: bool) -> None:
        """Injects faults until the deadline (monotonic seconds). backfills: kill backfills too."""
        actions: dict[Callable[[], None], float] = {
            self._kill_daemon: 5,
            self._stop_daemon: 2,
            self._second_daemon: 3,
            self._freeze_daemon: 4,
            self._kill_backfill: 4 if backfills else 0,
            self._await_opened: 3,
        }
        while True:
            pause = self.random.uniform(0.5, 3.0)
            if time.monotonic() + pause > deadline:
                return
            time.sleep(pause)
            self.random.choices(list(actions), list(actions.values()))[0]()
            self._check_processes()

    def finish_backfill(self, deadline: float) -> None:
        """Waits until the backfill has ended. Raises AssertionError after the deadline."""
        for _ in remaining(deadline):
            if self.backfill is None:
                return
            self._check_processes()
        raise AssertionError("the backfill did not end")

    def stop(self) -> None:
        """Ends the faults: starts a daemon if none is running."""
        if not self.daemons:
            self._start_daemon()

    def summary(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(self.done.items()))

    # -- the faults ---------------------------------------------------------------------------------------

    def _kill_daemon(self) -> None:
        if self.daemons:
            self._take().kill()
            self._count("daemons killed")
        if self.random.random() < 0.8 and not self.daemons:
            self._start_daemon()

    def _stop_daemon(self) -> None:
        if self.daemons:
            self._take().stop()
            self._count("daemons stopped")
        if not self.daemons:
            self._start_daemon()

    def _second_daemon(self) -> None:
        """Starts a second daemon, so that partitions move between the two."""
        if len(self.daemons) < 2:
            self._start_daemon()

    def _freeze_daemon(self) -> None:
        """Freezes one daemon while another one continues, sometimes longer than the session timeout."""
        self._second_daemon()
        self._await_opened()
        self.random.choice(self.daemons).freeze(self.random.uniform(0.3, 4.0))
        self._count("daemons frozen")

    def _kill_backfill(self) -> None:
        """Kills the backfill, which then resumes. If it has already ended, starts another one."""
        if self.backfill is not None:
            self.backfill.kill()
            self._count("backfills killed")
        self._start_backfill(again=self.backfill is None)

    def _await_opened(self) -> None:
        """Waits until all daemons have opened all read models, so that not every daemon is killed before it has worked.

        A daemon need not be ready: while sinks are slow, now and then a lane waits for one.
        """
        if not self.daemons:
            self._start_daemon()
        for _ in remaining(time.monotonic() + _OPENING_TIMEOUT):
            late = [daemon for daemon in self.daemons if len(daemon.opened()) < len(MODELS)]
            if not late:
                return
        raise AssertionError(f"{late[0].name} opened only {sorted(late[0].opened())}:\n{late[0].tail()}")

    def _check_processes(self) -> None:
        """Raises AssertionError if a process ended unexpectedly. Only a completed backfill may end."""
        for daemon in self.daemons:
            status = daemon.process.poll()
            assert status is None, f"{daemon.name} ended unexpectedly with {status}:\n{daemon.tail()}"
        if self.backfill is not None and not self.backfill.alive:
            status = self.backfill.process.returncode
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

    def log(self, fault: str) -> None:
        """Appends a line to faults.log, in the folder of the syncer's logs."""
        line = f"{time.strftime('%H:%M:%S')}  {time.monotonic() - self._began:6.2f} s  {fault}"
        with (self.deployment.folder / "logs" / "faults.log").open("a") as out:
            print(line, file=out)
