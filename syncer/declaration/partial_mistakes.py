"""Finds the relations that cannot have `partials`, and the links and columns that cannot divide rows."""

from __future__ import annotations

from collections.abc import Sequence

from syncer.declaration.binding import Node
from syncer.declaration.form import Many
from syncer.declaration.model import Model
from syncer.declaration.partial_buckets import mistake
from syncer.declaration.partial_keys import division
from syncer.declaration.sql_types import INTEGERS, TEXTS
from syncer.errors import Fatal

LONGEST_LIST = 100
"""The greatest `limit` of a list. Each change reads the elements of all buckets."""


def mistakes_of(model: Model, root: Node, nodes: Sequence[Node]) -> list[Fatal]:
    """Returns the mistakes, each with `file:line`. nodes: the relations with `partials`, at least one."""
    return _Finder(model, root, nodes).find()


class _Finder:
    def __init__(self, model: Model, root: Node, nodes: Sequence[Node]) -> None:
        self._model, self._root, self._nodes = model, root, nodes
        self._node = nodes[0]
        self._errors: list[Fatal] = []

    def find(self) -> list[Fatal]:
        root, node = self._root, self._node
        if len(self._nodes) > 1:
            self._report(self._nodes[1], "only one relation of a read model can have `partials`", "remove one of them")
        if node is root:
            self._check_column()
            return self._errors
        if node.parent is not root or node.through or len(node.place) != 2:
            self._report(
                node, "`partials` need a relation of the root row", "declare the relation under the first `relations`"
            )
            return self._errors
        self._check_list()
        if any(other.climb for other in root.walk()):
            self._report(node, "a read model with `up` relations cannot have `partials`", "use two read models")
        if node.when:
            self._report(node, "a relation with `partials` cannot have `when`", "use `where` of the read model")
        if any(node in other.through for other in root.walk()):
            self._report(node, "another relation links through a relation with `partials`", "link it to another one")
        self._check_link()
        return self._errors

    def _check_list(self) -> None:
        """Finds a list whose elements would be too many for the partials."""
        entry = self._model.declaration.document.get(str(self._node.place[-1]))
        if self._node.place[0] == "document" and isinstance(entry, Many):
            if entry.groups:
                what = "a list of groups cannot have `partials`: a group may have rows in several buckets"
                self._report(self._node, what, "declare the relation under `relations`, and another one for the groups")
            elif entry.limit is None or entry.limit > LONGEST_LIST:
                what = f"a list with `partials` needs a `limit` of at most {LONGEST_LIST}"
                self._report(self._node, what, "each bucket has as many elements; aggregates ignore the limit")

    def _check_link(self) -> None:
        root, node = self._root, self._node
        key = set(root.table.primary_key)
        if {theirs for _, theirs in node.on} != key or len(node.on) != len(key):
            self._report(
                node,
                "`partials` need a link to the whole primary key of the root",
                f"link {node.table.name} to ({', '.join(root.table.primary_key)}) of {root.table.name}",
            )
        for own, theirs in node.on:
            pair = node.table.columns[own], root.table.columns[theirs]
            kinds = {("i" if c.base in INTEGERS else "t" if c.base in TEXTS else c.base) for c in pair}
            if len(kinds) > 1 or not kinds <= {"i", "t", "uuid"} or any(c.loose_collation for c in pair):
                self._report(
                    node,
                    f"`partials` cannot use a link between {pair[0].type} and {pair[1].type}",
                    "use integers, uuid, or texts with a deterministic collation",
                )
        self._check_column()

    def _check_column(self) -> None:
        node, given = self._node, division(self._node)
        if found := mistake(given, node.table):
            self._report(node, f"`partials` cannot divide {node.table.name} by {given.by!r}: {found[0]}", found[1])

    def _report(self, node: Node, what: str, hint: str) -> None:
        self._errors.append(Fatal(what, where=self._model.at((*node.place, "partials")), hint=hint))
