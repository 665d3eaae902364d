"""Divides a group expression into parts, so that `syncer check` can name the part that no index can contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlglot import exp

from syncer.declaration.catalog import Table
from syncer.declaration.groups import GroupPart
from syncer.declaration.names import find
from syncer.declaration.sql_parser import UnsupportedExpression, parse, path_of, shown
from syncer.declaration.sql_types import Value

_INSTANT = "timestamp with time zone"
_WITH_ZONE = 3
"""The number of arguments of `date_trunc` with a time zone."""


def parts_of(tree: exp.Expr, write: Callable[[exp.Expr], Value]) -> Iterator[GroupPart]:
    """Yields the parts that depend on columns and are more than a column. Each follows the parts that it contains.

    write: returns the SQL of a part. Raises UnsupportedExpression if the part is no value.
    """
    for node in reversed(list(tree.walk(bfs=False))):
        if isinstance(node, exp.Paren) or not _is_computed(node):
            continue
        try:
            yield GroupPart(shown(node), write(node).sql)
        except UnsupportedExpression:
            continue


def in_local_time(tree: exp.Expr, table: Table) -> exp.Expr | None:
    """Returns the expression over local times instead of instants. None if it uses no instant.

    An instant is a column of the type timestamptz. PostgreSQL reads it in the time zone of the session. A local time
    (`taken_at AT TIME ZONE 'UTC'`) does not depend on the session. The zone is that of `date_trunc`, or UTC.
    """

    def local(node: exp.Expr) -> exp.Expr:
        if isinstance(node.parent, exp.AtTimeZone) or not _is_instant(node, table):
            return node
        zone: exp.Expr = exp.Literal.string("UTC")
        if (call := _truncation(node.parent)) is not None:
            zone = call.expressions.pop()
        found.append(node)
        return exp.Paren(this=exp.AtTimeZone(this=node.copy(), zone=zone))

    found: list[exp.Expr] = []
    changed = tree.copy().transform(local)
    return parse(changed.sql("postgres")) if found else None


def _is_computed(node: exp.Expr) -> bool:
    return path_of(node) is None and any(path_of(one) is not None for one in node.walk())


def _is_instant(node: exp.Expr, table: Table) -> bool:
    path = path_of(node)
    column = find(path[0], table.columns) if path is not None and len(path) == 1 else None
    return column is not None and column.base == _INSTANT


def _truncation(node: exp.Expr | None) -> exp.Anonymous | None:
    """Returns the call of `date_trunc` with a time zone. None if the node is none."""
    if not isinstance(node, exp.Anonymous) or str(node.this).lower() != "date_trunc":
        return None
    return node if len(node.expressions) == _WITH_ZONE else None
