"""Which fault when: every few seconds one, chosen by the seed. The syncer is left no time to come to rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from tests.convergence.deployment import Deployment
from tests.convergence.faults import Faults
from tests.torture.servers import Servers

_AWAY = 4
"""Exit status of a command to which a server was away: it can succeed later."""


class Fire(Faults):
    """Faults of the syncer's processes, and of everything that they talk to: of several servers at once, one
    at a time of each."""

    def __init__(self, deployment: Deployment, servers: Servers, seed: str) -> None:
        super().__init__(deployment, seed)
        self.servers = servers
        self._table = self._of_servers()
        self._threads = ThreadPoolExecutor(len({server for server, _ in self._table.values()}))
        self._burning: dict[str, Future[None]] = {}

    def go_on(self, deadline: float, *, backfills: bool) -> None:
        """Until the deadline (monotonic seconds); every kind once before any is repeated."""
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
                names = self.random.sample([*processes, *self._table], len(processes) + len(self._table))
            free = next((name for name in names if self._free(name)), None)
            if free in processes:
                processes[free]()  # counts itself
            elif free is not None:
                self._set_alight(free)
            if free is not None:
                names.remove(free)
            self._look_after()
            time.sleep(self.random.uniform(0.2, 2.0))
        self.quench()

    def kill_connect_amid_copy(self) -> None:
        """Once, for certain; returns when it runs again."""
        self._set_alight("connect killed amid a COPY")
        self.quench()

    def quench(self) -> None:
        """Until every server is back. Raises what went wrong."""
        wait(self._burning.values())  # of all, before one of them raises
        for burning in self._burning.values():
            burning.result()

    def _free(self, name: str) -> bool:
        if name not in self._table:
            return True
        burning = self._burning.get(self._table[name][0])
        if burning is not None and burning.done():
            burning.result()
        return burning is None or burning.done()

    def _set_alight(self, name: str) -> None:
        server, fault = self._table[name]
        seconds = self.random.uniform(0.1, 3.0)
        self._count(name)

        def burn() -> None:
            fault(seconds)
            self.log(f"- {name}")

        self._burning[server] = self._threads.submit(burn)

    def _freeze_daemon(self) -> None:
        """For longer or shorter than it takes to be counted as dead, while another one goes on."""
        self._second_daemon()
        self.random.choice(self.daemons).freeze(self.random.uniform(0.3, 5.0))
        self._count("daemons frozen")

    def finish_backfill(self, deadline: float) -> None:
        self._await_ready()
        super().finish_backfill(deadline)

    def _of_servers(self) -> Mapping[str, tuple[str, Callable[[float], None]]]:
        """By name: which server, and what is done to it, given seconds."""
        servers = self.servers
        return {
            "postgres crashed": ("postgres", servers.crash_postgres),
            "commits stalled": ("postgres", servers.stall_commits),
            "columns changed": ("postgres", lambda _: servers.change_columns()),
            "postgres cut off": ("postgres", partial(servers.cut, "postgres")),
            "postgres stalled": ("postgres", partial(servers.stall, "postgres")),
            "kafka killed": ("kafka", partial(servers.kill, "kafka")),
            "connect killed": ("kafka", partial(servers.kill, "connect")),
            "connect killed amid a COPY": ("kafka", servers.kill_connect_amid_copy),
            "connector restarted": ("kafka", lambda _: servers.restart_connector()),
            "elasticsearch killed": ("elasticsearch", partial(servers.kill, "elasticsearch")),
            "elasticsearch restarted": ("elasticsearch", lambda _: servers.restart("elasticsearch")),
            "elasticsearch busy": ("elasticsearch", servers.busy),
            "bulk requests lost": ("elasticsearch", partial(servers.answer, "cut")),
            "bulk answers lost": ("elasticsearch", partial(servers.answer, "cut after")),
            "elasticsearch cut off": ("elasticsearch", partial(servers.cut, "elasticsearch")),
            "redis killed": ("redis", partial(servers.kill, "redis")),
            "redis flushed": ("redis", lambda _: servers.flush_redis()),
            "redis cut off": ("redis", partial(servers.cut, "redis")),
            "redis stalled": ("redis", partial(servers.stall, "redis")),
        }

    def _await_ready(self) -> None:
        self.servers.whole()
        super()._await_ready()

    def _look_after(self) -> None:
        """A backfill may end because a server is away; it is begun again."""
        backfill = self.backfill
        if backfill is not None and not backfill.alive and backfill.popen.returncode == _AWAY:
            self._count("backfills begun again")
            self._start_backfill()
        super()._look_after()
