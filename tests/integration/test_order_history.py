"""The order history of `readmodels/order_history` on the shop's tables: its pages against SQL, and its query plans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from demo import shop
from demo.examples import order_history
from devstack import Stack
from syncer import document
from syncer.config.schema import load
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from tests.harness.postgres_servers import reads_database

ROOT = Path(__file__).parents[2]


class Databases(NamedTuple):
    """The shop, and the application's connection to the documents that were rendered from it."""

    shop: psycopg.Connection[Any]
    reads: psycopg.Connection[Any]


@pytest.fixture(scope="module")
def databases(postgres_alone: Stack) -> Iterator[Databases]:
    url = postgres_alone.postgres
    with reads_database(url) as reads:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("CREATE DATABASE shop")
        dsn = make_conninfo(url, dbname="shop")
        with psycopg.connect(dsn, autocommit=True) as source, psycopg.connect(reads, autocommit=True) as application:
            source.execute((ROOT / "demo" / "schema.sql").read_bytes())
            shop.seed(source, customers=20, products=50, orders=3000)
            render(dsn, reads)
            application.execute("ANALYZE read.user_order_summaries_000001")
            yield Databases(source, application)


def render(dsn: str, reads: str) -> None:
    """Writes all documents, as a backfill does."""
    config = load(
        environ={
            "SYNCER_MODELS": str(ROOT / "readmodels" / "order_history"),
            "SYNCER_POSTGRES__DSN": dsn,
            "SYNCER_POSTGRES_SINK__DSN": reads,
            "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "nowhere:1",
            "SYNCER_KAFKA__TOPIC_PREFIX": "shop",
        }
    )
    [declared] = loader.load_declared(config, ["user_order_summaries"])
    loaded = loader.load_model(config, declared)
    [sink] = loader.build_sinks(config, loaded, epoch=1, generation=1)
    with closing(sink), closing(SnapshotReader(config.postgres.arguments(), loaded.compiled)) as rows:
        sink.prepare()
        with rows.view() as view:
            highs = list(view.boundaries(500))
            for low, high in zip([None, *highs], highs, strict=False):
                batch = document.batch(list(view.render_range(low, high)), 1 << 48)
                assert sink.write(batch).written == len(batch.upserts)


def test_the_pages_of_each_user_are_those_of_the_shop(databases: Databases) -> None:
    for user in (1, 7, 20):
        found = list(order_history.pages(databases.reads, user))
        expected = [order_history.Order(*row) for row in databases.shop.execute(order_history.EXPECTED, [user])]
        assert [order for page in found for order in page] == expected
        assert all(len(page) == order_history.PAGE for page in found[:-1]) and len(found) > 2


def test_a_new_order_moves_no_row_to_another_page(databases: Databases) -> None:
    first = order_history.page(databases.reads, 3)
    second = order_history.page(databases.reads, 3, first[-1])
    with databases.reads.transaction(force_rollback=True):
        databases.reads.execute(
            "INSERT INTO read.user_order_summaries_000001 (_id, _version, user_id, order_id, placed_at)"
            " VALUES ('new', 1, 3, 99999, now())"
        )
        assert order_history.page(databases.reads, 3)[0].order_id == 99999
        assert order_history.page(databases.reads, 3, first[-1]) == second


@pytest.mark.parametrize("statement", [order_history.FIRST, order_history.NEXT])
def test_a_page_reads_its_rows_only(databases: Databases, statement: str) -> None:
    last = order_history.page(databases.reads, 3)[-1]
    values = {"user": 3, **last._asdict()}
    explained = databases.reads.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), values).fetchall()
    limit = explained[0][0][0]["Plan"]
    [scan] = limit["Plans"]
    assert (limit["Node Type"], scan["Node Type"], scan["Actual Rows"]) == ("Limit", "Index Scan", order_history.PAGE)
    assert scan["Index Name"] == "user_order_summaries_000001_user_id_placed_at_order_id_idx"
