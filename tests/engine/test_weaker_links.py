"""Rules for links that look sufficient and are not. One history must detect each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import syncer.declaration.compile as compiler
from syncer.declaration import outer_conditions, scope, text_links
from syncer.declaration.catalog import Column as CatalogColumn
from syncer.declaration.names import quote
from syncer.declaration.row import value_of
from syncer.declaration.sql_types import key_type
from syncer.errors import SyncerError
from syncer.pipeline.resolve import Resolve
from tests.engine.arbitrary import Case
from tests.engine.play import Play
from tests.engine.schema import Column, Schema, Table
from tests.engine.statements import Statement, Transaction
from tests.engine.tree import Expression, Key, Level, Link, Name, Shown, Tree

POSTS = Table(
    "posts",
    (
        Column("k", "integer", True, key=True),
        Column("code", "character(3)"),
        Column("kind", "text"),
        Column("ref", "text"),
    ),
    ("k",),
)
NOTES = Table(
    "notes", (Column("k", "integer", True, key=True), Column("target", "text"), Column("label", "text")), ("k",)
)


def name(column: str) -> Expression:
    return Expression(column, "text", lambda here: here.name(Name((), column)))


def is_a(here: Any) -> Any:
    kind = here.name(Name((), "kind"))
    return None if kind is None else kind == "a"


def link(kind: str, table: str, its: str, ours: str, when: Expression | None = None) -> Link:
    shown = name("label" if table == "notes" else "code")
    return Link(kind, table, ((its, ours),), Level({}, {}, shown), when=when)


LINKS: dict[Key, Link] = {
    ("below",): link("many", "notes", "target", "k::text"),
    ("coded",): link("many", "notes", "target", "code::text"),
    ("noted",): link("one", "notes", "k::text", "ref"),
    ("other",): link("one", "posts", "k::text", "ref", Expression("kind = 'a'", "boolean", is_a)),
}
CASE = Case(
    Schema((POSTS, NOTES)),
    Tree("posts", Level(LINKS, {"id": name("k"), **{key[0]: Shown(key) for key in LINKS}})),
    {"posts": "FULL", "notes": "FULL"},
)
BEGIN = (
    "INSERT INTO posts VALUES (1, 'a', 'a', '2'), (2, 'b', 'b', '1'), (7, NULL, 'a', '02'), (8, '3', NULL, 'abc')",
    "INSERT INTO notes VALUES (1, '1', 'x'), (2, 'a', 'y'), (3, '02', 'z'), (4, '3', 'v'), (5, 'a  ', 'w')",
)
HISTORY = (
    "UPDATE notes SET target = '2' WHERE k = 1",
    "UPDATE notes SET label = 'changed'",
    "UPDATE notes SET target = 'b' WHERE k = 2",
    "UPDATE notes SET target = 'abc' WHERE k = 3",
    "UPDATE posts SET kind = 'a' WHERE k = 2",
    "UPDATE posts SET code = 'new' WHERE k IN (1, 2)",
    "UPDATE posts SET ref = '7', kind = NULL WHERE k = 1",
    "DELETE FROM notes WHERE k = 4",
    "INSERT INTO notes VALUES (7, 'new', 'n')",
    "DELETE FROM posts WHERE k = 2",
)


def play(dsn: str) -> bool:
    """Returns whether the documents equal the rows after each step, and no document was rejected."""
    playing = Play(dsn, CASE)
    try:
        playing.act(Transaction(tuple(map(Statement, BEGIN)), "COMMIT"))
        playing.backfill()
        for sql in ("", *HISTORY):
            if sql:
                playing.act(Transaction((Statement(sql),), "COMMIT"))
            try:
                playing.drain()
            except SyncerError:  # a failed look-up ends the lane
                return False
            if playing.written() != playing.expected() or playing.refused():
                return False
        return True
    finally:
        playing.close()


def test_the_history_ends_with_equal_documents(dsn: str) -> None:
    assert play(dsn)


def after_image_only(call: Callable[..., Any]) -> Callable[..., Any]:
    def weaker(self: Resolve, change: Any, *arguments: Any) -> Any:
        return call(self, change._replace(before=None) if change.after else change, *arguments)

    return weaker


def cast_without_care(sought: CatalogColumn, sought_sql: str, text: str) -> str:
    """Casts the text to the type that is sought."""
    return f"{sought_sql} = {text}::{key_type(sought.type, sought.base)}"


def numbers_not_texts(sought: CatalogColumn, sought_sql: str, text: str) -> str:
    """Forgets that the texts are compared: `02` becomes the number 2."""
    if sought.base == "integer":
        return f"{sought_sql} = CASE WHEN {text} ~ '^[0-9]+$' THEN {text}::pg_catalog.int8 END"
    return f"{sought_sql} = {text}::{key_type(sought.type, sought.base)}"


def unused(self: Any, node: Any, column: str) -> Any:
    """Forgets that the columns of `when` are used."""
    return value_of(node.table.columns[column], f"{self._alias}.{quote(column)}", self._catalog)


WEAKER: dict[str, tuple[object, str, Any]] = {
    "only the after image is looked up": (Resolve, "__call__", after_image_only(Resolve.__call__)),
    "a text is cast without care": (text_links, "matched_text", cast_without_care),
    "numbers are compared, not texts": (text_links, "matched_text", numbers_not_texts),
    "the texts of events are root keys": (compiler, "_same_text", lambda *_: True),
    "the padding of char(n) is a part of its text": (
        text_links,
        "text_of",
        lambda column, sql: f"pg_catalog.rpad({sql}::pg_catalog.text, 3)" if column.base == "character" else sql,
    ),
    "columns of `when` are not used": (outer_conditions._OuterRow, "column", unused),
    "`when` is forgotten in the join": (scope, "outer_condition", lambda *_: ""),
}


@pytest.mark.parametrize("rule", WEAKER)
def test_a_weaker_rule_is_detected(rule: str, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, weaker = WEAKER[rule]
    monkeypatch.setattr(owner, attribute, weaker)
    assert not play(dsn)
