"""The keys of partials: the key of the root, followed by the number of a bucket."""

from __future__ import annotations

from syncer.declaration.binding import Node
from syncer.declaration.form import Partials
from syncer.declaration.names import quote
from syncer.declaration.partial_buckets import Buckets, buckets

ROOT = 2**63 - 1
"""The bucket number of the root partial. No bucket has it, because a bucket has at least two values. It sorts last,
so a backfill renders the root partial after the buckets of the root."""
ROOT_PARTIAL = str(ROOT)
"""Its name in the partials of a document."""
HIDDEN = "null"
"""The root partial of a row that `where` excludes. It is no delete: a sink may forget the partials of a deleted root
after a while, and no event of the buckets would bring them back."""
BUCKET, LOW, HIGH = (quote(f"syncer {name}") for name in ("bucket", "low", "high"))
"""The number, the lowest and the highest value of a bucket, as SQL. No column has one of these names."""


def division(node: Node) -> Partials:
    """Returns how the rows of a relation, or of a grouped root, are divided."""
    if node.partials is None:
        raise AssertionError("the rows are not divided")
    return node.partials


def link(node: Node) -> tuple[str, ...]:
    """Returns the columns that are equal in all divided rows of a document.

    These are the relation's side of the link, in the order of the root's key. In a grouped root, they are the columns
    that it is grouped by.
    """
    if node.grouping:
        return tuple(key.columns[0] for key in node.grouping.keys if key.bare)
    if node.parent is None:
        raise AssertionError("the relation has no root")
    own = {theirs: own for own, theirs in node.on}
    return tuple(own[column] for column in node.parent.table.primary_key)


def buckets_of(node: Node) -> Buckets:
    """Returns the buckets of the divided rows, which have a valid column for them."""
    given = division(node)
    return buckets(given, node.table.columns[given.by])


def partial_key(node: Node, alias: str) -> list[str]:
    """Returns the key of the partial that one of the divided rows belongs to."""
    key = node.grouping.sql(alias) if node.grouping else [f"{alias}.{quote(column)}" for column in link(node)]
    return [*key, buckets_of(node).number(f"{alias}.{quote(division(node).by)}")]
