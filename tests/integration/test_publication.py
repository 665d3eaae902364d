"""Creates and checks publications, and waits for open transactions, on a real server."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from syncer.checks import check_source
from syncer.errors import Fatal, Retry
from syncer.events import TableName
from syncer.postgres.publication import (
    ensure_publication,
    read_facts,
    read_publication,
    wait_for_open_transactions,
)
from tests.harness import Database

ORDERS = TableName("public", "orders")
PARTS = TableName("public", "parts")
ODD = TableName("Größe", "or der")


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, a int, b int)",
        "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (1) TO (100)",
        'CREATE SCHEMA "Größe"',
        'CREATE TABLE "Größe"."or der" (id int PRIMARY KEY)',
    )
    return database


def codes(database: Database, *tables: TableName) -> set[str]:
    with database.connect() as conn:
        facts = read_facts(conn, tables, publication="pub", slot=f"{database.name}_no")
    return {f.code for f in check_source(facts, tables) if f.severity == "error"}


def test_a_publication_is_created_once_and_extended(shop: Database) -> None:
    assert codes(shop, ORDERS) == {"no-publication"}
    with shop.connect() as conn:
        dry = ensure_publication(conn, "pub", [ORDERS], dry_run=True)
        assert read_publication(conn, "pub") is None
        assert ensure_publication(conn, "pub", [ORDERS]) == dry
        assert dry == ["CREATE PUBLICATION pub FOR TABLE public.orders WITH (publish_via_partition_root = true);"]
        assert ensure_publication(conn, "pub", [ORDERS]) == []
        assert ensure_publication(conn, "pub", [ORDERS, ODD, PARTS]) == [
            'ALTER PUBLICATION pub ADD TABLE "Größe"."or der", public.parts;'
        ]
        found = read_publication(conn, "pub")
    assert found and found.tables == {ORDERS, ODD, PARTS}
    assert codes(shop, ORDERS, ODD, PARTS) == set()


def test_no_table_is_removed_from_a_publication(shop: Database) -> None:
    shop.execute("CREATE PUBLICATION pub FOR TABLE parts WITH (publish = 'insert, delete')")
    assert codes(shop, ORDERS, PARTS) == {"operations", "via-root", "not-published"}
    with shop.connect() as conn:
        assert ensure_publication(conn, "pub", [ORDERS, PARTS]) == [
            "ALTER PUBLICATION pub SET (publish = 'insert, update, delete, truncate');",
            "ALTER PUBLICATION pub SET (publish_via_partition_root = true);",
            "ALTER PUBLICATION pub ADD TABLE public.orders;",
        ]
    assert codes(shop, ORDERS, PARTS) == set()


def test_hazard_05_a_partitioned_table_is_published_by_its_own_name_or_refused(shop: Database) -> None:
    """If leaves are published under their own names, their events go to topics that no read model reads."""
    shop.execute("CREATE PUBLICATION pub FOR TABLE parts")
    published = "SELECT tablename FROM pg_publication_tables WHERE pubname = 'pub'"
    assert shop.query(published) == [("parts1",)]
    assert codes(shop, PARTS) == {"via-root"}
    with shop.connect() as conn:
        ensure_publication(conn, "pub", [PARTS])
    assert shop.query(published) == [("parts",)]
    assert codes(shop, PARTS) == set()


def test_a_publication_for_all_tables_contains_each_table(shop: Database) -> None:
    shop.execute("CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root)")
    assert codes(shop, ORDERS, PARTS, ODD) == set()
    with shop.connect() as conn:
        assert ensure_publication(conn, "pub", [ORDERS, PARTS, ODD]) == []


def test_hazard_07_row_filters_and_column_lists_are_detected(shop: Database) -> None:
    with shop.connect() as conn:
        if conn.info.server_version < 150000:
            pytest.skip("PostgreSQL 15 brought row filters and column lists")
    shop.execute(
        'CREATE PUBLICATION pub FOR TABLE orders (id, a), "Größe"."or der" WHERE (id > 5)',
    )
    assert codes(shop, ORDERS, ODD) == {"row-filter", "column-list"}


def test_hazard_16_generated_columns_do_not_prevent_updates_of_the_application(shop: Database) -> None:
    shop.execute(
        "CREATE TABLE sums (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED)",
        "CREATE TABLE trees (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED)"
        " PARTITION BY RANGE (id)",
        "CREATE TABLE leaf PARTITION OF trees FOR VALUES FROM (1) TO (9)",
        "INSERT INTO sums VALUES (1)",
        "INSERT INTO trees VALUES (1)",
        "CREATE PUBLICATION pub FOR TABLE sums, trees WITH (publish_via_partition_root = true)",
        "ALTER TABLE sums REPLICA IDENTITY FULL",
        "ALTER TABLE leaf REPLICA IDENTITY FULL",
    )
    tables = TableName("public", "sums"), TableName("public", "trees")
    with shop.connect() as conn:
        new = conn.info.server_version >= 180000
        assert codes(shop, *tables) == ({"generated"} if new else set())
        if new:
            for table in ("sums", "trees"):
                with pytest.raises(psycopg.errors.InvalidColumnReference, match="generated"):
                    conn.execute(f"UPDATE {table} SET a = 3".encode())
        option = "ALTER PUBLICATION pub SET (publish_generated_columns = stored);"
        assert ensure_publication(conn, "pub", tables) == ([option] if new else [])
        assert ensure_publication(conn, "pub", tables) == []
    assert codes(shop, *tables) == set()
    shop.execute("UPDATE sums SET a = 3", "UPDATE trees SET a = 3", "DELETE FROM sums", "DELETE FROM trees")


def test_hazard_16_virtual_generated_columns_rule_out_the_identity_full(shop: Database) -> None:
    with shop.connect() as conn:
        if conn.info.server_version < 180000:
            pytest.skip("PostgreSQL 18 brought virtual generated columns")
        conn.execute("CREATE TABLE sums (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) VIRTUAL)")
        ensure_publication(conn, "pub", [TableName("public", "sums")])
        conn.execute("INSERT INTO sums VALUES (1)")
        conn.execute("UPDATE sums SET a = 2")
        conn.execute("ALTER TABLE sums REPLICA IDENTITY FULL")
        with pytest.raises(psycopg.errors.InvalidColumnReference, match="generated"):
            conn.execute("UPDATE sums SET a = 3")
        with pytest.raises(Fatal, match="UPDATE and DELETE fail"):
            ensure_publication(conn, "pub", [TableName("public", "sums")])


def test_a_partition_is_published_as_its_root(shop: Database) -> None:
    shop.execute("CREATE PUBLICATION pub FOR TABLE parts WITH (publish_via_partition_root)")
    assert codes(shop, TableName("public", "parts1")) == {"partition"}


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE bad (id int)",
        "CREATE TABLE bad (id int PRIMARY KEY); ALTER TABLE bad REPLICA IDENTITY NOTHING",
        "CREATE TABLE bad (id int PRIMARY KEY DEFERRABLE)",
        """CREATE TABLE bad (id int PRIMARY KEY, u int NOT NULL DEFAULT 1);
           CREATE UNIQUE INDEX bad_u ON bad (u);
           ALTER TABLE bad REPLICA IDENTITY USING INDEX bad_u; DROP INDEX bad_u""",
    ],
)
def test_hazard_16_a_table_whose_updates_would_fail_is_not_published(shop: Database, table: str) -> None:
    shop.execute(*table.split(";"))
    bad = TableName("public", "bad")
    with shop.connect() as conn:
        with pytest.raises(Fatal, match="would make the application's own UPDATE and DELETE fail"):
            ensure_publication(conn, "pub", [ORDERS, bad])
        assert read_publication(conn, "pub") is None
    # PostgreSQL reports the same, but later and to the application
    shop.execute("CREATE PUBLICATION pub FOR TABLE bad", "INSERT INTO bad VALUES (1)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        shop.execute("UPDATE bad SET id = 2")


def test_refusals_name_the_statements_to_run(shop: Database) -> None:
    with shop.connect() as conn:
        with pytest.raises(Fatal, match="the table does not exist"):
            ensure_publication(conn, "pub", [TableName("public", "nothing")])
        shop.execute("CREATE UNLOGGED TABLE loose (id int PRIMARY KEY)")
        with pytest.raises(Fatal, match="unlogged") as caught:
            ensure_publication(conn, "pub", [TableName("public", "loose")])
    assert "CREATE PUBLICATION pub FOR TABLE public.loose" in caught.value.hint


def test_a_slot_is_found_by_name(shop: Database) -> None:
    with shop.connect() as conn:
        conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [shop.name])
        facts = read_facts(conn, [ORDERS], publication="pub", slot=shop.name)
    assert facts.slot and (facts.slot.plugin, facts.slot.database) == ("pgoutput", shop.name)
    assert not facts.slot.active and facts.slot.wal_status == "reserved" and facts.slot.behind is not None
    assert facts.role_replicates and facts.wal_level == "logical" and not facts.in_recovery


@contextmanager
def waiting_for_all(database: Database) -> Iterator[tuple[threading.Event, list[str]]]:
    """Runs `wait_for_open_transactions` in a thread. The event is set when it returns."""
    done, seen = threading.Event(), list[str]()

    def wait() -> None:
        with database.connect(options="-c default_transaction_read_only=on") as conn:
            wait_for_open_transactions(conn, 60, lambda open: seen.append(str(open)), interval=0.02)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield done, seen
    finally:
        thread.join()


def test_hazard_14_waits_for_open_and_prepared_transactions_but_not_for_later_ones(
    shop: Database,
) -> None:
    prepared = f"p_{shop.name}"
    with (
        shop.connect(application_name="slow app") as slow,
        shop.connect(autocommit=False) as later,
        shop.connect() as two_phase,
    ):
        two_phase.execute("BEGIN")
        two_phase.execute("INSERT INTO orders VALUES (2)")
        two_phase.execute(f"PREPARE TRANSACTION '{prepared}'".encode())
        slow.execute("BEGIN")
        slow.execute("INSERT INTO orders VALUES (1)")  # the newest transaction, which no snapshot shows yet
        with waiting_for_all(shop) as (done, seen):
            deadline = time.monotonic() + 10
            while not seen and time.monotonic() < deadline:
                time.sleep(0.01)
            later.execute("INSERT INTO orders VALUES (3)")
            assert "(slow app) since" in seen[0] and f"prepared transaction '{prepared}'" in seen[0]
            assert seen[0].count(";") == 1
            slow.execute("COMMIT")
            assert not done.wait(0.3)
            two_phase.execute(f"COMMIT PREPARED '{prepared}'".encode())
            assert done.wait(10), "a transaction that began later must not be waited for"


def test_the_timeout_error_names_the_open_transactions(shop: Database) -> None:
    with shop.connect(application_name="forgotten") as slow, shop.connect() as conn:
        slow.execute("BEGIN")
        slow.execute("INSERT INTO orders VALUES (1)")
        with pytest.raises(Retry, match="forgotten"):
            wait_for_open_transactions(conn, 0.2)
        slow.execute("ROLLBACK")
        wait_for_open_transactions(conn, 5)


def test_transactions_of_other_databases_are_not_waited_for(stack: object, shop: Database, database: Database) -> None:
    with (
        psycopg.connect(shop.dsn.rsplit("/", 1)[0] + "/postgres", autocommit=True) as other,
        shop.connect() as conn,
    ):
        other.execute("BEGIN")
        other.execute("SELECT pg_current_xact_id()")
        wait_for_open_transactions(conn, 2)
        other.execute("ROLLBACK")
