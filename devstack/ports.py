"""Loopback ports: fixed ones, so that addresses stay known; random ones, so that stacks run side by side."""

import random
import socket
from collections.abc import Mapping

from devstack.errors import DevstackError

HOST = "127.0.0.1"

# Off the servers' usual ports, where something of the machine's own may listen; below the range that the
# system takes for outgoing connections.
FIXED = {
    "postgres": 15432,
    "kafka": 19092,
    "kafka-controller": 19093,
    "connect": 18083,
    "elasticsearch": 19200,
    "elasticsearch-transport": 19300,
    "redis": 16379,
}
RANDOM_RANGE = range(20000, 32000)


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def choose(mode: str, chosen: Mapping[str, int]) -> dict[str, int]:
    """A port for every name of FIXED; `mode` is "fixed" or "random", `chosen` overrides it port by port.

    Raises DevstackError for a name that is not among them.
    """
    if unknown := chosen.keys() - FIXED.keys():
        raise DevstackError(f"no such port: {', '.join(sorted(unknown))}", f"there are: {', '.join(FIXED)}")
    if mode == "fixed":
        return {**FIXED, **chosen}
    candidates = (port for port in random.sample(RANDOM_RANGE, len(RANDOM_RANGE)) if is_free(port))
    return {name: chosen[name] if name in chosen else next(candidates) for name in FIXED}
