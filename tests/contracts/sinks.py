"""Harnesses of the sinks' contract suite: how to open each kind of sink, and a document that it rejects.

The suite also runs on a sink of another distribution. Name a function that returns its harness:

    SYNCER_SINK_HARNESS=acme_sink.testing:harness pytest tests/contracts/test_sink.py -k outside
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest
import redis

from syncer import sinks
from syncer.declaration.compile import Compiled, Field
from syncer.events import TableName
from syncer.ports import Sink
from syncer.sinks.redis.keys import INDEXES, Keys
from tests.harness.memory_sink import STORES

FIELDS = (
    Field("n", "bigint", many=False),
    Field("exact", "numeric", many=False),
    Field("name", "text", many=False),
    Field("on", "boolean", many=False),
)


def compiled(name: str, fields: tuple[Field, ...] = FIELDS, hash: str = "0123456789abcdef") -> Compiled:
    """Returns a read model with these fields. Its SQL is empty, because nothing runs it."""
    table = TableName("public", "things")
    return Compiled(
        name=name,
        root=table,
        key=("id",),
        key_types=("text",),
        table_uses=(),
        fields=fields,
        render="",
        render_between="",
        render_upto="",
        boundaries="",
        canonical_keys="",
        hash=hash,
    )


class Harness(Protocol):
    """One kind of sink, with a target that only the current test uses."""

    model: Compiled

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        """Returns a new sink over the same target, as another process would have. hash: instead of the model's."""
        ...

    def bad(self, id: str) -> bytes:
        """Returns a document that the sink rejects for this id. It may prepare the target for that."""
        ...


@dataclass
class Memory:
    model: Compiled

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        return sinks.build(
            "memory",
            {},
            model=replace(self.model, hash=hash or self.model.hash),
            connection={"store": self.model.name},
            epoch=epoch,
            generation=generation,
        )

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
    indexes: bool = False

    @property
    def pattern(self) -> str:
        return f"{self._begin}:{{id}}:doc"

    @property
    def _begin(self) -> str:
        """The fixed text of all keys. With indexes on a cluster, it is their hash tag."""
        return f"{{{{{self.model.name}}}}}" if self.indexes and self.cluster else self.model.name

    def settings(self) -> dict[str, Any]:
        block: dict[str, Any] = {"key": self.pattern, "format": self.format}
        if self.indexes:
            board = {"key": f"{self._begin}-board", "score": "n", "member": "thing {id}"}
            block["indexes"] = [{"sorted_set": board}, {"set": {"key": f"{self._begin}-n:{{n}}"}}]
        return block

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        return sinks.build(
            "redis",
            self.settings(),
            model=replace(self.model, hash=hash or self.model.hash),
            connection={"url": self.url, "cluster": self.cluster},
            epoch=epoch,
            generation=generation,
        )

    def bad(self, id: str) -> bytes:
        """Puts a list of the application at the document's key. The sink must not overwrite it."""
        with client(self.url, cluster=self.cluster) as connected:
            connected.rpush(Keys(self.pattern).document(id), "theirs")
        return b'{"n":1}'


@dataclass
class Kafka:
    model: Compiled
    servers: str

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        return sinks.build(
            "kafka",
            {"topic": self.model.name},
            model=replace(self.model, hash=hash or self.model.hash),
            connection={"bootstrap_servers": self.servers, "topic_prefix": "shop", "partitions": 3},
            epoch=epoch,
            generation=generation,
        )

    def bad(self, id: str) -> bytes:
        """Returns a document that is larger than a record may be."""
        return b'{"name":"' + b"x" * (16 << 20) + b'"}'


@dataclass
class Postgres:
    model: Compiled
    dsn: str

    def open(self, *, epoch: int = 1, generation: int = 1, hash: str | None = None) -> Sink:
        return sinks.build(
            "postgres",
            {"table": "read.things"},
            model=replace(self.model, hash=hash or self.model.hash),
            connection={"dsn": self.dsn},
            epoch=epoch,
            generation=generation,
        )

    def bad(self, id: str) -> bytes:
        return b'{"n":"not a number"}'


def client(url: str, *, cluster: bool) -> Any:
    return redis.RedisCluster.from_url(url) if cluster else redis.Redis.from_url(url)


PAGE = Path(__file__).parents[2] / "docs" / "writing-a-sink.md"
OUTSIDE = os.environ.get("SYNCER_SINK_HARNESS", "")
SERVED = (
    *("elasticsearch", "kafka"),
    *("redis-json", "redis-hash", "redis-cluster", "redis-json-indexes", "redis-cluster-indexes"),
)
KINDS = ("memory", "page", "postgres", "valkey-hash-indexes", *SERVED, *(["outside"] if OUTSIDE else []))
"""`page`: the sink in docs/writing-a-sink.md. `outside`: the sink that SYNCER_SINK_HARNESS names."""


@contextmanager
def harness(kind: str, prefix: str, url: Callable[[str], str]) -> Iterator[Harness]:
    """Yields the harness of a kind, and removes what other fixtures do not clean up.

    prefix: names on the servers that begin with it belong to the test. url: returns the address of a server by name.
    """
    model = compiled(f"{prefix}-{kind}")
    if kind == "outside":
        yield _outside(model)
    elif kind == "page":
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", folder)
            yield page_modules()[1].Harness(model)
    elif kind == "memory":
        try:
            yield Memory(model)
        finally:
            STORES.pop(model.name, None)
    elif kind == "postgres":
        yield Postgres(model, url("postgres"))
    elif kind == "elasticsearch":
        yield Elasticsearch(model, url("elasticsearch"))
    elif kind == "kafka":
        yield Kafka(model, url("kafka"))
    elif kind.startswith("redis-cluster"):
        indexes = kind.endswith("-indexes")
        yield Redis(model, url("redis-cluster"), "hash" if indexes else "json", cluster=True, indexes=indexes)
    else:
        server, format = kind.split("-")[:2]
        try:
            yield Redis(model, url(server), format, indexes=kind.endswith("-indexes"))
        finally:
            forget(url(server), prefix)


def _outside(model: Compiled) -> Harness:
    """Returns the harness that SYNCER_SINK_HARNESS names, as `module:function`. The function gets the read model."""
    module, _, function = OUTSIDE.partition(":")
    made: Harness = getattr(importlib.import_module(module), function)(model)
    return made


@functools.cache
def page_modules() -> tuple[Any, Any]:
    """Returns the sink package of docs/writing-a-sink.md and its harness module."""
    made = []
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for name, code in zip(("acme_sqlite_sink", "acme_sqlite_sink.testing"), blocks, strict=True):
        module = sys.modules[name] = ModuleType(name)
        exec(compile(code, str(PAGE), "exec"), module.__dict__)
        made.append(module)
    return made[0], made[1]


def forget(url: str, prefix: str) -> None:
    """Removes the keys of the Redis sink that do not begin with the prefix: versions, marks and records."""
    with redis.Redis.from_url(url) as connected:
        keys = [*connected.scan_iter(f"*version:*{prefix}*", count=5000)]
        keys += connected.scan_iter(f"syncer:*{prefix}*", count=5000)
        for start in range(0, len(keys), 1000):
            connected.unlink(*keys[start : start + 1000])
        for pattern in connected.hkeys(INDEXES):
            if prefix.encode() in pattern:
                connected.hdel(INDEXES, pattern)
