"""Compiles a read model to SQL: statements that render documents, and one look-up for every table in the tree.

The result is plain data (`compiled.py`), and `postgres/snapshot_reader.py` executes it. The statements qualify every
table, type and function with its schema. They set no session parameters: `postgres/session.py` sets them.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from syncer.declaration import array_links, text_links
from syncer.declaration.ancestors_sql import ancestors, rows_below
from syncer.declaration.catalog import Catalog, Column
from syncer.declaration.compiled import Ancestors, Compiled, Field, Lookup, TableUse
from syncer.declaration.fixed_columns import fixed
from syncer.declaration.group_sql import group_columns, group_lookup, group_statements
from syncer.declaration.grouping import bind_root
from syncer.declaration.model import Model
from syncer.declaration.names import quote
from syncer.declaration.node import Node
from syncer.declaration.outer_conditions import constants, outer_condition
from syncer.declaration.parameters import PARAMETER, arrays, bounds, document_id, row, texts, with_placeholders
from syncer.declaration.partial_keys import partial_key
from syncer.declaration.partials import with_partials
from syncer.declaration.render_sql import Document, render
from syncer.declaration.sql_types import INTEGERS, TEXTS, family, key_type
from syncer.declaration.through_sql import listed_by
from syncer.errors import Fatal

__all__ = ["RENDERER_VERSION", "Compiled", "Field", "Lookup", "TableUse", "compile", "form_of"]

RENDERER_VERSION = 1
"""Increment it when the same declaration leads to other documents than before."""
_HASH_FORM = 3
"""Increment it when the hash is computed from other content. It is the prefix of the hash; see `form_of`."""

_COMPARABLE = frozenset(
    {
        "smallint",
        "integer",
        "bigint",
        "boolean",
        "text",
        "character varying",
        "character",
        "uuid",
        "numeric",
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "enum",
        "bytea",
    }
)
"""Types that events carry without loss. Two images of such a column are equal exactly if the values are equal."""
_CANONICAL = frozenset(("uuid", *INTEGERS, *TEXTS))
"""Types whose text in an event is the text that PostgreSQL writes, and that have one text for each value."""


def compile(model: Model, catalog: Catalog) -> Compiled:
    """Returns everything that is needed to run a read model.

    Raises Fatal with every mistake. Each has `file:line` and the nearest correct name.
    """
    mistakes: list[Fatal] = []
    root = bind_root(model, catalog, mistakes)
    document = render(model, root, catalog, mistakes)
    _mark_arrays(root)
    for node in root.walk():
        for column in node.table.primary_key:
            node.use(column)
        for own, other in node.on:
            node.use(own)
            if node.parent is not None:
                node.parent.use(other)
        for own, other in node.climb.step if node.climb else ():
            node.use(own)
            node.use(other)
        if node.partials and node.partials.by in node.table.columns:
            node.use(node.partials.by)
        outer_condition(node, "", catalog)
    table, grouping = root.table, root.grouping
    if grouping:
        for grouped in grouping.columns:
            root.use(grouped.name)
        key = tuple((key.name, family(key.base)) for key in grouping.keys)
        statements: dict[str, Any] = group_statements(root, grouping, document.sql)
    else:
        key = tuple((name, family(table.columns[name].base)) for name in table.primary_key)
        statements = _statements(root, document)
    compiled = Compiled(
        name=model.name,
        root=table.name,
        key=tuple(name for name, _ in key),
        key_types=tuple(type for _, type in key),
        table_uses=tuple(_table_use(node, catalog) for node in root.walk()),
        fields=document.fields,
        **statements,
        hash=_hash(model, key, document),
        group=group_columns(grouping) if grouping else (),
        min_interval=model.declaration.min_interval,
    )
    return with_partials(compiled, model, root, catalog, lookup=_lookup, table_use=_table_use)


def _mark_arrays(root: Node) -> None:
    """Marks the arrays that only links use. Only their elements count, so that their images can be compared."""
    outer: dict[Node, set[str]] = {node: set() for node in root.walk()}
    for node in outer:
        for _, other in _pairs(node):
            outer[_above(node)].add(other.name)
    for node, names in outer.items():
        own = {name for name, _ in node.on if node.table.columns[name].base == "array"} - node.used
        arrays = {name for name in names if node.table.columns[name].base == "array"} - node.used
        node.only_linked = own | arrays
        node.moves_only = bool(own - names)


def _pairs(node: Node) -> list[tuple[Column, Column]]:
    """Returns the columns of a link: those of the node, each with the parent's."""
    return [(node.table.columns[own], _above(node).table.columns[other]) for own, other in node.on]


def _statements(root: Node, document: Document) -> dict[str, Any]:
    """Returns the statements on root rows and on their keys, by their names in `Compiled`."""
    alias, key = document.row, root.table.primary_key
    types = [key_type(c.type, c.base) for c in map(root.table.columns.__getitem__, key)]
    table = f"{quote(*root.table.name)} {alias}"
    own = [f"{alias}.{quote(c)}" for c in key]
    asked = [f"k.k{n}" for n in range(len(key))]
    rendered = f"LEFT JOIN LATERAL ({document.sql}) x ON true"
    given = f"ROWS FROM ({arrays(len(key))})"
    names = ", ".join(f"v{n}" for n in range(len(key)))
    values = ", ".join(f"v{n}::{type} AS k{n}" for n, type in enumerate(types))
    same = " AND ".join(f"{a} = {b}" for a, b in zip(own, asked, strict=True))
    id, order = document_id(own), ", ".join(own)
    rows = f"SELECT {id} AS asked, {id} AS id, x.doc FROM {table} {rendered}"
    upto = f"{row(own)} <= ({bounds(types)})"
    between = f"{row(own)} > ({bounds(types)}) AND {upto}"
    keys = f"SELECT {texts(own)} FROM {table}"
    written = ", ".join(f"v{n}::{type}::pg_catalog.text" for n, type in enumerate(types))
    numbered = ", ".join(f"{c} AS k{n}" for n, c in enumerate(own))
    numbered += f", pg_catalog.row_number() OVER w AS n, pg_catalog.lead({own[0]}) OVER w IS NULL AS ends"
    statements = {
        "render": f"SELECT {document_id(asked)} AS asked, {id} AS id, x.doc "
        f"FROM (SELECT {values} FROM {given} AS u({names})) k "
        f"LEFT JOIN {table} ON {same} {rendered}",
        "render_between": f"{rows} WHERE {between}",
        "render_upto": f"{rows} WHERE {upto}",
        "boundaries": f"SELECT {texts(asked)} "
        f"FROM (SELECT {numbered} FROM {table} WINDOW w AS (ORDER BY {order})) k "
        f"WHERE k.n % {PARAMETER}::pg_catalog.int8 = 0 OR k.ends ORDER BY {', '.join(asked)}",
        "canonical_keys": f"SELECT {written} FROM {given} WITH ORDINALITY AS u({names}, n) ORDER BY u.n",
        "keys_between": f"{keys} WHERE {between} ORDER BY {order}",
        "keys_upto": f"{keys} WHERE {upto} ORDER BY {order}",
        "first_keys": f"{keys} ORDER BY {order} LIMIT {PARAMETER}::pg_catalog.int8",
    }
    return {name: with_placeholders(sql) for name, sql in statements.items()}


def _table_use(node: Node, catalog: Catalog) -> TableUse:
    table = node.table
    full = all(leaf.identity == "full" for leaf in table.leaves)
    comparable = frozenset(
        name
        for name in node.used
        if full
        and not table.columns[name].generated_from
        and (table.columns[name].base in _COMPARABLE or name in node.only_linked)
    )
    lookup = _lookup(node, catalog)
    parent = node.parent.table.name if node.parent is not None else None
    theirs = tuple(column for _, column in node.on) if parent else ()
    needs_before = full and lookup is not None and not set(lookup.columns) <= set(table.primary_key)
    return TableUse(
        ".".join(node.path),
        table.name,
        lookup,
        frozenset(node.used),
        comparable,
        parent,
        theirs,
        needs_before,
        _ancestors(node) if node.climb else None,
        through=".".join(node.through[-1].path) if node.through else "",
        listed_by=listed_by(node),
        condition=node.when or "",
        fixed=frozenset(fixed(node.where, table.columns)) if parent else frozenset(),
        parent_fixed=frozenset(fixed(node.when, node.parent.table.columns)) if node.parent else frozenset(),
        moves_only=node.moves_only,
        by_array=next(filter(None, (array_links.described(*columns) for columns in _pairs(node))), ""),
    )


def _lookup(node: Node, catalog: Catalog, end: Node | None = None) -> Lookup | None:
    """Returns the look-up from a row of a table, through the tables above it, to the keys of its roots.

    end: the divided rows, above the table. The look-up then returns the keys of partials.
    Returns None for a root whose rows are documents: their key needs no look-up.
    """
    parent = node.parent
    if parent is None:
        return group_lookup(node, node.grouping) if node.grouping else None
    key = parent.table.primary_key if parent.kind == "root" and not parent.grouping else ()
    if node.climb is None and {theirs for _, theirs in node.on} == set(key) and len(node.on) == len(key):
        on = tuple(sorted(node.on, key=lambda pair: key.index(pair[1])))
        if all(_same_text(_own(node, own), parent.table.columns[theirs]) for own, theirs in on):
            return Lookup(*_encoded(node, on), None)
    on = node.on
    source, known = _given(node)
    columns = [_own(node, own) for own, _ in on]  # of the known values
    steps, here, below = 0, parent, node
    while True:
        if below.climb:
            found_below, names = rows_below(below, known)
            source += f" JOIN {found_below} b{steps} ON true"
            known = [f"b{steps}.{name}" for name in names]
        alias = f"p{steps}"
        met = zip(below.on, columns, known, strict=True)
        sought = [_sought(alias, here, theirs, column, value) for (_, theirs), column, value in met]
        matched = " AND ".join([*sought, *constants(below, alias, catalog)])
        source += f" JOIN {quote(*here.table.name)} {alias} ON {matched}"
        if here.parent is None:
            found = [f"{alias}.{quote(c)}" for c in here.table.primary_key]
            if here.grouping:
                found = partial_key(here, alias) if here is end else here.grouping.sql(alias)
            break
        known = [f"{alias}.{quote(own)}" for own, _ in here.on]
        columns = [here.table.columns[own] for own, _ in here.on]
        if here.through or here.climb:  # many rows have the same link values: all posts of an author, for example
            values = ", ".join(_shared(value, n, here, *here.on[n]) for n, value in enumerate(known))
            source = f"(SELECT DISTINCT {values} FROM {source}) s{steps}"
            known = [f"s{steps}.d{n}" for n in range(len(known))]
        if here is end:
            found = partial_key(here, alias)
            break
        if (shortcut := _root_key(here, alias)) is not None:
            found = shortcut
            break
        here, below, steps = here.parent, here, steps + 1
    certain = here.parent is None and not here.grouping
    present = "" if certain else f" WHERE {' AND '.join(f'{c} IS NOT NULL' for c in found)}"
    return Lookup(*_encoded(node, on), with_placeholders(f"SELECT DISTINCT {texts(found)} FROM {source}{present}"))


def _given(node: Node) -> tuple[str, list[str]]:
    """Returns the values of a look-up as the FROM item v, and its columns, in the order of `node.on`."""
    values = ", ".join(_value(f"v{i}", node, own, theirs) for i, (own, theirs) in enumerate(node.on))
    names = ", ".join(f"v{i}" for i in range(len(node.on)))
    source = f"(SELECT DISTINCT {values} FROM ROWS FROM ({arrays(len(node.on))}) AS u({names})) v"
    return source, [f"v.v{i}" for i in range(len(node.on))]


def _ancestors(node: Node) -> Ancestors:
    found = ancestors(node, *_given(node))
    return replace(found, cycles=with_placeholders(found.cycles))


def _own(node: Node, name: str) -> Column:
    """Returns the column of the values that a look-up gets for a linking column. Of an array, it gets the elements."""
    return array_links.element(node.table.columns[name])


def _value(name: str, node: Node, own: str, theirs: str) -> str:
    """Returns a value of an event as SQL, in the form that is compared with the parent's column."""
    column, other = _own(node, own), _above(node).table.columns[theirs]
    return f"{text_links.compared(column, other, f'{name}::{key_type(column.type, column.base)}')} AS {name}"


def _shared(value: str, number: int, node: Node, own: str, theirs: str) -> str:
    column, other = node.table.columns[own], _above(node).table.columns[theirs]
    return f"{text_links.compared(column, other, value)} AS d{number}"


def _sought(alias: str, parent: Node, theirs: str, column: Column, known: str) -> str:
    """Returns the condition that finds the parent's rows by a value of a linked row, or by its text (`_value`)."""
    return text_links.matched(parent.table.columns[theirs], f"{alias}.{quote(theirs)}", column, known)


def _above(node: Node) -> Node:
    if node.parent is None:
        raise AssertionError("the root has no parent")
    return node.parent


def _root_key(node: Node, alias: str) -> list[str] | None:
    """Returns the columns of a row that already are its root's key, so that the root need not be read. None if none."""
    parent = node.parent
    if parent is None or parent.kind != "root" or parent.grouping or node.climb:
        return None
    ours = {theirs: own for own, theirs in node.on}
    if set(ours) != set(parent.table.primary_key) or len(node.on) != len(ours):
        return None
    if not all(_same_text(node.table.columns[own], parent.table.columns[theirs]) for own, theirs in node.on):
        return None
    return [f"{alias}.{quote(ours[c])}" for c in parent.table.primary_key]


def _same_text(one: Column, other: Column) -> bool:
    """Returns whether equal values of two linked columns have the same text, and events contain that text."""
    pair = {one.base, other.base}
    return pair <= _CANONICAL and len({family(base) for base in pair}) == 1


def _encoded(node: Node, on: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = tuple(own for own, _ in on)
    return names, tuple(array_links.encoded(node.table.columns[name]) for name in names)


def _hash(model: Model, key: Sequence[tuple[str, str]], document: Document) -> str:
    """Returns the hash of a read model. It changes when documents have to be rebuilt by a resync.

    It covers the renderer version, the declaration and the order of the fields. It also covers the names and type
    families of the root's key columns, because they determine the form of the ids. key: names and families.
    It does not cover other properties of the tables: types of columns, primary keys of other tables, and which column
    a name refers to. When one of these changes, all documents are rendered again in place (`checks/table_state.py`). If
    a sink's own types do not fit the new documents, that is reported (`ports.WritableSink.outgrown`).
    """
    # A new optional key of the form must not change the hashes of declarations without it.
    declaration = model.declaration.model_dump(mode="json", exclude_defaults=True, exclude={"min_interval"})
    content = [RENDERER_VERSION, declaration, _order(document.fields), [list(column) for column in key]]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{_HASH_FORM}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _order(fields: Sequence[Field]) -> list[object]:
    """Returns the order of the fields in a document, with those of nested objects."""
    return [[field.name, _order(field.fields)] for field in fields]


def form_of(hash: str) -> str:
    """Returns the form of a hash. Hashes of different forms cannot be compared."""
    return hash.partition("-")[0] if "-" in hash else ""
