"""Starts a stack: what is needed is installed and downloaded, then the servers start side by side.

Starting one that runs changes nothing; a server of it that died is started again, on its old port and data.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from devstack import archives, downloads, ports, system
from devstack.errors import DevstackError
from devstack.servers import SERVERS, Postgres
from devstack.stack import STATE, Say, Stack, load, make_site, silent

HEAPS = {"kafka": "512m", "connect": "512m", "elasticsearch": "1g"}


def start(
    home: Path,
    *,
    only: Iterable[str] = SERVERS,
    port_mode: str = "random",
    port_choice: Mapping[str, int] | None = None,
    heaps: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    ephemeral: bool = False,
    standby_of: str | None = None,
    say: Say = silent,
) -> Stack:
    """Start the servers of a home that do not run yet, side by side, and wait until all serve.

    `port_mode` ("random", "fixed"), `port_choice` (name → port), `heaps` (name → 512m) and `versions` (part →
    version, as `archives.choose` takes it) hold if nothing of the stack runs yet; else it keeps what it has.
    `ephemeral`: when this process ends, however it ends, everything is stopped and deleted, unless it calls
    `Stack.keep` first. `say` gets progress lines.
    `standby_of`: the URL of a cluster that a new PostgreSQL shall be a standby of.
    Raises DevstackError; what this call started is stopped then.
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def tell(line: str) -> None:
        say(f"{time.monotonic() - began:6.1f} s  {line}")

    wanted = with_needs(only)
    chosen = archives.choose(versions or {})
    if installed := system.ensure_packages(*packages_of(wanted, chosen)):
        tell(f"installed {', '.join(installed)}")
    stack = load(home) if (home / STATE).exists() else None
    running = stack.running() if stack else []
    if not stack or not running:
        stack = new_stack(home, port_mode, port_choice, heaps, chosen, tell)
    for name in running:
        tell(f"{name:<13}  runs already")
    missing = [name for name in wanted if name not in running]
    if ephemeral:
        stack.save()
        from devstack import keeper  # here, because it is run as a program too

        stack.keeper = keeper.start(home)
    if standby_of:
        Postgres(stack.site).copy_from(standby_of)
    launch_all(stack, missing, tell)
    return stack


def planned_versions() -> dict[str, str]:
    """The versions of the servers that `start` would start now, without starting or downloading any.

    Raises DevstackError if a program is missing.
    """
    chosen = archives.choose({})
    used = downloads.pins()
    used |= {part: archives.ARCHIVES[part][version].version for part, version in chosen.items()}
    if "postgres" not in used:
        used["postgres"] = system.version_of(system.require(system.postgres_bin(), "PostgreSQL") / "postgres")
    return {
        "postgres": used["postgres"].removesuffix(".0"),  # the archive of 17.7 is called 17.7.0
        "kafka": used["kafka"],
        "connect": f"{used['kafka']}, Debezium {used['debezium']}",
        "elasticsearch": used["elasticsearch"],
        "redis": system.version_of(system.require(system.redis_server(), "Redis")),
    }


def new_stack(
    home: Path,
    port_mode: str,
    port_choice: Mapping[str, int] | None,
    heaps: Mapping[str, str] | None,
    versions: Mapping[str, str],
    say: Say,
) -> Stack:
    """A stack of which nothing runs yet; it may have data of an earlier run."""
    account = system.server_account()
    data = home / "data"
    if not system.reachable(data, account):
        data = Path("/var/tmp/readmodel-syncer-devstack") / sha256(str(home).encode()).hexdigest()[:12]
        say(f"{account.name} cannot enter {home}: the data is in {data}")
    chosen = ports.choose(port_mode, port_choice or {})
    return Stack(home, make_site(data, chosen, {**HEAPS, **(heaps or {})}, versions, say))


def with_needs(names: Iterable[str]) -> list[str]:
    """The servers, with those that they need, in the order of SERVERS."""
    wanted = set(names)
    if unknown := wanted - SERVERS.keys():
        raise DevstackError(f"no such server: {', '.join(sorted(unknown))}", f"there are: {', '.join(SERVERS)}")
    return [name for name in SERVERS if name in wanted or any(name in SERVERS[other].needs for other in wanted)]


def packages_of(names: Iterable[str], versions: Mapping[str, str]) -> list[str]:
    """The Debian packages that these servers come from, unless a version was chosen."""
    packages = {"postgres": "postgresql", "redis": "redis-server"}
    return [packages[name] for name in names if name in packages and name not in versions]


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
