"""Limits how often each client may send a request."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

_MAX_CLIENTS = 4096
"""Clients that are remembered. The longest idle one is forgotten first: its bucket is the fullest."""


class TokenBuckets:
    """One token bucket per client. A bucket holds requests for two seconds, so that short bursts pass."""

    def __init__(self, requests_per_second: float) -> None:
        self._rate, self._burst = requests_per_second, 2.0 * requests_per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Client → (requests left, time of its last request)."""

    def take(self, client: str, now: float) -> float:
        """Returns 0 if the client may send a request now, otherwise the seconds until it may.

        now: a monotonic time (seconds).
        """
        left, before = self._buckets.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - before) * self._rate)
        admitted = left >= 1
        self._buckets[client] = left - 1 if admitted else left, now
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if admitted else (1 - left) / self._rate


def client_key(address: str) -> str:
    """Returns the name under which requests from an address count. An IPv6 client owns a whole /64 network."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
