"""Generates the SQL of `up`: from a row to its ancestors in a tree, and from an ancestor to the rows below it.

Up, for the documents: each step leads to at most one row. A path ends at a row without a row above it, after `limit`
ancestors, or before the first repeated row. So a cycle in the data ends the path.

Down, for the look-ups: from a changed row to every row whose path contains it. The depth is bounded by the same limit,
so a cycle ends there, too. Each row has one path up, so no row is found twice at one depth.

Decision 55 argues why the rows below a changed row *in the snapshot of the batch* suffice.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names only

from __future__ import annotations

from collections.abc import Sequence

from syncer.declaration.catalog import Table
from syncer.declaration.compiled import Ancestors, Climb
from syncer.declaration.names import literal, quote
from syncer.declaration.node import Node

_ARROW = literal(" → ")


def path_up(node: Node, outer: str) -> str:
    """Returns the FROM item of a node's ancestors, without an alias. It has all columns of the table, and `depth_of`.

    outer: the alias of the outer row.
    """
    climb, table, depth, seen = _climb(node), node.table, quote(depth_of(node)), quote(_seen(node))
    own, start = _identity(table, "a"), ""
    if climb.starts_in_tree:
        below = _identity(table, outer)
        start, first = f"ARRAY[{below}, {own}]", f" AND {own} <> {below}"
    else:
        start, first = f"ARRAY[{own}]", ""
    source = quote(*table.name)
    return (
        f"LATERAL (WITH RECURSIVE w AS ("
        f"SELECT a.*, 1 AS {depth}, {start} AS {seen} FROM {source} a WHERE {_linked('a', node.on, outer)}{first}"
        f" UNION ALL "
        f"SELECT a.*, w.{depth} + 1, w.{seen} || {own} FROM w JOIN {source} a ON {_linked('a', climb.step, 'w')}"
        f" WHERE w.{depth} < {climb.limit} AND {own} <> ALL (w.{seen})"
        f") SELECT * FROM w)"
    )


def depth_of(node: Node) -> str:
    """Returns the column of `path_up` that contains an ancestor's distance from the outer row: 1 for the nearest."""
    return _unused("depth", node.table)


def rows_below(node: Node, values: Sequence[str]) -> tuple[str, list[str]]:
    """Returns a FROM item without an alias, and its columns: the link values of all outer rows below an ancestor.

    An outer row has an ancestor with the link values `values` exactly if its own link values are among these.
    """
    climb, source = _climb(node), quote(*node.table.name)
    names = [f"k{n}" for n in range(len(values))]
    keys = ", ".join(f"a.{quote(own)} AS {name}" for (own, _), name in zip(climb.step, names, strict=True))
    first = " AND ".join(f"a.{quote(o)} = {v}" for (_, o), v in zip(climb.step, values, strict=True))
    next_ = " AND ".join(f"a.{quote(o)} = w.{name}" for (_, o), name in zip(climb.step, names, strict=True))
    itself = "SELECT " + ", ".join(f"{v} AS {name}" for v, name in zip(values, names, strict=True))
    if climb.limit == 1:
        return f"LATERAL ({itself})", names
    found = (
        f"LATERAL (WITH RECURSIVE w AS (SELECT {keys}, 2 AS depth FROM {source} a WHERE {first}"
        f" UNION ALL SELECT {keys}, w.depth + 1 FROM w JOIN {source} a ON {next_} WHERE w.depth < {climb.limit}"
        f") {itself} UNION ALL SELECT {', '.join(f'w.{name}' for name in names)} FROM w)"
    )
    return found, names


def ancestors(node: Node, values: str, columns: Sequence[str]) -> Ancestors:
    """Returns the statements that find cycles in a node's tree.

    values: a FROM item with the link values of changed rows. columns: the columns of it, in the order of `node.on`.
    """
    climb, source = _climb(node), quote(*node.table.name)
    step = ", ".join(f"a.{quote(other)} AS n{n}" for n, (_, other) in enumerate(climb.step))
    above = " AND ".join(f"a.{quote(own)} = w.n{n}" for n, (own, _) in enumerate(climb.step))
    asked = " AND ".join(f"a.{quote(own)} = {c}" for (own, _), c in zip(node.on, columns, strict=True))
    closed = " AND ".join(f"w.n{n} = {c}" for n, c in enumerate(columns))
    start = _key(climb, "a")
    cycles = (
        f"SELECT c.path FROM {values} JOIN LATERAL (WITH RECURSIVE w AS ("
        f"SELECT {step}, ARRAY[{start}] AS path FROM {source} a WHERE {asked}"
        f" UNION ALL SELECT {step}, w.path || {start} FROM w JOIN {source} a ON {above}"
        f" WHERE pg_catalog.cardinality(w.path) < {climb.limit} AND ({closed}) IS NOT TRUE"
        f") SELECT pg_catalog.array_to_string(w.path || w.path[1], {_ARROW}) AS path FROM w WHERE {closed}) c ON true"
    )
    reached = _reached(climb, source)
    longest = climb.limit + climb.starts_in_tree
    search = (
        f"WITH RECURSIVE {reached} SELECT (SELECT pg_catalog.count(*) FROM {source}) - pg_catalog.count(*),"
        f" pg_catalog.count(*) FILTER (WHERE r.depth > {longest}),"
        f" coalesce(pg_catalog.max(r.depth) - {int(climb.starts_in_tree)}, 0) FROM r"
    )
    keys = [own for own, _ in climb.step]
    same = " AND ".join(f"r.k{n} = a.{quote(own)}" for n, own in enumerate(keys))
    known = " AND ".join(f"a.{quote(own)} IS NOT NULL" for own in keys)
    sample = (
        f"WITH RECURSIVE {reached}, f AS (SELECT {step}, {start} AS k FROM {source} a"
        f" WHERE {known} AND NOT EXISTS (SELECT FROM r WHERE {same}) LIMIT 1),"
        f" w AS (SELECT f.*, ARRAY[f.k] AS path, false AS closed FROM f UNION ALL"
        f" SELECT {step}, {start}, w.path || {start}, {start} = ANY (w.path) FROM w JOIN {source} a ON {above}"
        f" WHERE NOT w.closed AND pg_catalog.cardinality(w.path) < {_MOST_KEYS}) SELECT w.path FROM w WHERE w.closed"
    )
    return Ancestors(climb, cycles, search, sample)


_MOST_KEYS = 1000
"""Rows that the search for an example of a cycle follows."""


def _reached(climb: Climb, source: str) -> str:
    """Returns a CTE r: all rows whose path ends at a row without a row above it, with the length of the path."""
    keys = ", ".join(f"a.{quote(own)} AS k{n}" for n, (own, _) in enumerate(climb.step))
    above = " AND ".join(f"b.{quote(own)} = a.{quote(other)}" for own, other in climb.step)
    below = " AND ".join(f"a.{quote(other)} = r.k{n}" for n, (_, other) in enumerate(climb.step))
    return (
        f"r AS (SELECT {keys}, 1 AS depth FROM {source} a WHERE NOT EXISTS (SELECT FROM {source} b WHERE {above})"
        f" UNION ALL SELECT {keys}, r.depth + 1 FROM r JOIN {source} a ON {below})"
    )


def _climb(node: Node) -> Climb:
    if node.climb is None:
        raise AssertionError(f"{'.'.join(node.path)} is not a path of ancestors")
    return node.climb


def _linked(alias: str, pairs: Sequence[tuple[str, str]], outer: str) -> str:
    return " AND ".join(f"{alias}.{quote(own)} = {outer}.{quote(other)}" for own, other in pairs)


def _identity(table: Table, alias: str) -> str:
    """Returns the primary key of a row as one text. Only the same row has the same text."""
    columns = [f"{alias}.{quote(column)}" for column in table.primary_key]
    return f"{columns[0]}::pg_catalog.text" if len(columns) == 1 else f"ROW({', '.join(columns)})::pg_catalog.text"


def _key(climb: Climb, alias: str) -> str:
    """Returns the linked key of a row as one text."""
    columns = [f"{alias}.{quote(own)}" for own, _ in climb.step]
    return f"{columns[0]}::pg_catalog.text" if len(columns) == 1 else f"ROW({', '.join(columns)})::pg_catalog.text"


def _seen(node: Node) -> str:
    return _unused("seen", node.table)


def _unused(name: str, table: Table) -> str:
    while name in table.columns:
        name += "_"
    return name
