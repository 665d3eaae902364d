"""Operates a stack of servers: starts, stops, restarts and kills them.

The file `stack.json` in the home folder describes the stack, for other programs and for the next command.
`launch` creates and starts a stack.
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

Echo = Callable[[str], None]


def silent(_: str) -> None:
    """Ignores a line of progress."""


@dataclass
class Stack:
    """Holds the servers of one home folder. URLs are attributes. Methods return when their work is complete."""

    home: Path
    site: Site
    processes: dict[str, Process] = field(default_factory=dict)
    clients: dict[str, Process] = field(default_factory=dict)
    """Programs that use the servers, for example the daemon of the demo. They stop before the servers."""
    reaper: Process | None = None
    """Removes the stack after the process that started it has ended. None: nothing removes it."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def postgres(self) -> str:
        """Returns the connection URL of the superuser, for the database `postgres`."""
        return self.server("postgres").url

    @property
    def kafka(self) -> str:
        """Returns the `bootstrap.servers` of Kafka."""
        return self.server("kafka").url

    @property
    def connect(self) -> str:
        """Returns the URL of the REST API of Kafka Connect."""
        return self.server("connect").url

    @property
    def elasticsearch(self) -> str:
        """Returns the URL of the Elasticsearch node."""
        return self.server("elasticsearch").url

    @property
    def redis(self) -> str:
        """Returns the URL of Redis database 0."""
        return self.server("redis").url

    def server(self, name: str) -> Server:
        """Returns the description of one server. Raises DevstackError for an unknown name."""
        if name not in SERVERS:
            raise DevstackError(f"no such server: {name}", f"Servers: {', '.join(SERVERS)}")
        return SERVERS[name](self.site)

    def running(self) -> list[str]:
        """Returns the names of the servers whose process is alive."""
        return [name for name, known in self.processes.items() if known.alive()]

    def pid(self, name: str) -> int:
        """Returns the process id of a running server. For Elasticsearch, this is the launcher.

        Raises DevstackError if the server is not running.
        """
        if name not in self.running():
            raise DevstackError(f"{name} is not running")
        return self.processes[name].pid

    def versions(self) -> dict[str, str]:
        """Returns the version that each running server reports."""
        return {name: self.server(name).version() for name in self.running()}

    def launch(self, name: str, failed: threading.Event | None = None) -> None:
        """Starts one server and waits until it is ready.

        failed: set when another server failed to start. This server then stops waiting.
        Raises DevstackError with the end of the log if the server dies or is not ready in time. It is killed then.
        """
        server = self.server(name)
        for port_name in server.port_names:
            if not ports.is_free(self.site.ports[port_name]):
                raise DevstackError(
                    f"port {self.site.ports[port_name]} for {port_name} is in use",
                    "To see which program uses it: ss -ltnp\n"
                    f'  To choose another port: make stack PORTS="{port_name}=NUMBER"\n'
                    "  To choose random ports: make stack PORTS=random",
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
        """Stops one server with its stop signal. Kills it if it is still alive after the given number of seconds."""
        if not (known := self.processes.get(name)):
            return
        known.signal(SERVERS[name].stop_signal)
        if not known.wait_gone(seconds):
            known.kill()

    def restart(self, name: str) -> None:
        """Stops a server if it is running, and starts it with the same port and data."""
        self.halt(name)
        self.launch(name)

    def launch_dead(self) -> list[str]:
        """Starts the servers that have ended. Returns their names. Raises DevstackError as `launch` does."""
        dead = [name for name, known in self.processes.items() if not known.alive()]
        for name in dead:
            self.launch(name)
        return dead

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to a server.

        SIGKILL simulates a crash; the method then waits for the end of the process. SIGSTOP freezes the server and
        SIGCONT resumes it.
        """
        known = self.processes[name]
        if number == signal.SIGKILL:
            known.kill()
        else:
            known.signal(number)

    def add_client(self, name: str, client: Process) -> None:
        """Registers a program that uses the servers and must stop before them."""
        with self._lock:
            self.clients[name] = client
            self.save()

    def keep(self) -> None:
        """Lets an ephemeral stack outlive the process that started it."""
        if self.reaper:
            self.reaper.kill()
            self.reaper = None

    def stop(self) -> None:
        """Stops the clients, then the servers that need other servers, then the remaining servers."""
        for client in self.clients.values():
            client.signal(signal.SIGTERM)
        for client in self.clients.values():
            if not client.wait_gone(30):
                client.kill()
        self.clients.clear()
        names = self.running()
        dependent = [name for name in names if SERVERS[name].needs]
        for layer in (dependent, [name for name in names if name not in dependent]):
            with ThreadPoolExecutor(max_workers=len(SERVERS)) as pool:
                list(pool.map(self.halt, layer))
        self.processes.clear()
        self.save()

    def remove(self) -> None:
        """Stops the stack and deletes all data and logs. Deletes the home folder too if it is then empty."""
        self.stop()
        shutil.rmtree(self.site.data, ignore_errors=True)
        (self.home / STATE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.home.rmdir()

    def save(self) -> None:
        """Writes stack.json: the URLs, the processes, and the settings that `load` needs."""
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
            "clients": {name: [client.pid, client.started] for name, client in self.clients.items()},
        }
        with tempfile.NamedTemporaryFile("w", dir=self.home, delete=False) as scratch:
            json.dump(state, scratch, indent=2)
        Path(scratch.name).chmod(0o644)
        Path(scratch.name).replace(self.home / STATE)


def load(path: Path) -> Stack:
    """Loads a stack.

    path: the file stack.json, or the folder that contains it.
    Raises DevstackError if the file does not exist.
    """
    home = path.parent if path.name == STATE else path
    try:
        state = json.loads((home / STATE).read_text())
    except FileNotFoundError:
        raise DevstackError(f"no stack in {home}", "To start one: make stack") from None
    site = make_site(Path(state["data"]), state["ports"], state["heaps"], state.get("versions", {}), silent)
    servers, clients = (
        {name: Process(*known) for name, known in state.get(kind, {}).items()} for kind in ("processes", "clients")
    )
    return Stack(home, site, servers, clients)


def make_site(
    data: Path,
    chosen: Mapping[str, int],
    heaps: Mapping[str, str],
    versions: Mapping[str, str],
    echo: Echo,
) -> Site:
    """Returns where and how the servers of a stack run. Downloads missing programs."""
    account = system.server_account()
    fetched = downloads.fetch(account, echo, versions)
    return Site(account, data, chosen, system.java(), fetched, heaps, versions)


def wait_ready(server: Server, started: Process, failed: threading.Event) -> None:
    """Waits until a server is ready. Raises DevstackError if it dies, is too slow, or another server failed."""
    deadline = time.monotonic() + server.start_seconds
    reason: object = ""
    while started.alive():
        try:
            if server.ready():
                return
        except (OSError, ValueError, DevstackError) as error:
            reason = error
        if failed.wait(0.1):
            raise DevstackError(f"stopped waiting for {server.name}, because another server failed")
        if time.monotonic() > deadline:
            break
    state = f"is not ready after {server.start_seconds:.0f} s ({reason})" if started.alive() else "exited at start"
    end = process.tail(server.log)
    raise DevstackError(f"{server.name} {state}. The end of its log ({server.log}):\n{end}")
