"""Mistakes that only PostgreSQL can detect are reported with file, line and expression, like all others."""

import pytest

from syncer.declaration.compile import compile
from syncer.declaration.model import parse, tables
from syncer.errors import Fatal, Retry
from syncer.postgres.catalog import load
from syncer.postgres.session import PINNED
from syncer.postgres.validate_sql import plan
from tests.harness import Database

SCHEMA = """
CREATE TABLE loans (id bigint PRIMARY KEY, reader text, due timestamptz, tags text[], days int);
CREATE TABLE copies (id bigint PRIMARY KEY, loan_id bigint, title text, price numeric, at date);
CREATE INDEX ON copies (loan_id)"""
SOUND = """\
name: loans
root: {table: public.loans}
where: id > 0
relations:
  paid: {many: public.copies, on: {loan_id: id}, where: price > 0}
document:
  reader: reader
  late: due > '2026-01-01'
  copies:
    many: public.copies
    on: {loan_id: id}
    where: title <> ''
    order_by: [at, price desc]
    document: {title: title, about: {object: {price: price}}}
  by_title: {value: sum(copies.price), group_by: copies.title}
  spent: sum(paid.price)
sink: {redis: {key: 'loan:{id}'}}
"""


@pytest.fixture
def library(database: Database) -> Database:
    database.execute(*SCHEMA.split(";"))
    return database


def planned(database: Database, text: str) -> None:
    model = parse(text, "m.yaml")
    with database.connect() as connection:
        for name, value in PINNED.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        catalog = load(connection, tables(model))
        plan(connection, model, catalog, compile(model, catalog))


def mistakes(database: Database, text: str) -> list[str]:
    """Returns the mistakes that PostgreSQL finds, one by one."""
    with pytest.raises(Fatal) as caught:
        planned(database, text)
    assert "syncer check" not in str(caught.value)
    return [str(one) for one in getattr(caught.value, "each", [caught.value])]


def test_a_valid_declaration_is_accepted(library: Database) -> None:
    planned(library, SOUND)


@pytest.mark.parametrize(
    ("right", "wrong", "line", "shown"),
    [
        ("late: due > '2026-01-01'", "late: due * 2", 8, "due * 2: operator does not exist"),
        ("late: due > '2026-01-01'", "late: \"'abc'::int + days\"", 8, "invalid input syntax"),
        ("where: id > 0", "where: reader > 0", 3, "reader > 0: operator does not exist"),
        ("where: title <> ''", "where: title > 0", 12, "title > 0: operator does not exist"),
        ("[at, price desc]", "[at, title * 2]", 13, "at, title * 2: operator does not exist"),
        ("{price: price}", "{price: price || at - title}", 14, "price || at - title: "),
        ("sum(copies.price)", "sum(copies.title)", 15, "sum(copies.title) by copies.title: function"),
        ("where: price > 0", "where: price > at", 5, "price > at: operator does not exist"),
    ],
    ids=str,
)
def test_a_refused_expression_is_reported_with_its_line(
    library: Database, right: str, wrong: str, line: int, shown: str
) -> None:
    [reported] = mistakes(library, SOUND.replace(right, wrong))
    assert reported.startswith(f"m.yaml:{line}: PostgreSQL rejects {shown}" if ":" in shown else f"m.yaml:{line}: ")
    assert shown in reported and "\n  → " in reported


def test_all_refused_expressions_are_reported(library: Database) -> None:
    reported = mistakes(
        library, SOUND.replace("reader: reader", "reader: due - reader").replace("> '2026-01-01'", "* 2")
    )
    assert [line.partition(": ")[0] for line in reported] == ["m.yaml:7", "m.yaml:8"]


def test_the_sql_is_shown_if_no_single_expression_is_the_cause(library: Database) -> None:
    model = parse(SOUND, "m.yaml")
    with library.connect() as connection:
        catalog = load(connection, tables(model))
        library.execute("ALTER TABLE copies RENAME loan_id TO loan")
        with pytest.raises(Fatal, match=r"near … .*loan_id") as caught:
            plan(connection, model, catalog, compile(model, catalog))
    assert caught.value.where == "m.yaml"


def test_a_table_dropped_after_the_catalog_was_read_is_retried(library: Database) -> None:
    model = parse(SOUND, "m.yaml")
    with library.connect() as connection:
        catalog = load(connection, tables(model))
        library.execute("DROP TABLE copies")
        with pytest.raises(Retry, match="copies"):
            plan(connection, model, catalog, compile(model, catalog))
