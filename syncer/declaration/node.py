"""Defines the nodes of a read model's tree of tables, and resolves dotted names in it.

A node is one use of a table; a table that is used twice has two nodes. While the SQL is generated, each node collects
the columns that the SQL reads (`used`). From them the syncer knows which changes can affect a document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Union

from syncer.declaration.catalog import Column, Table
from syncer.declaration.compiled import Climb
from syncer.declaration.form import Partials
from syncer.declaration.groups import Grouping
from syncer.declaration.located_yaml import Path
from syncer.declaration.names import Word, find, nearest
from syncer.declaration.sql_parser import UnsupportedExpression

Namespace = dict[str, Union["Node", "Namespace"]]
"""Relations by name. A nested object that contains relations is a namespace of its own."""


@dataclass(eq=False, slots=True)
class Node:
    """One use of a table in the tree of relations."""

    kind: Literal["root", "one", "many"]
    path: tuple[str, ...]
    place: Path
    """The path of this table's declaration in the YAML."""
    table: Table
    parent: Node | None = None
    """The row that this table is linked to. With `through`, it is the last of these relations."""
    through: tuple[Node, ...] = ()
    """The relations of the outer row that the link goes through. Usually empty: the outer row is the parent."""
    rank: int = 0
    """0 without `through`. Otherwise, its place among such relations of the same row: each needs only earlier ones."""
    on: tuple[tuple[str, str], ...] = ()
    """The link to the parent, as pairs of this table's column and the parent's column."""
    where: str | None = None
    when: str | None = None
    """The condition over the parent's row (`outer_conditions.py`)."""
    order: list[str] = field(default_factory=list)
    limit: int | None = None
    climb: Climb | None = None
    """Set if the rows are the ancestors of the parent's row in a tree (`up`)."""
    links: Namespace = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    only_linked: set[str] = field(default_factory=set)
    """The arrays that links use, and nothing else (`compile.py`)."""
    moves_only: bool = False
    """Whether an array is used by the link to the parent, and by nothing else."""
    broken: set[str] = field(default_factory=set)
    """The names of relations that are declared here and could not be bound."""
    grouping: Grouping | None = None
    """The group expressions of a grouped root (`grouping.py`)."""
    partials: Partials | None = None
    """How the rows are divided into buckets (`partials.py`)."""

    def use(self, column: str) -> Column:
        """Marks a column as used by the document, and returns it."""
        found = self.table.columns[column]
        self.used |= {column, *found.generated_from}
        return found

    def walk(self) -> Iterator[Node]:
        """Yields this node and those below it, parents first."""
        yield self
        for node in sorted(_linked(self.links), key=lambda node: node.rank):
            yield from node.walk()

    def follow(self, path: tuple[Word, ...]) -> tuple[tuple[Node, ...], str | None]:
        """Resolves a dotted name at this node. Returns the relations that it passes through, and the column.

        The column is None if the name ends at a relation. Raises UnsupportedExpression with the nearest correct name.
        """
        through: list[Node] = []
        here, names = self, self.links
        for position, word in enumerate(path):
            columns = here.table.columns if names is here.links else {}
            last = position == len(path) - 1
            if last and (column := find(word, columns)) is not None:
                return tuple(through), column.name
            found = find(word, names)
            if found is None and {word.text, word.text.lower()} & here.broken:
                raise UnsupportedExpression(f"the relation {word.text!r} could not be bound", follows=True)
            if found is None:
                raise _unknown(word, here, columns, names, last=last)
            if isinstance(found, Node):
                through.append(found)
                here, names = found, found.links
            else:
                names = found
        if names is not here.links:
            raise UnsupportedExpression(f"{path[-1].text!r} is an object, not a value", nearest("", names))
        return tuple(through), None


def _unknown(
    word: Word, here: Node, columns: Mapping[str, Column], names: Namespace, *, last: bool
) -> UnsupportedExpression:
    if not last and find(word, columns) is not None:
        return UnsupportedExpression(f"{word.text!r} is a column, not a relation", nearest(word.text, names))
    what = "column or relation" if last else "relation"
    where = f"{here.table.name} has" if columns else "there is"
    known = [*columns, *names] if last else [*names]
    return UnsupportedExpression(f"{where} no {what} {word.text!r} here", nearest(word.text, known))


def _linked(names: Namespace) -> Iterator[Node]:
    """Yields the relations of one row, with those in nested objects."""
    for found in names.values():
        if isinstance(found, Node):
            yield found
        else:
            yield from _linked(found)
