"""Which fault when: every few seconds one, chosen by the seed. The syncer is left no time to come to rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from tests.convergence.deployment import Deployment
from tests.convergence.faults import Faults
from tests.torture.servers import Servers

_AWAY = 4
"""Exit status of a command to which a server was away: it can succeed later."""


class Fire(Faults):
    """Faults of the syncer's processes, and of everything that they talk to."""

    def __init__(self, deployment: Deployment, servers: Servers, seed: str) -> None:
        super().__init__(deployment, seed)
        self.servers = servers
        self._table = self._of_servers()

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
            name = names.pop()
            if name in processes:
                processes[name]()  # counts itself
            else:
                self._table[name]()
                self._count(name)
            self._look_after()
            time.sleep(self.random.uniform(0.2, 2.0))

    def _freeze_daemon(self) -> None:
        """For longer or shorter than it takes to be counted as dead, while another one goes on."""
        self._second_daemon()
        self.random.choice(self.daemons).freeze(self.random.uniform(0.3, 5.0))
        self._count("daemons frozen")

    def finish_backfill(self, deadline: float) -> None:
        self._await_ready()
        super().finish_backfill(deadline)

    def _of_servers(self) -> Mapping[str, Callable[[], None]]:
        servers, soon = self.servers, partial(self.random.uniform, 0.1, 3.0)
        return {
            "postgres crashed": lambda: servers.crash_postgres(down=soon()),
            "commits stalled": lambda: servers.stall_commits(1 + soon()),
            "columns changed": servers.change_columns,
            "postgres cut off": lambda: servers.cut("postgres", soon()),
            "postgres stalled": lambda: servers.stall("postgres", soon()),
            "kafka killed": lambda: servers.kill("kafka", down=soon()),
            "connect killed": lambda: servers.kill("connect", down=soon()),
            "connector restarted": servers.restart_connector,
            "elasticsearch killed": lambda: servers.kill("elasticsearch", down=soon()),
            "elasticsearch restarted": lambda: servers.restart("elasticsearch"),
            "elasticsearch busy": lambda: servers.busy(1 + soon()),
            "bulk requests lost": lambda: servers.answer("cut", soon()),
            "bulk answers lost": lambda: servers.answer("cut after", 1 + soon()),
            "elasticsearch cut off": lambda: servers.cut("elasticsearch", soon()),
            "redis killed": lambda: servers.kill("redis", down=soon()),
            "redis flushed": servers.flush_redis,
            "redis cut off": lambda: servers.cut("redis", soon()),
            "redis stalled": lambda: servers.stall("redis", soon()),
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
