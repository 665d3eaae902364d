"""A running stack: which servers, where, as which processes; start, stop, restart, kill.

What is known of a stack is in `stack.json` in its home, for other programs and for the next call. Starting a
stack that runs changes nothing; a server of it that died is started again, on its old port and data.
"""

import contextlib
import json
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from devstack import downloads, ports, process, system
from devstack.errors import DevstackError
from devstack.process import Process
from devstack.servers import SERVERS, Postgres, Server, Site

HEAPS = {"kafka": "512m", "connect": "512m", "elasticsearch": "1g"}
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
                    f"see who has it (ss -ltnp), or choose: --port {port_name}=NUMBER, or --ports random",
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
            started.signal(signal.SIGKILL)
            raise

    def halt(self, name: str, seconds: float = 30) -> None:
        """Stop one server in its orderly way, by force after so many seconds."""
        if not (known := self.processes.get(name)):
            return
        known.signal(SERVERS[name].stop_signal)
        if not known.wait_gone(seconds):
            known.signal(signal.SIGKILL)
            known.wait_gone(seconds)

    def restart(self, name: str) -> None:
        """Stop a server (if it runs) and start it on the same port and data."""
        self.halt(name)
        self.launch(name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a server: SIGKILL crashes it (waits for its end), SIGSTOP and SIGCONT freeze and thaw."""
        known = self.processes[name]
        known.signal(number)
        if number == signal.SIGKILL:
            known.wait_gone(10)

    def stop(self) -> None:
        """Stop all servers: first those that need others."""
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
            "processes": {name: [known.pid, known.started] for name, known in self.processes.items()},
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
    site = make_site(Path(state["data"]), state["ports"], state["heaps"], silent)
    return Stack(home, site, {name: Process(*known) for name, known in state["processes"].items()})


def start(
    home: Path,
    *,
    only: Iterable[str] = SERVERS,
    port_mode: str = "random",
    port_choice: Mapping[str, int] | None = None,
    heaps: Mapping[str, str] | None = None,
    ephemeral: bool = False,
    standby_of: str | None = None,
    say: Say = silent,
) -> Stack:
    """Start the servers of a home that do not run yet, side by side, and wait until all serve.

    `port_mode` ("random", "fixed"), `port_choice` (name → port) and `heaps` (name → 512m) hold if nothing
    of the stack runs yet; else it keeps what it has. `ephemeral`: when this process ends, however it ends,
    everything is stopped and deleted. `say` gets progress lines.
    `standby_of`: the URL of a cluster that a new PostgreSQL shall be a standby of.
    Raises DevstackError; what this call started is stopped then.
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def tell(line: str) -> None:
        say(f"{time.monotonic() - began:6.1f} s  {line}")

    wanted = with_needs(only)
    if installed := system.ensure_packages(*packages_of(wanted)):
        tell(f"installed {', '.join(installed)}")
    stack = load(home) if (home / STATE).exists() else None
    running = stack.running() if stack else []
    if not stack or not running:
        stack = new_stack(home, port_mode, port_choice, heaps, tell)
    for name in running:
        tell(f"{name:<13}  runs already")
    missing = [name for name in wanted if name not in running]
    if ephemeral:
        stack.save()
        from devstack import keeper  # which imports this module, and is run as a program too

        keeper.start(home)
    if standby_of:
        Postgres(stack.site).copy_from(standby_of)
    launch_all(stack, missing, tell)
    return stack


def new_stack(
    home: Path,
    port_mode: str,
    port_choice: Mapping[str, int] | None,
    heaps: Mapping[str, str] | None,
    say: Say,
) -> Stack:
    """A stack of which nothing runs yet; it may have data of an earlier run."""
    account = system.server_account()
    data = home / "data"
    if not system.reachable(data, account):
        data = Path("/var/tmp/readmodel-syncer-devstack") / sha256(str(home).encode()).hexdigest()[:12]
        say(f"{account.name} cannot enter {home}: the data is in {data}")
    chosen = ports.choose(port_mode, port_choice or {})
    return Stack(home, make_site(data, chosen, {**HEAPS, **(heaps or {})}, say))


def make_site(data: Path, chosen: Mapping[str, int], heaps: Mapping[str, str], say: Say) -> Site:
    """Where the servers of a stack run; downloads them if need be."""
    account = system.server_account()
    return Site(account, data, chosen, system.java(), downloads.fetch(account, say), heaps)


def with_needs(names: Iterable[str]) -> list[str]:
    """The servers, with those that they need, in the order of SERVERS."""
    wanted = set(names)
    if unknown := wanted - SERVERS.keys():
        raise DevstackError(
            f"no such server: {', '.join(sorted(unknown))}", f"there are: {', '.join(SERVERS)}"
        )
    return [
        name for name in SERVERS if name in wanted or any(name in SERVERS[other].needs for other in wanted)
    ]


def packages_of(names: Iterable[str]) -> list[str]:
    """The Debian packages that these servers come from."""
    packages = {"postgres": "postgresql", "redis": "redis-server"}
    return [packages[name] for name in names if name in packages]


def launch_all(stack: Stack, names: list[str], say: Say) -> None:
    """Start servers side by side, each as soon as those that it needs serve; stop them all if one fails."""
    done = {name: threading.Event() for name in names}
    failed = threading.Event()

    def launch(name: str) -> None:
        try:
            for need in SERVERS[name].needs:
                while need in done and not done[need].wait(0.1) and not failed.is_set():
                    pass
            if failed.is_set():
                return
            say(f"{name:<13}  starting")
            stack.launch(name, failed)
            say(f"{name:<13}  ready on {stack.server(name).address}")
            done[name].set()
        except BaseException:
            failed.set()
            raise

    try:
        with ThreadPoolExecutor(max_workers=len(SERVERS)) as pool:
            launches = [pool.submit(launch, name) for name in names]
            try:
                for one in launches:
                    one.result()
            finally:
                failed.set()  # an interrupt ends the others' waiting too
    except BaseException:
        for name in names:
            stack.halt(name, seconds=10)
            stack.processes.pop(name, None)
        stack.save()
        raise


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
    state = (
        f"is not ready after {server.start_seconds:.0f} s ({reason})" if started.alive() else "died at start"
    )
    end = process.tail(server.log)
    raise DevstackError(f"{server.name} {state}; the end of its log ({server.log}):\n{end}")
