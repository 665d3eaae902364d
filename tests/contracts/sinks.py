"""What the sinks' contract suite needs of each sink: how to make one, a document that it refuses, and a way
to leave nothing behind. Add a harness here for a new sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import redis

from syncer import sinks
from syncer.declaration.compile import Compiled, Field
from syncer.events import TableName
from syncer.ports import Sink
from tests.harness.memory_sink import MemorySink, Store

FIELDS = (
    Field("n", "bigint", many=False),
    Field("exact", "numeric", many=False),
    Field("name", "text", many=False),
    Field("on", "boolean", many=False),
)


def compiled(name: str, fields: tuple[Field, ...] = FIELDS, hash: str = "0123456789abcdef") -> Compiled:
    """A read model with these fields; nothing of it is run."""
    table = TableName("public", "things")
    return Compiled(
        name=name,
        root=table,
        key=("id",),
        key_types=("text",),
        occurrences=(),
        fields=fields,
        render="",
        render_between="",
        render_upto="",
        boundaries="",
        hash=hash,
    )


class Harness(Protocol):
    """One kind of sink, with a target of its own for the test."""

    model: Compiled

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        """A sink over the same target: another process, as it were."""
        ...

    def bad(self, id: str) -> bytes:
        """A document that the sink refuses for this id."""
        ...


@dataclass
class Memory:
    model: Compiled
    store: Store = field(default_factory=Store)

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        model = replace(self.model, hash=hash or self.model.hash)
        return MemorySink(model=model, epoch=epoch, generation=generation, store=self.store)

    def bad(self, id: str) -> bytes:
        return b"[]"


@dataclass
class Elasticsearch:
    model: Compiled
    url: str

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        settings = {"index": self.model.name, "settings": {"number_of_replicas": 0}}
        return sinks.build(
            "elasticsearch",
            settings,
            model=replace(self.model, hash=hash or self.model.hash),
            connection={"url": self.url},
            epoch=epoch,
            generation=generation,
        )

    def bad(self, id: str) -> bytes:
        return b'{"n":"not a number"}'


@dataclass
class Redis:
    model: Compiled
    url: str
    format: str
    cluster: bool = False

    @property
    def pattern(self) -> str:
        return f"{self.model.name}:{{id}}:doc"

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        return sinks.build(
            "redis",
            {"key": self.pattern, "format": self.format},
            model=replace(self.model, hash=hash or self.model.hash),
            connection={"url": self.url, "cluster": self.cluster},
            epoch=epoch,
            generation=generation,
        )

    def bad(self, id: str) -> bytes:
        """A list is where the document belongs: somebody else's, which must not be overwritten."""
        with client(self.url, cluster=self.cluster) as connected:
            connected.rpush(self.pattern.replace("{id}", id), "theirs")
        return b'{"n":1}'


def client(url: str, *, cluster: bool) -> Any:
    return redis.RedisCluster.from_url(url) if cluster else redis.Redis.from_url(url)


KINDS = ("memory", "elasticsearch", "redis-json", "redis-hash", "redis-cluster")


@contextmanager
def harness(kind: str, prefix: str, url: Callable[[str], str]) -> Iterator[Harness]:
    """The harness of a kind; removes the keys that do not begin with the prefix afterwards.

    url: the address of a server, by name.
    """
    model = compiled(f"{prefix}-{kind}")
    if kind == "memory":
        yield Memory(model)
    elif kind == "elasticsearch":
        yield Elasticsearch(model, url("elasticsearch"))
    elif kind == "redis-cluster":
        yield Redis(model, url("redis-cluster"), "json", cluster=True)
    else:
        try:
            yield Redis(model, url("redis"), kind.removeprefix("redis-"))
        finally:
            forget(url("redis"), prefix)


def forget(url: str, prefix: str) -> None:
    """Remove the keys that a sink keeps beside its documents."""
    with redis.Redis.from_url(url) as connected:
        keys = [*connected.scan_iter(f"*version:*{prefix}*", count=5000)]
        keys += connected.scan_iter(f"syncer:*{prefix}*", count=5000)
        for start in range(0, len(keys), 1000):
            connected.unlink(*keys[start : start + 1000])
