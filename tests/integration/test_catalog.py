"""Reads the catalog of PostgreSQL, and its fingerprint, which changes when the tables change."""

import psycopg
import pytest
from psycopg import sql

from syncer.declaration.catalog import Catalog, Column
from syncer.declaration.row_key import missing
from syncer.events import TableName
from syncer.postgres.catalog import fingerprint, load, load_stable
from tests.harness import Database

PLAIN = TableName("public", "plain")
PART = TableName("public", "part")
ODD = TableName("Größe", 'Ta"b')

SCHEMA = [
    "CREATE EXTENSION citext",
    'CREATE SCHEMA "Größe"',
    "CREATE TYPE mood AS ENUM ('sad', 'so so')",
    "CREATE TYPE pair AS (a int, b text)",
    "CREATE TYPE floats AS RANGE (subtype = float8)",
    "CREATE DOMAIN posint AS int CHECK (value > 0)",
    "CREATE DOMAIN ints AS posint[]",
    """CREATE TABLE plain (
           id bigint PRIMARY KEY, a int NOT NULL, c int,
           g int GENERATED ALWAYS AS (a * 2 + coalesce(c, 0)) STORED, m mood, mm mood[], pr pair,
           p posint, ps ints, r floats, n numeric(10, 2), ch char(3), ci citext,
           t timestamptz(3), mr int4multirange)""",
    "ALTER TABLE plain ADD gone int",
    "ALTER TABLE plain DROP gone",
    "CREATE INDEX ON plain (a, lower(ch), c)",
    "CREATE INDEX ON plain (c) WHERE a > 1",
    "CREATE INDEX ON plain USING brin (c)",
    "CREATE UNIQUE INDEX plain_u ON plain (a)",
    'CREATE TABLE "Größe"."Ta""b" ("Id" uuid PRIMARY KEY, "x y" text NOT NULL UNIQUE)',
    'ALTER TABLE "Größe"."Ta""b" REPLICA IDENTITY USING INDEX "Ta""b_x y_key"',
    "CREATE TABLE part (id int, k int, t text, PRIMARY KEY (k, id)) PARTITION BY LIST (k)",
    "CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1)",
    "CREATE TABLE part2 PARTITION OF part FOR VALUES IN (2) PARTITION BY RANGE (id)",
    "CREATE TABLE part2a PARTITION OF part2 FOR VALUES FROM (1) TO (10)",
    "ALTER TABLE part2a REPLICA IDENTITY FULL",
]


@pytest.fixture
def schema(database: Database) -> Database:
    database.execute(*SCHEMA)
    return database


def read(database: Database, *tables: TableName) -> Catalog:
    with database.connect() as conn:
        return load(conn, tables)


def test_columns_have_the_type_below_domains_arrays_and_ranges(schema: Database) -> None:
    columns = read(schema, PLAIN).tables[PLAIN].columns
    assert list(columns) == "id a c g m mm pr p ps r n ch ci t mr".split()
    assert columns["id"] == Column("id", "bigint", "bigint", True)
    assert columns["g"].generated_from == ("a", "c")
    assert columns["n"].type == "numeric"
    assert columns["t"].type == "timestamp with time zone"
    assert (columns["ch"].type, columns["ch"].base) == ("bpchar", "character"), "a cast to `character` would cut"
    assert (columns["m"].type, columns["m"].base) == ("public.mood", "enum")
    assert (columns["mm"].type, columns["mm"].base, columns["mm"].element) == (
        "public.mood[]",
        "array",
        "public.mood",
    )
    assert (columns["p"].type, columns["p"].base) == ("public.posint", "integer")
    assert (columns["ps"].base, columns["ps"].element) == ("array", "public.posint")
    assert (columns["r"].base, columns["r"].element) == ("range", "double precision")
    assert (columns["mr"].base, columns["mr"].element) == ("multirange", "integer")
    assert columns["pr"].base == "composite"
    assert (columns["ci"].type, columns["ci"].base) == ("public.citext", "citext")


def test_enum_labels_are_in_order(schema: Database) -> None:
    schema.execute("ALTER TYPE mood ADD VALUE 'glad' BEFORE 'so so'")
    assert read(schema, PLAIN).enums == {"public.mood": ("sad", "glad", "so so")}


def test_type_names_do_not_depend_on_the_search_path(schema: Database) -> None:
    with schema.connect() as conn:
        conn.execute("SET search_path = pg_catalog")
        assert load(conn, [PLAIN]) == read(schema, PLAIN)


def test_indexes_that_serve_equality(schema: Database) -> None:
    table = read(schema, PLAIN).tables[PLAIN]
    assert table.primary_key == ("id",)
    assert {(index.name, index.columns, index.unique, index.partial) for index in table.indexes} == {
        ("plain_pkey", ("id",), True, False),
        ("plain_u", ("a",), True, False),
        ("plain_a_lower_c_idx", ("a",), False, False),
        ("plain_c_idx", ("c",), False, True),
    }


KEYLESS = [
    "CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int, ids bigint[], tags text[], UNIQUE (a) DEFERRABLE)",
    "CREATE UNIQUE INDEX of_partial ON t (b) WHERE c > 1",
    "CREATE UNIQUE INDEX of_expression ON t (b, (a + 1))",
    "CREATE UNIQUE INDEX of_nullable ON t (c)",
]
T = TableName("public", "t")


def test_a_unique_index_identifies_the_rows_of_a_table_without_a_primary_key(database: Database) -> None:
    database.execute(*KEYLESS)
    table = read(database, T).tables[T]
    assert (table.primary_key, table.key_index) == ((), "")
    assert missing(table, root=False)[0] == (
        "public.t has no primary key, and no unique index identifies its rows (of_expression: it has an expression;"
        " of_nullable: c can be NULL; of_partial: it is partial; t_a_key: it is deferrable)"
    )
    with pytest.raises(psycopg.Error, match="non-immediate"):
        database.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_key")
    database.execute("CREATE UNIQUE INDEX wide ON t (b, a) INCLUDE (c)")
    table = read(database, T).tables[T]
    assert (table.primary_key, table.key_index, table.leaves[0].identity_columns) == (("b", "a"), "wide", ())
    before = print_of(database)
    database.execute("CREATE UNIQUE INDEX narrow ON t (a)")
    assert read(database, T).tables[T].key_index == "narrow"
    assert print_of(database) != before
    database.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX wide")
    table = read(database, T).tables[T]
    assert (table.key_index, table.leaves[0].identity_columns) == ("wide", ("b", "a")), "that of the identity"


def print_of(database: Database) -> str:
    with database.connect() as session:
        return load_stable(session, [T])[1].value


def test_the_gin_indexes_that_find_an_array_by_an_element(database: Database) -> None:
    database.execute(*KEYLESS, "CREATE EXTENSION intarray", "ALTER TABLE t ADD few int[]")
    database.execute(
        "CREATE INDEX ON t USING gin (ids) WHERE c > 1",
        "CREATE INDEX ON t USING gin (few gin__int_ops)",
        'CREATE INDEX ON t USING gin (tags COLLATE "C")',
        "CREATE INDEX ON t (ids)",
    )
    assert read(database, T).tables[T].element_indexes == frozenset()
    database.execute("CREATE INDEX ON t USING gin (tags, ids)", "CREATE INDEX ON t USING gin (few)")
    assert read(database, T).tables[T].element_indexes == {"ids", "tags", "few"}


def test_each_partition_leaf_has_its_own_identity(schema: Database) -> None:
    table = read(schema, PART).tables[PART]
    assert (table.kind, table.primary_key) == ("partitioned", ("k", "id"))
    found = {leaf.name.name: (leaf.identity, leaf.identity_columns) for leaf in table.leaves}
    assert found == {"part1": ("default", ("k", "id")), "part2a": ("full", ("id", "k", "t"))}


def test_an_index_as_identity_and_quoted_names(schema: Database) -> None:
    table = read(schema, ODD).tables[ODD]
    assert table.name == ODD
    assert [(leaf.identity, leaf.identity_columns) for leaf in table.leaves] == [("index", ("x y",))]
    schema.execute('ALTER TABLE "Größe"."Ta""b" DROP CONSTRAINT "Ta""b_x y_key"')
    assert read(schema, ODD).tables[ODD].leaves[0].identity_columns == ()


def test_unsupported_and_missing_tables(database: Database) -> None:
    database.execute(
        "CREATE VIEW v AS SELECT 1 AS one",
        "CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one",
        "CREATE UNLOGGED TABLE ul (id int PRIMARY KEY)",
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child () INHERITS (parent)",
        "CREATE TABLE p (id int) PARTITION BY LIST (id)",
        "CREATE UNLOGGED TABLE p1 PARTITION OF p DEFAULT",
    )
    names = [TableName("public", name) for name in "v mv ul parent child p missing".split()]
    tables = read(database, *names).tables
    assert {name.name: (t.kind, t.persistence, t.inherits) for name, t in tables.items()} == {
        "v": ("view", "permanent", False),
        "mv": ("materialized view", "permanent", False),
        "ul": ("table", "unlogged", False),
        "parent": ("table", "permanent", True),
        "child": ("table", "permanent", True),
        "p": ("partitioned", "unlogged", False),
    }


def test_privileges_and_row_security_are_those_of_the_current_role(schema: Database) -> None:
    role = f"reader_{schema.name}"
    schema.execute(f"CREATE ROLE {role}", "ALTER TABLE plain ENABLE ROW LEVEL SECURITY")
    try:
        with schema.connect() as conn:
            assert (
                load(conn, [PLAIN]).tables[PLAIN].can_select,
                load(conn, [PLAIN]).tables[PLAIN].row_security,
            ) == (
                True,
                False,
            )
            conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            table = load(conn, [PLAIN]).tables[PLAIN]
            assert (table.can_select, table.row_security) == (False, True)
    finally:
        schema.execute(f"DROP ROLE {role}")


UNCHANGED = [
    "ANALYZE plain, part",
    "VACUUM (FREEZE) plain, part",
    "VACUUM (FREEZE) pg_catalog.pg_class, pg_catalog.pg_attribute, pg_catalog.pg_enum",
    "INSERT INTO plain (id, a) SELECT i, i FROM generate_series(1, 5000) i; ANALYZE plain",
    "CREATE TABLE other (id int PRIMARY KEY, m mood)",
    "CREATE PUBLICATION other FOR TABLE plain",
    "CREATE INDEX CONCURRENTLY ON plain (c)",
]
CHANGED = [
    "ALTER TABLE plain ADD more int",
    "ALTER TABLE plain DROP c CASCADE",
    "ALTER TABLE plain RENAME c TO d",
    "ALTER TABLE plain RENAME TO plane",
    "ALTER TABLE plain ALTER n TYPE numeric(10, 2) USING n + 1",
    "ALTER TABLE plain REPLICA IDENTITY FULL",
    "ALTER TABLE plain ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE plain DROP CONSTRAINT plain_pkey",
    "DROP TABLE plain",
    "BEGIN; ALTER TABLE plain RENAME TO plane; CREATE TABLE plain (LIKE plane INCLUDING ALL); COMMIT",
    'ALTER TABLE "Größe"."Ta""b" DROP CONSTRAINT "Ta""b_x y_key"',
    "CREATE TABLE part3 PARTITION OF part DEFAULT",
    "ALTER TABLE part DETACH PARTITION part1",
    "CREATE TABLE part3 (LIKE part); ALTER TABLE part ATTACH PARTITION part3 FOR VALUES IN (3)",
    "DROP TABLE part2a",
    "ALTER TABLE part2a REPLICA IDENTITY DEFAULT",
    "ALTER TABLE part1 REPLICA IDENTITY FULL",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "ALTER TYPE mood ADD VALUE 'glad'",
    "ALTER TYPE pair ADD ATTRIBUTE c int",
    "ALTER TYPE mood RENAME TO humour",
    "ALTER TABLE plain RENAME TO plane; ALTER TABLE plane RENAME TO plain",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; ALTER TYPE mood RENAME VALUE 'blue' TO 'sad'",
    "CREATE TABLE child () INHERITS (plain)",
    "ALTER PUBLICATION mine DROP TABLE plain",
    "ALTER PUBLICATION mine DROP TABLE plain; ALTER PUBLICATION mine ADD TABLE plain",
    "ALTER PUBLICATION mine ADD TABLES IN SCHEMA public",
    "ALTER PUBLICATION mine SET (publish = 'insert')",
    "ALTER PUBLICATION mine SET TABLE plain (id, a), part",
    "DROP PUBLICATION mine",
]


@pytest.mark.parametrize("statement", UNCHANGED + CHANGED)
def test_the_fingerprint_changes_only_when_the_tables_change(schema: Database, statement: str) -> None:
    schema.execute("CREATE PUBLICATION mine FOR TABLE plain, part")
    with schema.connect() as conn:
        _, before = load_stable(conn, [PLAIN, PART, ODD], publication="mine")
        query = sql.SQL("SELECT {}").format(before.sql)
        assert conn.execute(query).fetchone() == (before.value,)
        for part in statement.split("; "):
            conn.execute(part.encode())
        row = conn.execute(query).fetchone()
        assert row
        assert (row[0] != before.value) == (statement in CHANGED)


def test_the_fingerprint_is_cheap_enough_for_every_batch(schema: Database) -> None:
    with schema.connect(prepare_threshold=1) as conn:
        catalog, _ = load_stable(conn, [PLAIN, PART, ODD])
        explain = sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) SELECT {}").format(fingerprint(catalog))
        times = [conn.execute(explain).fetchall()[0][0][0]["Execution Time"] for _ in range(20)]
    assert min(times) < 1.0, f"milliseconds: {times}"


def test_the_fingerprint_holds_no_parameters(schema: Database) -> None:
    with schema.connect() as conn:
        text = fingerprint(read(schema, PLAIN, PART)).as_string(conn)
    assert "%" not in text
    assert text.startswith("(") and text.endswith(")")
