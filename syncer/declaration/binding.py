"""Binds a read model to the catalog: builds the tree of tables (`node.py`), with the links between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from syncer.declaration import array_links, fixed_columns
from syncer.declaration.catalog import Catalog, Table
from syncer.declaration.climb import StepError, climb
from syncer.declaration.compiled import Climb
from syncer.declaration.form import Many, ManyRelation, Object, OneRelation, Shown, UpRelation
from syncer.declaration.link_pairs import NOT_A_KEY, linked_columns
from syncer.declaration.located_yaml import Path
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model, named_tables
from syncer.declaration.names import nearest, quote, spellings
from syncer.declaration.node import Namespace, Node
from syncer.declaration.row_key import missing
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.declaration.sql_types import EXTENSION_KEYS, KEYABLE
from syncer.declaration.through import Misplaced, goes_through, resolve
from syncer.errors import Fatal

__all__ = ["Node", "bind"]


def bind(model: Model, catalog: Catalog, errors: list[Fatal]) -> Node:
    """Returns the tree of a read model.

    Relations that cannot be bound are left out of the tree. `errors` receives an error for every unknown name, with
    its line. Raises Fatal with all errors if the root table cannot be bound.
    """
    binder = _Binder(model, catalog, errors)
    declaration = model.declaration
    root = binder.tables.get(("root", "table"))
    if root is None:
        raise together(errors)
    node = Node("root", (), (), root, where=declaration.where)
    binder.links(declaration.relations, node, node.links, (), ("relations",))
    binder.links(declaration.document, node, node.links, (), ("document",))
    binder.through(node)
    return node


class _Pending(NamedTuple):
    """A relation whose link goes through other relations of its row."""

    entry: OneRelation | ManyRelation | UpRelation
    names: Namespace
    path: tuple[str, ...]
    place: Path


class _Binder:
    def __init__(self, model: Model, catalog: Catalog, errors: list[Fatal]) -> None:
        self._model, self._catalog, self._errors = model, catalog, errors
        self._pending: dict[Node, list[_Pending]] = {}
        self.tables: dict[Path, Table] = {}
        for text, place in named_tables(model):
            try:
                self.tables[place] = self._table(text, place)
            except Fatal as error:
                errors.append(error)

    def links(
        self, entries: Mapping[str, object], node: Node, names: Namespace, path: tuple[str, ...], place: Path
    ) -> None:
        """Binds the relations among the fields of a node's document, or of an object in it."""
        for name, entry in entries.items():
            here = (*place, name)
            if isinstance(entry, OneRelation | ManyRelation | UpRelation):
                if goes_through(entry.on):
                    self._pending.setdefault(node, []).append(_Pending(entry, names, (*path, name), here))
                    node.broken.add(name)  # until all other relations of the row are bound
                    continue
                self._declare(self._link(entry, node, (*path, name), here), node, names, here)
            elif isinstance(entry, Object):
                inner: Namespace = {}
                waiting = len(self._pending.get(node, ()))
                self.links(entry.object, node, inner, (*path, name), (*here, "object"))
                if inner or len(self._pending.get(node, ())) > waiting:
                    names[name] = inner

    def _declare(self, link: Node | None, node: Node, names: Namespace, place: Path) -> None:
        """Adds a relation to the names of its row. link: None if it could not be bound."""
        name = str(place[-1])
        if link is None:
            node.broken.add(name)
        elif "." in name:
            self._report(f"the name of the relation {name!r} contains a dot", place, "use another name")
        elif name in names:
            self._report(f"the relation {name!r} is declared twice", place, "rename one of them")
        else:
            names[name] = link

    def through(self, node: Node) -> None:
        """Binds the relations of a row whose links go through its other relations, which are bound already."""
        pending, rank = self._pending.pop(node, []), 0
        while pending:
            waiting = []
            for one in pending:
                try:
                    if not isinstance(one.entry, ManyRelation):
                        kind = "one" if isinstance(one.entry, OneRelation) else "up"
                        raise Misplaced(
                            UnsupportedExpression(_NESTED[0].format(kind), _NESTED[1]), next(iter(one.entry.on))
                        )
                    if one.entry.when is not None:
                        raise Misplaced(UnsupportedExpression(*_NO_WHEN), next(iter(one.entry.on)))
                    through, on = resolve(one.entry.on, node.follow)
                except Misplaced as error:
                    if error.mistake.follows:
                        waiting.append(one)
                    else:
                        self._report(error.mistake.what, (*one.place, "on", error.own), error.mistake.hint)
                    continue
                rank += 1
                node.broken.discard(one.path[-1])
                entry = one.entry.model_copy(update={"on": on})
                link = self._link(entry, through[-1], one.path, one.place, through, rank)
                self._declare(link, node, one.names, one.place)
            if len(waiting) == len(pending):
                if not self._errors:
                    self._report("relations link to each other in a circle", (*waiting[0].place, "on"))
                return
            pending = waiting

    def _link(
        self,
        entry: OneRelation | ManyRelation | UpRelation,
        parent: Node,
        path: tuple[str, ...],
        place: Path,
        through: tuple[Node, ...] = (),
        rank: int = 0,
    ) -> Node | None:
        """Returns the node of a relation, or None if it could not be bound."""
        kind: Literal["one", "many"] = "one" if isinstance(entry, OneRelation) else "many"
        table = self.tables.get((*place, "up" if isinstance(entry, UpRelation) else kind))
        if table is None:
            return None
        node = Node(kind, path, place, table, parent, through, rank, where=entry.where)
        if not isinstance(entry, UpRelation):
            node.when = entry.when
        if isinstance(entry, ManyRelation):
            grouped = isinstance(entry, Many) and entry.groups  # then `order_by` and `limit` are those of groups
            node.order = [] if grouped else entry.order
            node.limit = entry.limit if isinstance(entry, Many) and not grouped else None
            node.partials = entry.partials
        texts = not isinstance(entry, UpRelation)
        node.on = self._on(entry.on, table, parent.table, (*place, "on"), texts=texts)
        bound = len(node.on) == len(entry.on) and self._arrays_fit(node, entry)
        if bound and kind == "one":
            self._unique(node)
        if bound and isinstance(entry, UpRelation):
            node.climb = self._climb(entry, node, parent.table)
            bound = node.climb is not None
        self.links(entry.relations, node, node.links, path, (*place, "relations"))
        if isinstance(entry, Shown):
            self.links(entry.document or {}, node, node.links, path, (*place, "document"))
        self.through(node)
        return node if bound else None

    def _climb(self, entry: UpRelation, node: Node, outer: Table) -> Climb | None:
        """Returns the climb of a relation, or None if its step could not be bound."""
        self._unique(node, ancestors=True)
        place = (*node.place, "step")
        step = self._on(entry.step, node.table, node.table, place, texts=False)
        if len(step) < len(entry.step):
            return None
        try:
            return climb(node.table, outer, node.on, step, entry.limit, farthest_first=entry.first == "farthest")
        except StepError as error:
            self._report(error.what, place, error.hint)
            return None

    def _table(self, text: str, place: Path) -> Table:
        """Returns the table of this name. Raises Fatal if the change stream cannot have its changes."""
        try:
            names = spellings(text)
        except ValueError as error:
            raise self._error(str(error), place) from error
        found = next((self._catalog.tables[n] for n in names if n in self._catalog.tables), None)
        if found is None:
            known = [*self._catalog.tables, *self._catalog.others]
            same = [table for table in known if table.name == names[-1].name]  # in another schema
            hint = f"did you mean {str(same[0])!r}?" if same else nearest(str(names[-1]), map(str, known))
            raise self._error(f"there is no table {names[-1]}", place, hint)
        if found.kind not in ("table", "partitioned"):
            what = f"{found.name} is a {found.kind}, and PostgreSQL logs no changes of it"
            raise self._error(what, place, _INSTEAD.get(found.kind, ""))
        if found.persistence != "permanent":
            what = f"{found.name} is {found.persistence}, and PostgreSQL does not log its changes"
            hint = f"ALTER TABLE {quote(*found.name)} SET LOGGED" if found.persistence == "unlogged" else ""
            raise self._error(what, place, hint)
        if found.inherits:
            what = f"{found.name} is part of an inheritance tree, which is not supported"
            raise self._error(what, place, "use declarative partitioning")
        root = place == ("root", "table")
        if not found.primary_key or (root and found.key_index):
            what, hint = missing(found, root=root)
            raise self._error(what, place, hint)
        for column in map(found.columns.__getitem__, found.primary_key):
            if column.base not in KEYABLE and (root or column.base not in EXTENSION_KEYS):
                what = f"the primary key column {found.name}.{column.name} has the unsupported type {column.type}"
                raise self._error(what, place, _ROOT_KEY if column.base in EXTENSION_KEYS else NOT_A_KEY)
        return found

    def _on(
        self, pairs: Mapping[str, str], table: Table, parent: Table, place: Path, *, texts: bool
    ) -> tuple[tuple[str, str], ...]:
        """Returns the bound pairs of a link. texts: whether the link can compare texts."""
        found = []
        for own, other in pairs.items():
            try:
                found.append(linked_columns(own, other, table, parent, texts=texts))
            except UnsupportedExpression as error:
                self._report(error.what, (*place, own), error.hint)
        return tuple(found)

    def _arrays_fit(self, node: Node, entry: OneRelation | ManyRelation | UpRelation) -> bool:
        """Reports an array in the link of a relation that cannot have it. Returns whether there is none."""
        if node.parent is None:
            return True
        inner, outer = node.table.columns, node.parent.table.columns
        pairs = [(inner[own], outer[other]) for own, other in node.on]
        kind = "up" if isinstance(entry, UpRelation) else node.kind
        mistake = array_links.misplaced(pairs, kind, through=bool(node.through))
        if mistake:
            self._report(mistake[0], (*node.place, "on"), mistake[1])
        return mistake is None

    def _unique(self, node: Node, *, ancestors: bool = False) -> None:
        columns = {own for own, _ in node.on}
        # Ancestors that `where` excludes are part of the path.
        fixed = fixed_columns.fixed(None if ancestors else node.where, node.table.columns)
        unique = (i for i in node.table.indexes if i.unique and not i.partial and i.columns)
        if any(set(i.columns) <= columns | fixed.keys() for i in unique):
            return
        listed = ", ".join(sorted(columns))
        hint = f"make the value unique: CREATE UNIQUE INDEX ON {node.table.name} ({listed})"
        if not ancestors:
            hint = f"use `many`, or {hint}"
        what = f"{node.table.name} can have many rows with the same value of ({listed})"
        self._report(what, (*node.place, "on"), hint)

    def _report(self, what: str, place: Path, hint: str = "") -> None:
        self._errors.append(self._error(what, place, hint))

    def _error(self, what: str, place: Path, hint: str = "") -> Fatal:
        return Fatal(what, where=self._model.at(place), hint=hint)


_NESTED = (
    "the link of a `{}` relation cannot go through another relation",
    "declare it in the `relations` or the `document` of the other relation",
)
_NO_WHEN = (
    "a link through other relations cannot have `when`",
    "put the condition into `where` of one of the relations that the link goes through",
)
_ROOT_KEY = (
    "equal keys of this type can have several texts, or no operator that every session finds: give the root a "
    "primary key of a built-in type, such as bigint, and keep this column UNIQUE; links can still use it"
)
_TABLES = "declare the tables behind the view: their rows as relations, the view's expressions as fields"
_INSTEAD = {
    "view": _TABLES,
    "materialized view": _TABLES,
    "foreign table": "copy its rows into a table of this database, and declare that table",
}
"""The advice for each kind of relation that is not a table."""
