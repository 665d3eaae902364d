"""Names for what one test makes in Kafka, Connect, Elasticsearch and Redis, and its removal afterwards."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
import urllib3
from confluent_kafka.admin import AdminClient

from devstack import Stack

SECONDS = 20


@dataclass(frozen=True)
class Names:
    """A prefix of the test's own: lower-case letters and digits, fit for topics, indexes, keys, slots."""

    prefix: str

    def __call__(self, name: str) -> str:
        """`names("orders")` → "t1a2b3c4-orders"."""
        return f"{self.prefix}-{name}"


@contextmanager
def fresh_names(stack: Stack) -> Iterator[Names]:
    """A prefix; afterwards, connectors, groups, topics, indexes and keys that begin with it are removed."""
    names = Names(f"t{uuid.uuid4().hex[:8]}")
    try:
        yield names
    finally:
        running = stack.running()
        if "connect" in running:
            remove_connectors(stack.connect, names.prefix)
        if "kafka" in running:
            remove_topics(stack.kafka, names.prefix)
        if "elasticsearch" in running:
            remove_indexes(stack.elasticsearch, names.prefix)
        if "redis" in running:
            remove_keys(stack.redis, names.prefix)


def remove_connectors(url: str, prefix: str) -> None:
    """Delete connectors."""
    for connector in urllib3.request("GET", f"{url}/connectors").json():
        if connector.startswith(prefix):
            urllib3.request("DELETE", f"{url}/connectors/{connector}")


def remove_topics(bootstrap: str, prefix: str) -> None:
    """Delete consumer groups (those that still have members stay) and topics."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    groups = [group.group_id for group in admin.list_consumer_groups().result(SECONDS).valid or []]
    if ours := [group for group in groups if group.startswith(prefix)]:
        for deleted in admin.delete_consumer_groups(ours).values():
            deleted.exception(SECONDS)
    if topics := [topic for topic in admin.list_topics(timeout=SECONDS).topics if topic.startswith(prefix)]:
        for deleted in admin.delete_topics(topics).values():
            deleted.exception(SECONDS)


def remove_indexes(url: str, prefix: str) -> None:
    """Delete indexes, and with them their aliases."""
    found: list[dict[str, Any]] = urllib3.request(
        "GET", f"{url}/_cat/indices/{prefix}*?format=json&h=index&expand_wildcards=all"
    ).json()
    for row in found:
        urllib3.request("DELETE", f"{url}/{row['index']}")


def remove_keys(url: str, prefix: str) -> None:
    """Delete keys."""
    with redis.Redis.from_url(url) as client:
        if keys := list(client.scan_iter(f"{prefix}*", count=1000)):
            client.delete(*keys)
