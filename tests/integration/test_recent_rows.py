"""Finds the documents of recently written rows on a real PostgreSQL (`monitors/rerender.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from syncer.checks import Reader
from syncer.monitors.rerender import Unknown, recent_roots
from syncer.pacing import Stopped, Waiter
from syncer.postgres import snapshot_reader
from syncer.registry.records import Proved
from tests.harness import Database
from tests.harness.engine import Engine

TABLES = """
CREATE TABLE teams (id bigint PRIMARY KEY, "100%" text NOT NULL);
CREATE TABLE badges (id bigint PRIMARY KEY, element bigint[] NOT NULL);
CREATE INDEX ON badges USING gin (element);
CREATE TABLE members (id bigint, team_id bigint, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE members_1 PARTITION OF members FOR VALUES FROM (0) TO (1000);
CREATE TABLE members_2 PARTITION OF members FOR VALUES FROM (1000) TO (100000);
CREATE INDEX ON members (team_id);
ALTER TABLE badges REPLICA IDENTITY FULL;
ALTER TABLE members_1 REPLICA IDENTITY FULL;
ALTER TABLE members_2 REPLICA IDENTITY FULL"""
DECLARED = """
name: orders
root: {table: public.teams}
document:
  name: '"100%"'
  members: {many: public.members, on: {team_id: id}, order_by: id, value: id}
  badges: {many: public.badges, on: {"any(element)": id}, order_by: id, value: id}
"""
SINK = "sink: {memory: {}}"


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Iterator[Engine]:
    database.execute(*TABLES.split(";"))
    database.execute("INSERT INTO teams SELECT n, 'team ' || n FROM generate_series(1, 3000) n")
    database.execute("INSERT INTO members SELECT n, n, repeat('x', 50) FROM generate_series(1, 3000) n")
    engine = Engine(database, tmp_path, DECLARED + SINK)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads few pages at once, so that each table has several ranges."""
    monkeypatch.setattr(snapshot_reader, "_READ_PAGES", 4)


def proved(engine: Engine) -> Proved:
    """Returns a proof for the present state of the database."""
    with engine.rows().view() as view:
        return Proved(Reader(1, None), *view.head.identity, view.head.snapshot.xmin)


def found(engine: Engine, since: Proved) -> set[int]:
    return {int(id) for roots in recent_roots(engine.rows(), engine.compiled, since, Waiter()) for (id,) in roots}


def test_rows_of_every_use_of_a_table_lead_to_their_documents(engine: Engine) -> None:
    since = proved(engine)
    assert found(engine, since) == set()
    engine.execute("INSERT INTO teams VALUES (5001, 'new')")
    engine.execute("INSERT INTO members VALUES (4001, 2999, ''), (4002, NULL, '')")
    engine.execute("INSERT INTO badges VALUES (1, '{7, 8, NULL}'), (2, '{}')")
    assert found(engine, since) == {5001, 2999, 7, 8}


@pytest.mark.parametrize(
    "statements",
    [
        ("SAVEPOINT a", "INSERT INTO members VALUES (5000, 17, '')", "RELEASE a"),
        ("INSERT INTO members VALUES (5000, 18, '')", "UPDATE members SET team_id = 17 WHERE id = 5000"),
        ("UPDATE members SET note = 'moved' WHERE id = 17",),
    ],
    ids=["a subtransaction", "an update in the same transaction", "an update"],
)
def test_the_last_version_of_a_row_counts(engine: Engine, statements: tuple[str, ...]) -> None:
    since = proved(engine)
    engine.execute(*statements)
    assert found(engine, since) == {17}


def test_a_transaction_that_was_open_when_the_snapshot_was_taken_counts(engine: Engine) -> None:
    with engine.database.connect(autocommit=False) as session:
        session.execute("INSERT INTO members VALUES (5000, 17, '')")
        engine.execute("INSERT INTO members VALUES (5001, 18, '')")
        since = proved(engine)
        session.commit()
    assert found(engine, since) == {17, 18}


def test_rows_that_were_frozen_when_they_were_copied_count(engine: Engine) -> None:
    since = proved(engine)
    with engine.database.connect(autocommit=False) as session:
        session.execute("TRUNCATE badges")
        with session.cursor() as cursor, cursor.copy("COPY badges FROM STDIN (FREEZE)") as lines:
            lines.write_row((1, "{9}"))
        session.commit()
    engine.database.execute("VACUUM FREEZE badges")
    assert found(engine, since) == {9}


def test_a_table_that_is_rewritten_between_two_ranges_is_read_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Engine(engine.database, tmp_path / "alone", DECLARED[: DECLARED.index("  members")] + SINK)
    since, rows = proved(engine), alone.rows()
    engine.execute("DELETE FROM teams WHERE id < 2900")
    engine.execute("INSERT INTO teams VALUES (5001, 'new')")
    flushed, rewritten = rows.flushed, Event()

    def rewrite_once(lsn: int) -> bool:
        """Moves the new row from the last page to one that was read before."""
        if not rewritten.is_set():
            rewritten.set()
            engine.database.execute("VACUUM FULL teams")
        return flushed(lsn)

    monkeypatch.setattr(rows, "flushed", rewrite_once)
    portions = [[*roots] for roots in recent_roots(rows, alone.compiled, since, Waiter())]
    alone.close()
    assert rewritten.is_set() and portions[0] == []
    assert any(("5001",) in portion for portion in portions)


def test_a_server_with_another_history_is_not_read(engine: Engine) -> None:
    since = proved(engine)
    for other in (
        Proved(since.reader, since.system, since.timeline + 1, since.xmin),
        Proved(since.reader, since.system, since.timeline, since.xmin + 1000),  # restored from an earlier state
        Proved(since.reader, since.system, since.timeline, since.xmin - (1 << 31)),
    ):
        with pytest.raises(Unknown):
            found(engine, other)


def test_it_ends_when_the_daemon_stops(engine: Engine) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        list(recent_roots(engine.rows(), engine.compiled, proved(engine), Waiter(stop)))
