"""Generates the SQL of `syncer trace`: from one root down to the rows that are linked to it.

The look-ups of `compile.py` go up: from the link values of a changed row to the keys of all its roots. A trace knows
the root. So it goes down, for each table use: which rows are linked to this root, and which link values lead to it?

The statements follow links only. They ignore `where` and `limit`: a row that is excluded now may have been in the
document before, and its change may be the reason that it is excluded.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names only

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from syncer.declaration import array_links, text_links
from syncer.declaration.ancestors_sql import depth_of, path_up
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import Compiled, Lookup, TableUse
from syncer.declaration.group_sql import leading_images
from syncer.declaration.grouping import bind_root
from syncer.declaration.model import Model
from syncer.declaration.names import quote
from syncer.declaration.node import Node
from syncer.declaration.parameters import arrays, with_placeholders
from syncer.declaration.sql_types import INTEGERS, family, key_type

_EXACT = frozenset(("uuid", *INTEGERS))
"""Types whose equal values always have the same text, in events, too. Equal texts depend on the collation."""


class TracedUse(NamedTuple):
    """A table use, and the statements that lead from a root to its rows."""

    use: TableUse
    depth: int
    """The number of links from the root. 0 for the root itself."""
    parent: str | None
    """The path of the table use that this one is linked to. None for the root."""
    key: tuple[str, ...]
    """The primary key columns of the table."""
    link: Lookup
    """The columns that link a row to its parent, without SQL. For the root: its key."""
    parent_link: Lookup | None
    """The parent's side of the link, without SQL. None for the root."""
    step_link: Lookup | None
    """The columns that link an ancestor in a tree to the next one, without SQL. None for other relations."""
    rows: Lookup
    """Takes the root's key. Returns the primary keys of rows that are linked to the root, `MOST_ROWS` at most. For a
    grouped root: of the rows in the group."""
    by_key: bool
    """Whether link values with the text of the root's key lead to the root, also if the root has no row."""
    leading: Lookup | None
    """Takes link values and the root's key, in one array for each column. Returns the link values that lead to the
    root. None if only the values of `by_key` do."""


MOST_ROWS = 100
"""Linked rows that `TracedUse.rows` returns at most."""


class TraceSql(NamedTuple):
    """The statements that trace one root of a read model."""

    key: Lookup
    """Takes a key in any text that PostgreSQL accepts. Returns it in the text that PostgreSQL writes."""
    uses: tuple[TracedUse, ...]
    """In the order of `Compiled.table_uses`: parents come first."""


def trace_sql(model: Model, catalog: Catalog, compiled: Compiled) -> TraceSql:
    """Returns the statements for a read model. compiled: the result of compiling it with this catalog."""
    root = bind_root(model, catalog, [])
    columns = _key_columns(root)
    names = [f"v{n}" for n in range(len(columns))]
    found = ", ".join(f"k.k{n}::pg_catalog.text" for n in range(len(columns)))
    key = with_placeholders(f"SELECT {found} FROM {_key(root, names, _values(names))}")
    uses = tuple(_traced(node, use) for node, use in zip(root.walk(), compiled.table_uses, strict=True))
    return TraceSql(Lookup(compiled.key, compiled.key_types, key), uses)


def _traced(node: Node, use: TableUse) -> TracedUse:
    chain = _chain(node)
    root, parent = chain[0], node.parent
    key = _key_columns(root)
    link = use.lookup or _lookup(root, root.table.primary_key)
    primary_key = node.table.primary_key
    rows = Lookup(tuple(c.name for c in key), tuple(family(c.base) for c in key), _rows_sql(chain))
    by_key = link.sql is None
    exact = all(column.base in _EXACT for column in key)
    if parent is not None:
        sql = _leading_sql(node, link.columns)
    else:
        sql = leading_images(root, root.grouping) if root.grouping else _same_key_sql(root)
    return TracedUse(
        use,
        len(chain) - 1,
        None if parent is None else ".".join(parent.path),
        primary_key,
        Lookup(link.columns, link.types, None, link.nulls),
        None if parent is None else _lookup(parent, _parent_columns(node, link.columns)),
        _lookup(node, [other for _, other in node.climb.step]) if node.climb else None,
        rows,
        by_key,
        None if by_key and exact else Lookup(link.columns, link.types, sql, link.nulls),
    )


class _KeyColumn(NamedTuple):
    """A column of the root's key: a primary key column, or a group expression."""

    name: str
    base: str
    type: str
    """The type that the key's text is cast to."""


def _key_columns(root: Node) -> list[_KeyColumn]:
    if root.grouping:
        return [_KeyColumn(key.name, key.base, key.type) for key in root.grouping.keys]
    columns = [root.table.columns[name] for name in root.table.primary_key]
    return [_KeyColumn(column.name, column.base, key_type(column.type, column.base)) for column in columns]


def _chain(node: Node) -> list[Node]:
    """Returns the nodes from the root to this one."""
    return [*_chain(node.parent), node] if node.parent is not None else [node]


def _lookup(node: Node, columns: Sequence[str]) -> Lookup:
    return Lookup(tuple(columns), _types(node, columns), None)


def _types(node: Node, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(array_links.encoded(node.table.columns[c]) for c in columns)


def _parent_columns(node: Node, columns: Sequence[str]) -> tuple[str, ...]:
    """Returns the parent's column for each of these linking columns."""
    others = dict(node.on)
    return tuple(others[own] for own in columns)


def _joined(chain: Sequence[Node]) -> str:
    """Returns a FROM clause of the root with the key `k` and the rows linked to it. The aliases are t0, t1, …"""
    root = chain[0]
    own = root.grouping.sql("t0") if root.grouping else [f"t0.{quote(c)}" for c in root.table.primary_key]
    same = " AND ".join(f"{sql} = k.k{n}" for n, sql in enumerate(own))
    sql = f"JOIN {quote(*root.table.name)} t0 ON {same}"
    for depth, node in enumerate(chain[1:], 1):
        if node.climb:
            sql += f" JOIN {path_up(node, f't{depth - 1}')} t{depth} ON true"
            continue
        above, columns = chain[depth - 1].table.columns, node.table.columns
        linked = " AND ".join(
            text_links.matched(columns[own], f"t{depth}.{quote(own)}", above[other], f"t{depth - 1}.{quote(other)}")
            for own, other in node.on
        )
        sql += f" JOIN {quote(*node.table.name)} t{depth} ON {linked}"
    return sql


def _rows_sql(chain: Sequence[Node]) -> str:
    root, node = chain[0], chain[-1]
    found = ", ".join(f"t{len(chain) - 1}.{quote(c)}::pg_catalog.text" for c in node.table.primary_key)
    names = [f"v{n}" for n in range(len(_key_columns(root)))]
    source = f"{_key(root, names, _values(names))} {_joined(chain)}"
    return with_placeholders(f"SELECT DISTINCT {found} FROM {source} LIMIT {MOST_ROWS}")


def _leading_sql(node: Node, columns: Sequence[str]) -> str:
    """Returns the statement that keeps the link values of a node's rows that lead to the root.

    The parent's values are collected once, and then compared with all link values. PostgreSQL compares them, because
    equal values of some types have different texts.
    """
    chain = _chain(node)[:-1]
    root, last = chain[0], f"t{len(chain) - 1}"
    values, key = [f"v{n}" for n in range(len(columns))], [f"r{n}" for n in range(len(_key_columns(root)))]
    pairs = [
        (node.table.columns[own], chain[-1].table.columns[theirs])
        for own, theirs in zip(columns, _parent_columns(node, columns), strict=True)
    ]
    outputs, conditions = [], []
    for n, (own, other) in enumerate(pairs):
        outputs.append(f"{text_links.compared(other, own, f'{last}.{quote(other.name)}')} AS l{n}")
        asked_own = array_links.element(own)  # look-ups get the elements of an array
        value = text_links.compared(asked_own, other, f"asked.v{n}::{key_type(asked_own.type, asked_own.base)}")
        equal = f"links.l{n} = {value}" if text_links.compares_texts(own, other) else ""
        conditions.append(equal or text_links.matched(other, f"links.l{n}", asked_own, value))
    asked = f"asked AS MATERIALIZED (SELECT * FROM {_values([*values, *key])})"
    found_links = f"SELECT DISTINCT {', '.join(outputs)} FROM {_key(root, key, 'asked')} {_joined(chain)}"
    if node.climb:  # each ancestor links to the next one
        step, alias = dict(node.climb.step), f"t{len(chain)}"
        outputs = [f"{alias}.{quote(step[c])} AS l{n}" for n, c in enumerate(columns)]
        found_links += f" UNION SELECT {', '.join(outputs)} FROM {_key(root, key, 'asked')} {_joined([*chain, node])}"
        found_links += f" WHERE {alias}.{quote(depth_of(node))} < {node.climb.limit}"
    links = f"links AS MATERIALIZED ({found_links})"
    matched = " AND ".join(conditions)
    found = ", ".join(f"asked.{v}" for v in values)
    return with_placeholders(f"WITH {asked}, {links} SELECT DISTINCT {found} FROM asked JOIN links ON {matched}")


def _same_key_sql(root: Node) -> str:
    """Returns the statement that keeps the keys that are equal to the root's key.

    The root needs no row. If it has one, keys that are equal by the collation of the column are kept, too.
    """
    columns = root.table.primary_key
    values, key = [f"v{n}" for n in range(len(columns))], [f"r{n}" for n in range(len(columns))]
    pairs = [
        (quote(c), f"asked.{v}::{_type(root, c)}", f"asked.{r}::{_type(root, c)}")
        for c, v, r in zip(columns, values, key, strict=True)
    ]
    same = " AND ".join(f"{value} = {root_key}" for _, value, root_key in pairs)
    row = " AND ".join(f"t0.{c} = {value} AND t0.{c} = {root_key}" for c, value, root_key in pairs)
    found = ", ".join(f"asked.{v}" for v in values)
    asked = f"(SELECT * FROM {_values([*values, *key])}) asked"
    either = f"({same}) OR EXISTS (SELECT FROM {quote(*root.table.name)} t0 WHERE {row})"
    return with_placeholders(f"SELECT DISTINCT {found} FROM {asked} WHERE {either}")


def _type(node: Node, column: str) -> str:
    found = node.table.columns[column]
    return key_type(found.type, found.base)


def _values(names: Sequence[str]) -> str:
    """Returns the parameters as a FROM item: one array for each name."""
    return f"ROWS FROM ({arrays(len(names))}) AS u({', '.join(names)})"


def _key(root: Node, names: Sequence[str], source: str) -> str:
    """Returns the root's key as the FROM item k. names: its columns in `source`, as text."""
    typed = ", ".join(
        f"{name}::{column.type} AS k{n}" for n, (name, column) in enumerate(zip(names, _key_columns(root), strict=True))
    )
    return f"(SELECT DISTINCT {typed} FROM {source}) k"
