"""Gives a test a unique prefix for its objects in Kafka, Kafka Connect, Elasticsearch and Redis. Deletes them later."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
import urllib3
from confluent_kafka.admin import AdminClient

from devstack import Stack

TIMEOUT = 20


@dataclass(frozen=True)
class Names:
    """A unique prefix of lower-case letters and digits. It is valid in topics, indexes, keys and slots."""

    prefix: str

    def __call__(self, name: str) -> str:
        """Returns a name with the prefix: `names("orders")` → "t1a2b3c4-orders"."""
        return f"{self.prefix}-{name}"


@contextmanager
def fresh_names(stack: Stack) -> Iterator[Names]:
    """Yields a prefix. Afterwards deletes the connectors, groups, topics, indexes and keys that begin with it."""
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
            remove_keys(stack.redis, f"{names.prefix}*")


def remove_connectors(url: str, prefix: str) -> None:
    """Deletes connectors."""
    for connector in urllib3.request("GET", f"{url}/connectors").json():
        if connector.startswith(prefix):
            urllib3.request("DELETE", f"{url}/connectors/{connector}")


def remove_topics(bootstrap: str, prefix: str) -> None:
    """Deletes topics, and consumer groups without members."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    groups = [group.group_id for group in admin.list_consumer_groups().result(TIMEOUT).valid or []]
    if unused := [group for group in groups if group.startswith(prefix)]:
        for deleted in admin.delete_consumer_groups(unused).values():
            deleted.exception(TIMEOUT)
    if topics := [topic for topic in admin.list_topics(timeout=TIMEOUT).topics if topic.startswith(prefix)]:
        for deleted in admin.delete_topics(topics).values():
            deleted.exception(TIMEOUT)


def remove_indexes(url: str, prefix: str) -> None:
    """Deletes indexes and their aliases."""
    found: list[dict[str, Any]] = urllib3.request(
        "GET", f"{url}/_cat/indices/{prefix}*?format=json&h=index&expand_wildcards=all"
    ).json()
    for row in found:
        urllib3.request("DELETE", f"{url}/{row['index']}")


def remove_keys(url: str, *patterns: str) -> None:
    """Deletes the keys that match a pattern."""
    with redis.Redis.from_url(url) as client:
        for pattern in patterns:
            if keys := list(client.scan_iter(pattern, count=1000)):
                client.delete(*keys)
