"""Chooses loopback ports. Fixed ports give stable addresses. Random ports allow several stacks at once."""

import random
import socket
from collections.abc import Mapping

from devstack.errors import DevstackError

HOST = "127.0.0.1"

# These differ from the default ports, which the machine's own servers may use. They are below the range that the
# system uses for outgoing connections.
FIXED = {
    "postgres": 15432,
    "kafka": 19092,
    "kafka-controller": 19093,
    "connect": 18083,
    "elasticsearch": 19200,
    "elasticsearch-transport": 19300,
    "redis": 16379,
    "s3proxy": 19000,
}
RANDOM_RANGE = range(20000, 32000)


def is_free(port: int) -> bool:
    """Returns whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Returns whether a server accepts connections on this port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def choose(mode: str, chosen: Mapping[str, int]) -> dict[str, int]:
    """Returns a port for every name in FIXED.

    mode: "fixed" or "random".
    chosen: ports by name, which override the mode.
    Raises DevstackError for an unknown name.
    """
    if unknown := chosen.keys() - FIXED.keys():
        raise DevstackError(f"no such port: {', '.join(sorted(unknown))}", f"Port names: {', '.join(FIXED)}")
    if mode == "fixed":
        return {**FIXED, **chosen}
    candidates = (port for port in random.sample(RANDOM_RANGE, len(RANDOM_RANGE)) if is_free(port))
    return {name: chosen[name] if name in chosen else next(candidates) for name in FIXED}
