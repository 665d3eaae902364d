"""Chooses the faults: one every few seconds, from a seed, so that the syncer is never idle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from tests.convergence.deployment import Deployment
from tests.convergence.faults import Faults
from tests.torture.servers import Servers

_UNAVAILABLE = 4
"""Exit status of a command if a server was unavailable. The command can succeed later."""


class FaultInjector(Faults):
    """Injects faults into the processes of the syncer and into all servers.

    Several servers can have a fault at the same time, but each server has at most one.
    """

    def __init__(self, deployment: Deployment, servers: Servers, seed: str) -> None:
        super().__init__(deployment, seed)
        self.servers = servers
        self._server_faults = self._faults_of_servers()
        self._threads = ThreadPoolExecutor(len({server for server, _ in self._server_faults.values()}))
        self._active: dict[str, Future[None]] = {}

    def run_until(self, deadline: float, *, backfills: bool) -> None:
        """Injects faults until the deadline (monotonic seconds). Repeats a kind only after all other kinds."""
        processes: dict[str, Callable[[], None]] = {
            "daemon killed": self._kill_daemon,
            "daemon stopped": self._stop_daemon,
            "daemon frozen": self._freeze_daemon,
            "daemon added": self._second_daemon,
        }
        if backfills:
            processes["backfill killed"] = self._kill_backfill
        names: list[str] = []
        while time.monotonic() < deadline:
            if not names:
                names = self.random.sample(
                    [*processes, *self._server_faults], len(processes) + len(self._server_faults)
                )
            free = next((name for name in names if self._free(name)), None)
            if free in processes:
                processes[free]()  # counts itself
            elif free is not None:
                self._inject(free)
            if free is not None:
                names.remove(free)
            self._check_processes()
            time.sleep(self.random.uniform(0.2, 2.0))
        self.wait_for_faults()

    def kill_connect_during_copy(self) -> None:
        """Kills Kafka Connect during a COPY. Returns when it is running again."""
        self._inject("connect killed during a COPY")
        self.wait_for_faults()

    def wait_for_faults(self) -> None:
        """Waits until every server is running again. Raises the first error of a fault."""
        wait(self._active.values())  # for all of them, before one raises
        for active in self._active.values():
            active.result()

    def _free(self, name: str) -> bool:
        if name not in self._server_faults:
            return True
        active = self._active.get(self._server_faults[name][0])
        if active is not None and active.done():
            active.result()
        return active is None or active.done()

    def _inject(self, name: str) -> None:
        server, fault = self._server_faults[name]
        seconds = self.random.uniform(0.1, 3.0)
        self._count(name)

        def run() -> None:
            fault(seconds)
            self.log(f"end: {name}")

        self._active[server] = self._threads.submit(run)

    def _freeze_daemon(self) -> None:
        """Freezes one daemon while another one continues, sometimes longer than the session timeout."""
        self._second_daemon()
        self.random.choice(self.daemons).freeze(self.random.uniform(0.3, 5.0))
        self._count("daemons frozen")

    def finish_backfill(self, deadline: float) -> None:
        self._await_opened()
        super().finish_backfill(deadline)

    def _faults_of_servers(self) -> Mapping[str, tuple[str, Callable[[float], None]]]:
        """Maps the name of each fault to its server, and to a function of the duration in seconds."""
        servers = self.servers
        return {
            "postgres crashed": ("postgres", servers.crash_postgres),
            "commits stalled": ("postgres", servers.stall_commits),
            "columns changed": ("postgres", lambda _: servers.change_columns()),
            "table truncated": ("postgres", lambda _: servers.truncate_table()),
            "postgres cut off": ("postgres", partial(servers.cut, "postgres")),
            "postgres stalled": ("postgres", partial(servers.stall, "postgres")),
            "kafka killed": ("kafka", partial(servers.kill, "kafka")),
            "connect killed": ("kafka", partial(servers.kill, "connect")),
            "connect killed during a COPY": ("kafka", servers.kill_connect_during_copy),
            "connector restarted": ("kafka", lambda _: servers.restart_connector()),
            "elasticsearch killed": ("elasticsearch", partial(servers.kill, "elasticsearch")),
            "elasticsearch restarted": ("elasticsearch", lambda _: servers.restart("elasticsearch")),
            "elasticsearch busy": ("elasticsearch", servers.busy),
            "bulk requests lost": ("elasticsearch", partial(servers.answer_bulk, "cut")),
            "bulk responses lost": ("elasticsearch", partial(servers.answer_bulk, "cut after")),
            "elasticsearch cut off": ("elasticsearch", partial(servers.cut, "elasticsearch")),
            "redis killed": ("redis", partial(servers.kill, "redis")),
            "redis flushed": ("redis", lambda _: servers.flush_redis()),
            "redis cut off": ("redis", partial(servers.cut, "redis")),
            "redis stalled": ("redis", partial(servers.stall, "redis")),
        }

    def _await_opened(self) -> None:
        self.servers.start_missing()
        super()._await_opened()

    def _check_processes(self) -> None:
        """Starts a backfill again if it ended because a server was unavailable. Checks all other processes."""
        backfill = self.backfill
        if backfill is not None and not backfill.alive and backfill.process.returncode == _UNAVAILABLE:
            self._count("backfills started again")
            self._start_backfill()
        super()._check_processes()
