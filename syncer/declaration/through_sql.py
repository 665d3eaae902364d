"""Generates the SQL of a list with a limit whose rows are linked through other relations, such as a feed.

PostgreSQL reads the first rows of each link value from an index (link columns, order columns), and then the first of
these. So it reads at most (link values × limit) entries of the index, however many rows are linked. It reads the rest
of the columns for the chosen rows only.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names only

from __future__ import annotations

from dataclasses import replace

from syncer.declaration.aggregates import Order
from syncer.declaration.catalog import SortColumn
from syncer.declaration.names import quote
from syncer.declaration.node import Node
from syncer.declaration.row import filtered, ordering
from syncer.declaration.scope import Scope, both, linked_values
from syncer.declaration.sql_parser import parse_order, path_of


def first_of_all(outer: Scope, node: Node, alias: str) -> tuple[str, str]:
    """Returns the FROM items of the chosen rows, with the alias, and the ORDER BY of the list."""
    scope = Scope(outer.aliases, outer)
    row, first, chosen = scope.scan(node), outer.aliases.alias("f"), outer.aliases.alias("c")
    links, matched = linked_values(outer, node, row)
    order = ordering(scope, node)
    condition = both(matched, filtered(scope, node))
    key = node.table.primary_key
    outputs = [f"{item.sql} AS o{n}" for n, item in enumerate(order)]
    outputs += [f"{row}.{quote(column)} AS i{n}" for n, column in enumerate(key)]
    table = quote(*node.table.name)
    each = f"SELECT {', '.join(outputs)} FROM {table} {row}{scope.joined(condition)} ORDER BY {_list(order)}"
    again = [replace(item, sql=f"{first}.o{n}") for n, item in enumerate(order)]
    limit = f"LIMIT {node.limit}"
    found = f"SELECT {first}.* FROM {links} CROSS JOIN LATERAL ({each} {limit}) {first} ORDER BY {_list(again)} {limit}"
    same = " AND ".join(f"{alias}.{quote(column)} = {chosen}.i{n}" for n, column in enumerate(key))
    by = [replace(item, sql=f"{chosen}.o{n}") for n, item in enumerate(order)]
    return f"({found}) {chosen} JOIN {table} {alias} ON {same}", f" ORDER BY {_list(by)}"


def _list(order: list[Order]) -> str:
    return ", ".join(map(str, order))


def listed_by(node: Node) -> tuple[SortColumn, ...] | None:
    """Returns the order in which a list with a limit takes its rows, as `TableUse.listed_by` describes it."""
    if not (node.through and node.limit):
        return None
    found: dict[str, SortColumn] = {}
    for item in (item for text in node.order for item in parse_order(text)):
        through, name = node.follow(path_of(item.this) or ()) if path_of(item.this) else ((), None)
        if through or name is None:
            return ()
        found.setdefault(name, SortColumn(name, bool(item.args.get("desc")), bool(item.args.get("nulls_first"))))
    for name in node.table.primary_key:
        found.setdefault(name, SortColumn(name))
    return tuple(found.values())
