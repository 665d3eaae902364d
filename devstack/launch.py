"""Starts a stack: installs missing packages, downloads the programs, and starts the servers concurrently.

Starting a running stack changes nothing. A server that died starts again with its old port and data.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from devstack import archives, downloads, ports, system
from devstack.errors import DevstackError
from devstack.servers import SERVERS, USUAL, Postgres
from devstack.stack import STATE, Echo, Stack, load, make_site, silent

HEAPS = {"kafka": "512m", "connect": "512m", "elasticsearch": "1g", "s3proxy": "128m"}


def start(
    home: Path,
    *,
    only: Iterable[str] = USUAL,
    port_mode: str = "random",
    port_choice: Mapping[str, int] | None = None,
    heaps: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    ephemeral: bool = False,
    standby_of: str | None = None,
    echo: Echo = silent,
) -> Stack:
    """Starts the servers of `home` that are not running, and waits until all are ready.

    A stack with a running server keeps its ports, heaps and versions. Otherwise these arguments choose them:

    port_mode: "random" or "fixed".
    port_choice: ports by name, for example {"redis": 6380}.
    heaps: maximum heaps by server, for example {"kafka": "512m"}.
    versions: versions by part, see `archives.choose`.

    only: the servers to start, by default all but S3Proxy. Servers that they need start too.
    ephemeral: stop and delete the stack when this process ends, even by SIGKILL. `Stack.keep` cancels this.
    standby_of: the URL of a PostgreSQL server. The new PostgreSQL server becomes its standby.
    echo: called with each line of progress.

    Raises DevstackError after stopping the servers that this call started.
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def progress(line: str) -> None:
        echo(f"{time.monotonic() - began:6.1f} s  {line}")

    wanted = with_needs(only)
    chosen = archives.choose(versions or {}, wanted)
    if installed := system.ensure_packages(*packages_of(wanted, chosen)):
        progress(f"installed {', '.join(installed)}")
    stack = load(home) if (home / STATE).exists() else None
    running = stack.running() if stack else []
    if not stack or not running:
        stack = new_stack(home, port_mode, port_choice, heaps, chosen, progress)
    for name in running:
        progress(f"{name:<13}  already running")
    missing = [name for name in wanted if name not in running]
    if ephemeral:
        stack.save()
        from devstack import reaper  # imported late, because it also runs as a program

        stack.reaper = reaper.start(home)
    if standby_of:
        Postgres(stack.site).copy_from(standby_of)
    launch_all(stack, missing, progress)
    return stack


def planned_versions() -> dict[str, str]:
    """Returns the versions that `start` would use, by server. Starts and downloads nothing.

    Raises DevstackError if a program is missing.
    """
    chosen = archives.choose({})
    used = downloads.pins()
    used |= {part: archives.ARCHIVES[part][version].version for part, version in chosen.items()}
    if "postgres" not in used:
        used["postgres"] = system.version_of(system.require(system.postgres_bin(), "PostgreSQL") / "postgres")
    return {
        "postgres": used["postgres"].removesuffix(".0"),  # the archive of PostgreSQL 17.7 has the version 17.7.0
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
    echo: Echo,
) -> Stack:
    """Returns a stack without running servers. Its folder may have data of an earlier run."""
    account = system.server_account()
    data = home / "data"
    if not system.reachable(data, account):
        data = Path("/var/tmp/readmodel-syncer-devstack") / sha256(str(home).encode()).hexdigest()[:12]
        echo(f"the account {account.name} cannot read {home}: the data is in {data}")
    chosen = ports.choose(port_mode, port_choice or {})
    return Stack(home, make_site(data, chosen, {**HEAPS, **(heaps or {})}, versions, echo))


def with_needs(names: Iterable[str]) -> list[str]:
    """Returns the given servers and those that they need, in the order of SERVERS. Raises DevstackError."""
    wanted = set(names)
    if unknown := wanted - SERVERS.keys():
        raise DevstackError(f"no such server: {', '.join(sorted(unknown))}", f"Servers: {', '.join(SERVERS)}")
    return [name for name in SERVERS if name in wanted or any(name in SERVERS[other].needs for other in wanted)]


def packages_of(names: Iterable[str], versions: Mapping[str, str]) -> list[str]:
    """Returns the Debian packages of these servers. Servers with a chosen version need none."""
    packages = {"postgres": "postgresql", "redis": "redis-server"}
    return [packages[name] for name in names if name in packages and name not in versions]


def launch_all(stack: Stack, names: list[str], echo: Echo) -> None:
    """Starts servers concurrently. Stops them all if one fails.

    Each server starts as soon as the servers that it needs are ready.
    """
    done = {name: threading.Event() for name in names}
    failed = threading.Event()

    def launch(name: str) -> None:
        try:
            for need in SERVERS[name].needs:
                while need in done and not done[need].wait(0.1) and not failed.is_set():
                    pass
            if failed.is_set():
                return
            echo(f"{name:<13}  starting")
            stack.launch(name, failed)
            echo(f"{name:<13}  ready on {stack.server(name).address}")
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
                failed.set()  # after an interrupt, the other threads stop waiting
    except BaseException:
        for name in names:
            stack.halt(name, seconds=10)
            stack.processes.pop(name, None)
        stack.save()
        raise
