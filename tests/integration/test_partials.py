"""Combined partials: documents that are combined from partials equal the documents that one statement renders.

These tests use the real resolver and PostgreSQL, and a sink in memory. `test_partials_in_sinks.py` takes the whole way,
from PostgreSQL through Debezium to each sink.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from syncer import sinks
from syncer.clock import version
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.document import Batch, Row, batch
from syncer.pipeline import combine
from syncer.ports import PartialSink, StoredPartial
from tests.contracts.sinks import compiled as model
from tests.harness import Database
from tests.harness.partials import World, found_within, opened
from tests.harness.redis_servers import redis_server


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    with opened(database) as world:
        yield world


def test_generated_histories(world: World) -> None:
    """Rows move between buckets and devices, devices come and go, and joined rows change."""
    assert found_within(world, 400) == []
    shown = world.memory.documents
    world.fill_again()
    assert world.differences() == []
    assert {id for id, (_, body) in shown.items() if body} == set(world.memory.ids())


def test_a_sink_that_forgets_deleted_documents(world: World) -> None:
    """Devices that `where` hides keep their partials. Devices that are inserted again get all of theirs."""
    assert found_within(world, 400, forgets=True) == []


def test_a_hidden_device_counts_as_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weakened rule: the sink forgets the buckets of a device that `where` hides."""
    render = world.rows.view

    def weaker() -> Any:
        return _HiddenAsDeleted(render())

    monkeypatch.setattr(world.rows, "view", weaker)
    assert found_within(world, 400, forgets=True)


class _HiddenAsDeleted:
    """A view that renders the root partials of hidden devices as deletes."""

    def __init__(self, view: Any) -> None:
        self._opening = view

    def __enter__(self) -> Any:
        self._view = self._opening.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opening.__exit__(*error)

    def render(self, keys: Sequence[Any]) -> list[Row]:
        return [row._replace(body=None) if row.body == b"null" else row for row in self._view.render(keys)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def test_only_the_partials_of_deleted_documents_expire_in_redis() -> None:
    """A backfill may pause between the buckets of a device and its root partial."""
    with redis_server() as url, redis.Redis.from_url(url) as client:
        sink = sinks.build("redis", {"key": "device:{id}"}, model=model("devices"), connection={"url": url})
        assert isinstance(sink, PartialSink)

        def expires_after(bucket: str, body: bytes | None, clock: int) -> int:
            found = sink.write_partials(version(1, clock), {"7": {bucket: body}}, 5.0)
            assert found["7"][bucket] == StoredPartial(version(1, clock), body)
            (key,) = client.scan_iter("partials:*")
            return int(client.ttl(key))

        assert expires_after("0", b'["1"]', 1) == -1, "the root partial is not known yet"
        assert expires_after(ROOT_PARTIAL, b'{"name":"a"}', 2) == -1
        assert expires_after(ROOT_PARTIAL, None, 3) > 3600
        assert expires_after("0", b'["2"]', 4) > 3600, "the device is deleted"
        assert expires_after(ROOT_PARTIAL, b"null", 5) == -1, "`where` hides the device"
        assert len(list(client.scan_iter("partials:*"))) == 1
        sink.close()


def test_only_the_new_bucket(world: World) -> None:
    """A weakened rule: an update makes the bucket of the new row dirty only."""
    world.weaken = lambda change: change._replace(before=None) if change.op == "u" else change
    assert found_within(world, 400)


def test_an_empty_partial_is_removed(world: World) -> None:
    """A weakened rule: a bucket without rows has no partial. Then the sum of the versions falls."""
    world.memory.drop_empty = lambda body: body.startswith(b'["0"')
    assert found_within(world, 400)


def test_the_highest_version_instead_of_the_sum(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weakened rule, with two daemons: the later snapshot is written first."""
    world.change("devices", 1, "INSERT INTO devices VALUES (1, 'a')")
    older: list[Batch] = []

    def write_later_snapshot_first() -> None:
        for id in (1, 10):
            world.connection.execute(f"INSERT INTO readings VALUES ({id}, 1, 1, 1)".encode())
            with world.rows.view() as view:
                key = ("1", str(id // 4))
                older.append(batch(view.render([key]), version(1, view.head.snapshot.clock)))
        for one in reversed(older):
            world.sink.write(one)

    with monkeypatch.context() as patch:
        patch.setattr(combine, "combined_version", lambda versions, model: max(versions))
        write_later_snapshot_first()
    assert world.differences()
    for one in reversed(older):  # the daemons repeat their batches
        world.sink.write(one)
    assert world.differences() == []
