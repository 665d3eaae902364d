"""Repairs documents and members whose id no row can have, on PostgreSQL and Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from devstack import Stack
from syncer import document, sinks
from syncer.events import Key
from syncer.operations.one_off import OneOffRun
from syncer.operations.repair import impossible_ids, repair
from syncer.operations.verify import Verify
from tests.harness.database import fresh_database
from tests.harness.engine import SCHEMA, Engine
from tests.harness.redis_servers import redis_server

BOARD = {"sorted_set": {"key": "board:{customer_id}", "score": "id"}}
DECLARATION = """\
name: orders
root: {table: public.orders}
document: {id: id, customer_id: customer_id, share: 1 / customer_id}
sink: {memory: {}}
"""


@pytest.fixture
def engine(postgres_alone: Stack, tmp_path: Path) -> Iterator[Engine]:
    with fresh_database(postgres_alone) as database:
        database.execute(*SCHEMA.split(";"))
        engine = Engine(database, tmp_path, DECLARATION)
        yield engine
        engine.close()


def test_a_member_whose_id_no_row_can_have_is_removed(engine: Engine) -> None:
    """Once, it became a dead letter at each repair, and stayed."""
    engine.execute("INSERT INTO orders (id, customer_id) VALUES (1, 1), (2, 1)")
    rendered: list[Key] = []
    with redis_server() as url, redis.Redis.from_url(url, decode_responses=True) as client:
        sink: Any = sinks.build(
            "redis", {"key": "o:{id}", "indexes": [BOARD]}, model=engine.compiled, connection={"url": url}
        )
        sink.prepare()

        def render(keys: Sequence[Key], reason: str) -> None:
            rendered.extend(keys)
            with engine.rows().view() as view:
                sink.write(document.batch(view.render(keys), engine.clock.epoch << 48 | view.head.snapshot.clock))

        opened = SimpleNamespace(
            loaded=SimpleNamespace(compiled=engine.compiled, name="orders"),
            sinks=[sink],
            rows=engine.rows,
            clock=engine.clock,
            registration=SimpleNamespace(epoch=1),
        )
        render([("1",), ("2",)], "backfill")
        member: Any = client.zadd
        member("board:1", {"abc": 5, "99999999999999999999": 5, "77": 5})
        client.zrem("board:1", "2")
        rendered.clear()
        verify = Verify(engine.compiled, engine.rows(), patience=0)
        report = verify(sink)
        assert (report.orphaned, report.differing) == (["77", "99999999999999999999", "abc"], ["2"])
        run = cast(OneOffRun, SimpleNamespace(opened=opened, render=render))
        repair(run, report.wrong, report.orphaned)
        assert sorted(rendered) == [("2",), ("77",)]
        assert verify.again(sink, report).equal
        assert client.zrange("board:1", 0, -1) == ["1", "2"]
        sink.close()


def test_a_row_that_cannot_be_rendered_has_a_possible_id(engine: Engine) -> None:
    """Its document stays, although it may look like an orphan."""
    engine.execute("INSERT INTO orders (id, customer_id) VALUES (1, 0)")
    ids = [*map(str, range(50)), "x", "", "1.5", "007"]
    assert sorted(impossible_ids(engine.rows(), engine.compiled, ids)) == ["", "1.5", "x"]
    assert impossible_ids(engine.rows(), engine.compiled, []) == []
