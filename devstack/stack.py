"""A running stack: which servers, where, as which processes; start, stop, restart, kill.

What is known of a stack is in `stack.json` in its home, for other programs and for the next call.
Making and starting one is `launch`.
"""

import contextlib
import json
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from devstack import downloads, ports, process, system
from devstack.errors import DevstackError
from devstack.process import Process
from devstack.servers import SERVERS, Server, Site

STATE = "stack.json"

Say = Callable[[str], None]


def silent(_: str) -> None:
    """Say nothing."""


@dataclass
class Stack:
    """The servers of one home. URLs are attributes; methods wait until what they do is done."""

    home: Path
    site: Site
    processes: dict[str, Process] = field(default_factory=dict)
    guests: dict[str, Process] = field(default_factory=dict)
    """Programs of others that use the servers; they are stopped before the servers."""
    keeper: Process | None = None
    """Stops and deletes the stack when the process that started it ends."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def postgres(self) -> str:
        """Connection URL of the superuser, database `postgres`."""
        return self.server("postgres").url

    @property
    def kafka(self) -> str:
        """bootstrap.servers"""
        return self.server("kafka").url

    @property
    def connect(self) -> str:
        """URL of Kafka Connect's REST interface."""
        return self.server("connect").url

    @property
    def elasticsearch(self) -> str:
        """URL of the node."""
        return self.server("elasticsearch").url

    @property
    def redis(self) -> str:
        """URL of database 0."""
        return self.server("redis").url

    def server(self, name: str) -> Server:
        """The description of one server; raises DevstackError for an unknown name."""
        if name not in SERVERS:
            raise DevstackError(f"no such server: {name}", f"there are: {', '.join(SERVERS)}")
        return SERVERS[name](self.site)

    def running(self) -> list[str]:
        """Names of the servers whose process lives."""
        return [name for name, known in self.processes.items() if known.alive()]

    def pid(self, name: str) -> int:
        """Process id of a running server (the launcher's for Elasticsearch).

        Raises DevstackError if it does not run.
        """
        if name not in self.running():
            raise DevstackError(f"{name} is not running")
        return self.processes[name].pid

    def versions(self) -> dict[str, str]:
        """What each running server says its version is."""
        return {name: self.server(name).version() for name in self.running()}

    def launch(self, name: str, failed: threading.Event | None = None) -> None:
        """Start one server and wait until it serves.

        Raises DevstackError with the end of its log if it dies or takes too long; it is left dead then.
        """
        server = self.server(name)
        for port_name in server.port_names:
            if not ports.is_free(self.site.ports[port_name]):
                raise DevstackError(
                    f"port {self.site.ports[port_name]} for {port_name} is in use",
                    "see which program has it: ss -ltnp; or choose another port:"
                    f' make stack PORTS="{port_name}=NUMBER", or make stack PORTS=random',
                )
        server.prepare()
        if server.log.exists():
            server.log.replace(server.log.with_suffix(".log.1"))
        started = process.spawn(
            server.command(), account=self.site.account, env=server.env(), cwd=server.folder, log=server.log
        )
        with self._lock:
            self.processes[name] = started
            self.save()
        try:
            wait_ready(server, started, failed or threading.Event())
        except BaseException:
            started.kill()
            raise

    def halt(self, name: str, seconds: float = 30) -> None:
        """Stop one server in its orderly way, by force after so many seconds."""
        if not (known := self.processes.get(name)):
            return
        known.signal(SERVERS[name].stop_signal)
        if not known.wait_gone(seconds):
            known.kill()

    def restart(self, name: str) -> None:
        """Stop a server (if it runs) and start it on the same port and data."""
        self.halt(name)
        self.launch(name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a server: SIGKILL crashes it (waits for its end), SIGSTOP and SIGCONT freeze and thaw."""
        known = self.processes[name]
        if number == signal.SIGKILL:
            known.kill()
        else:
            known.signal(number)

    def add_guest(self, name: str, guest: Process) -> None:
        """Note a program that uses the servers and has to be stopped before them."""
        with self._lock:
            self.guests[name] = guest
            self.save()

    def keep(self) -> None:
        """Let an ephemeral stack go on running after the process that started it has ended."""
        if self.keeper:
            self.keeper.kill()
            self.keeper = None

    def stop(self) -> None:
        """Stop all: first the guests, then the servers that need others, then the others."""
        for guest in self.guests.values():
            guest.signal(signal.SIGTERM)
        for guest in self.guests.values():
            if not guest.wait_gone(30):
                guest.kill()
        self.guests.clear()
        names = self.running()
        dependent = [name for name in names if SERVERS[name].needs]
        for layer in (dependent, [name for name in names if name not in dependent]):
            with ThreadPoolExecutor(max_workers=len(SERVERS)) as pool:
                list(pool.map(self.halt, layer))
        self.processes.clear()
        self.save()

    def remove(self) -> None:
        """Stop, and delete all data and logs; the home too, if nothing else is in it."""
        self.stop()
        shutil.rmtree(self.site.data, ignore_errors=True)
        (self.home / STATE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.home.rmdir()

    def save(self) -> None:
        """Write stack.json: the URLs, the processes, and what `load` needs."""
        names = list(self.processes)
        state = {
            **{name: self.server(name).url for name in names},
            "pids": {name: self.processes[name].pid for name in names},
            "logs": {name: str(self.server(name).log) for name in names},
            "data": str(self.site.data),
            "ports": dict(self.site.ports),
            "heaps": dict(self.site.heaps),
            "versions": dict(self.site.versions),
            "processes": {name: [known.pid, known.started] for name, known in self.processes.items()},
            "guests": {name: [guest.pid, guest.started] for name, guest in self.guests.items()},
        }
        with tempfile.NamedTemporaryFile("w", dir=self.home, delete=False) as scratch:
            json.dump(state, scratch, indent=2)
        Path(scratch.name).chmod(0o644)
        Path(scratch.name).replace(self.home / STATE)


def load(path: Path) -> Stack:
    """The stack that a stack.json, or the home it is in, describes.

    Raises DevstackError if there is none.
    """
    home = path.parent if path.name == STATE else path
    try:
        state = json.loads((home / STATE).read_text())
    except FileNotFoundError:
        raise DevstackError(f"no stack in {home}", "start one: make stack") from None
    site = make_site(Path(state["data"]), state["ports"], state["heaps"], state.get("versions", {}), silent)
    servers, guests = (
        {name: Process(*known) for name, known in state.get(kind, {}).items()} for kind in ("processes", "guests")
    )
    return Stack(home, site, servers, guests)


def make_site(
    data: Path,
    chosen: Mapping[str, int],
    heaps: Mapping[str, str],
    versions: Mapping[str, str],
    say: Say,
) -> Site:
    """Where the servers of a stack run; downloads them if need be."""
    account = system.server_account()
    fetched = downloads.fetch(account, say, versions)
    return Site(account, data, chosen, system.java(), fetched, heaps, versions)


def wait_ready(server: Server, started: Process, failed: threading.Event) -> None:
    """Wait until a server serves; give up when it dies, takes too long, or another one failed."""
    deadline = time.monotonic() + server.start_seconds
    reason: object = ""
    while started.alive():
        try:
            if server.ready():
                return
        except (OSError, ValueError, DevstackError) as error:
            reason = error
        if failed.wait(0.1):
            raise DevstackError(f"{server.name} was given up, because another server failed")
        if time.monotonic() > deadline:
            break
    state = f"is not ready after {server.start_seconds:.0f} s ({reason})" if started.alive() else "died at start"
    end = process.tail(server.log)
    raise DevstackError(f"{server.name} {state}; the end of its log ({server.log}):\n{end}")
