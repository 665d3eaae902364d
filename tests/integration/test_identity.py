"""Replica identities: old values that are missing in events, and read models that are refused because of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from devstack import Stack
from syncer.checks import Finding, check_model
from syncer.config.schema import Config
from syncer.config.schema import load as load_config
from syncer.connect.client import Connect
from syncer.errors import Fatal
from syncer.events import ChangeEvent, Position, TableName
from syncer.pipeline import decode
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.route import Route
from syncer.postgres.fingerprint import Tables
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from tests.harness import Database, Names
from tests.harness.connector import definition, events, streaming

AT = Position("topic", 0, 0)


def configured(database: Database, folder: Path, declaration: str) -> Config:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "model.yaml").write_text(declaration)
    environment = {
        "SYNCER_MODELS": str(folder / "models"),
        "SYNCER_POSTGRES__DSN": database.dsn,
        "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "nowhere:1",
        "SYNCER_KAFKA__TOPIC_PREFIX": "here",
    }
    return load_config(environ=environment)


# -- while running ------------------------------------------------------------------------------------------

MADE_LATER = {
    "a partition made later": [
        "CREATE TABLE child (id int, parent_id int, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
        "CREATE TABLE child1 PARTITION OF child FOR VALUES FROM (0) TO (10)",
        "ALTER TABLE child1 REPLICA IDENTITY FULL",
        "CREATE TABLE child2 PARTITION OF child FOR VALUES FROM (10) TO (20)",
    ],
    "an identity's index dropped": [
        "CREATE TABLE child (id int PRIMARY KEY, parent_id int NOT NULL)",
        "CREATE UNIQUE INDEX child_key ON child (id, parent_id)",
        "ALTER TABLE child REPLICA IDENTITY USING INDEX child_key",
        "DROP INDEX child_key",
    ],
    "no identity": [
        "CREATE TABLE child (id int PRIMARY KEY, parent_id int)",
        "ALTER TABLE child REPLICA IDENTITY FULL",
        "ALTER TABLE child REPLICA IDENTITY NOTHING",
    ],
}
PARENTS = """
name: parents
root: {table: public.parent}
document: {id: id, children: {many: public.child, on: {parent_id: id}, value: id}}
sink: {memory: {}}
"""


@pytest.mark.parametrize("made", MADE_LATER.values(), ids=MADE_LATER)
def test_hazard_02_a_removed_identity_is_detected_in_the_next_batch(
    database: Database, tmp_path: Path, made: list[str]
) -> None:
    *before, later = made
    with watched(database, tmp_path, PARENTS, *before) as rows:
        database.execute(later)
        with pytest.raises(Fatal, match="replica identity") as error, rows.view():
            pass
        assert error.value.hint.startswith("syncer check parents")


@contextmanager
def watched(database: Database, folder: Path, declaration: str, *tables: str) -> Iterator[SnapshotReader]:
    """Yields the reader that the daemon uses. It checks the tables again whenever they are altered."""
    database.execute("CREATE TABLE parent (id int PRIMARY KEY)", *tables)
    config = configured(database, folder, declaration)
    [model] = loader.load_declared(config)
    loaded = loader.load_checked(config, model)
    tables_ = Tables(model.name, loaded.fingerprint, lambda: loader.revalidate(config, loaded))
    with closing(SnapshotReader(config.postgres.arguments(), loaded.compiled, tables=tables_)) as rows:
        with rows.view():
            pass
        yield rows


PARENT = """
name: parents
root: {table: public.parent}
document: {id: id}
sink: {memory: {}}
"""


def test_hazard_05_a_table_that_gains_an_inheritance_child_is_refused_in_the_next_batch(
    database: Database, tmp_path: Path
) -> None:
    """SELECT returns the child's rows, but no event reports them."""
    with watched(database, tmp_path, PARENT) as rows:
        database.execute("CREATE TABLE child () INHERITS (parent)")
        with pytest.raises(Fatal, match="inheritance"), rows.view():
            pass
        database.execute("DROP TABLE child")
        with rows.view():
            pass


def test_hazard_02_the_sql_of_check_gives_new_partitions_the_identity(database: Database, tmp_path: Path) -> None:
    """Covers every way to create a partition. Tables of others stay unchanged."""
    database.execute(
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (id int, k int, parent_id int, PRIMARY KEY (id, k)) PARTITION BY LIST (k)",
        "CREATE INDEX ON child (parent_id)",
        "CREATE TABLE c1 PARTITION OF child FOR VALUES IN (1)",
        "ALTER TABLE c1 REPLICA IDENTITY FULL",
        "ALTER TABLE child REPLICA IDENTITY FULL",  # partitions do not inherit it
        "CREATE TABLE c2 PARTITION OF child FOR VALUES IN (2)",
    )
    config = configured(database, tmp_path, PARENTS)
    [model] = loader.load_declared(config)

    def warned() -> list[Finding]:
        loaded = loader.load_model(config, model)
        found = check_model(model.file, loaded.compiled, loaded.catalog)
        return [finding for finding in found if finding.code == "new-partitions"]

    [found] = warned()
    assert "leaves out parent_id" in found.what
    with pytest.raises(Fatal, match=r"the replica identity leaves out parent_id: public\.c2"):
        loader.load_checked(config, model)
    database.execute(*found.fix.splitlines(), "ALTER TABLE c2 REPLICA IDENTITY FULL")
    assert warned() == [] and len(found.fix.splitlines()) == 2
    database.execute(
        "CREATE TABLE c3 PARTITION OF child FOR VALUES IN (3)",
        "CREATE TABLE c4 (LIKE child INCLUDING ALL)",
        "ALTER TABLE child ATTACH PARTITION c4 FOR VALUES IN (4)",
        "CREATE TABLE c5 PARTITION OF child FOR VALUES IN (5) PARTITION BY LIST (id)",
        "CREATE TABLE c51 PARTITION OF c5 FOR VALUES IN (1)",
        "CREATE TABLE c6 PARTITION OF child FOR VALUES IN (6) PARTITION BY LIST (id)",
        "CREATE TABLE c61 (LIKE child INCLUDING ALL)",
        "ALTER TABLE c6 ATTACH PARTITION c61 FOR VALUES IN (1)",
        "CREATE TABLE others (k int) PARTITION BY LIST (k)",
        "CREATE TABLE others1 PARTITION OF others FOR VALUES IN (1)",
        "ALTER TABLE child ADD more int",
    )
    leaves = loader.load_checked(config, model).catalog.tables[TableName("public", "child")].leaves
    assert {leaf.name.name: leaf.identity for leaf in leaves} == dict.fromkeys(
        ("c1", "c2", "c3", "c4", "c51", "c61"), "full"
    )
    assert database.query("SELECT relreplident FROM pg_class WHERE relname = 'others1'") == [("d",)]
    role = f"other_{database.name}"
    with database.connect() as session:  # a role without the right to alter them can still create tables
        session.execute(f"CREATE ROLE {role}".encode())
        try:
            session.execute(f"GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role}".encode())
            session.execute("CREATE TABLE anothers (id int)")
        finally:
            session.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())
    database.execute("DROP TABLE child CASCADE", "CREATE TABLE after (id int)")


KEYLESS = "name: p\nroot: {table: public.parent}\ndocument: {b: b}\nsink: {memory: {}}"


@pytest.mark.parametrize(
    ("tables", "declaration"),
    [
        (["CREATE TABLE parent (a text, b int, UNIQUE (b, a))"], KEYLESS),
        (
            [
                "CREATE TABLE parent (id int PRIMARY KEY)",
                "CREATE TABLE child (id int PRIMARY KEY, parent_id text)",
                "ALTER TABLE child REPLICA IDENTITY FULL",
            ],
            PARENTS,
        ),
    ],
    ids=["unique only", "other types"],
)
def test_a_refused_table_is_accepted_after_the_statement_in_the_hint(
    database: Database, tmp_path: Path, tables: list[str], declaration: str
) -> None:
    database.execute(*tables)
    config = configured(database, tmp_path, declaration)
    [model] = loader.load_declared(config)
    with pytest.raises(Fatal) as error:
        loader.load_checked(config, model)
    database.execute("ALTER TABLE" + error.value.hint.partition("ALTER TABLE")[2])
    loader.load_checked(config, model)


# -- the content of events ----------------------------------------------------------------------------------


@pytest.fixture
def connect(stack: Stack) -> Iterator[Connect]:
    with closing(Connect(stack.connect)) as client:
        yield client


def server_version(database: Database) -> int:
    """Returns the version as a number, such as 150014."""
    with database.connect() as session:
        return session.info.server_version


@contextmanager
def followed(stack: Stack, connect: Connect, database: Database, names: Names) -> Iterator[Any]:
    """Yields a function that runs statements and returns the changes that Debezium sends for them."""
    database.execute("CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)")
    if server_version(database) >= 180000:  # otherwise PostgreSQL would refuse updates of such tables
        database.execute("ALTER PUBLICATION pub SET (publish_generated_columns = stored)")

    def changes(*statements: str, count: int) -> list[ChangeEvent]:
        database.execute(*statements)
        found = events(stack, names, count)
        values = [json.dumps(event).encode() for table in sorted(found) for _, event in found[table]]
        return [change for value in values if (change := decode.change(AT, value)) is not None]

    with streaming(stack, connect, definition(database, names), database):
        yield changes


THINGS = """
name: things
root: {table: public.thing}
document: {id: id, pair: pair, double: double, lasts: lasts}
sink: {memory: {}}
"""


def test_hazard_03_updates_with_equal_images_are_not_ignored(
    stack: Stack, connect: Connect, database: Database, names: Names, tmp_path: Path
) -> None:
    """With identity FULL: before PostgreSQL 18, images lack generated columns. An interval loses digits."""
    database.execute(
        "CREATE TYPE two AS (a int, b int)",
        """CREATE TABLE thing (id int PRIMARY KEY, pair two, half int, lasts interval, spare text,
               double int GENERATED ALWAYS AS (half * 2) STORED)""",
        "ALTER TABLE thing REPLICA IDENTITY FULL",
    )
    config = configured(database, tmp_path, THINGS)
    route = Route(loader.load_checked(config, loader.load_declared(config)[0]).compiled)
    with followed(stack, connect, database, names) as changes:
        created, *updates = changes(
            "INSERT INTO thing VALUES (1, ROW(1, 2), 5, '1 month', 'a')",
            "UPDATE thing SET pair = ROW(1, 3)",
            "UPDATE thing SET half = 6",
            "UPDATE thing SET lasts = '30 days'",
            count=4,
        )
    assert route(created)
    for update in updates:
        has_generated_column = "double" in update.before and "double" in update.after
        assert update.op == "u" and has_generated_column == (server_version(database) >= 180000)
        assert route(update), update


LED = """
name: projects
root: {table: public.project}
document: {id: id, lead: {one: public.person, on: {badge: lead}, value: name}}
sink: {memory: {}}
"""


def test_hazard_04_a_one_link_on_another_column_needs_the_old_value(
    stack: Stack, connect: Connect, database: Database, names: Names, tmp_path: Path
) -> None:
    """A badge gets a new owner. The project that showed the old owner is found by the old value."""
    database.execute(
        "CREATE TABLE person (id int PRIMARY KEY, badge text UNIQUE, name text)",
        "CREATE TABLE project (id int PRIMARY KEY, lead text)",
    )
    config = configured(database, tmp_path, LED)
    [model] = loader.load_declared(config)
    with followed(stack, connect, database, names) as changes:
        _, moved = changes("INSERT INTO person VALUES (1, 'a', 'Ada')", "UPDATE person SET badge = 'b'", count=2)
        assert moved.before is None, "with the default identity, the old value is missing"
        with pytest.raises(Fatal, match="the replica identity leaves out badge"):
            loader.load_checked(config, model)
        database.execute("ALTER TABLE person REPLICA IDENTITY FULL")
        compiled = loader.load_checked(config, model).compiled
        [moved] = changes("UPDATE person SET badge = 'c'", count=1)
    dirty = Dirty()
    Resolve(compiled)(moved, Route(compiled)(moved), dirty)
    [values] = dirty.lookups.values()
    assert set(values) == {("b",), ("c",)}
