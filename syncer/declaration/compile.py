"""Compiles a read model to SQL: statements that render documents, and one look-up for every table in the tree.

The result is plain data (`compiled.py`), and `postgres/snapshot_reader.py` executes it. The statements qualify every
table, type and function with its schema. They set no session parameters: `postgres/session.py` sets them.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from syncer.declaration.binding import Node, bind
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import Compiled, Field, Lookup, TableUse
from syncer.declaration.model import Model
from syncer.declaration.names import literal, quote
from syncer.declaration.render_sql import Document, render
from syncer.declaration.sql_types import INTEGERS, TEXTS, family, key_type
from syncer.errors import Fatal

__all__ = ["RENDERER_VERSION", "Compiled", "Field", "Lookup", "TableUse", "compile", "form_of"]

RENDERER_VERSION = 1
"""Increment it when the same declaration leads to other documents than before."""
_HASH_FORM = 2
"""Increment it when the hash is computed from other content. It is the prefix of the hash; see `form_of`."""

_PARAMETER = "\0"
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
    root = bind(model, catalog, mistakes)
    document = render(model, root, catalog, mistakes)
    for node in root.walk():
        for column in node.table.primary_key:
            node.use(column)
        for own, other in node.on:
            node.use(own)
            if node.parent is not None:
                node.parent.use(other)
    table = root.table
    statements = _statements(root, document)
    table_uses = tuple(_table_use(node) for node in root.walk())
    return Compiled(
        name=model.name,
        root=table.name,
        key=table.primary_key,
        key_types=tuple(family(table.columns[c].base) for c in table.primary_key),
        table_uses=table_uses,
        fields=document.fields,
        **statements,
        hash=_hash(model, root, document),
    )


def _statements(root: Node, document: Document) -> dict[str, str]:
    """Returns the four statements on root rows, by their names in `Compiled`."""
    row, key = document.row, root.table.primary_key
    types = [key_type(c.type, c.base) for c in map(root.table.columns.__getitem__, key)]
    table = f"{quote(*root.table.name)} {row}"
    own = [f"{row}.{quote(c)}" for c in key]
    asked = [f"k.k{n}" for n in range(len(key))]
    rendered = f"LEFT JOIN LATERAL ({document.sql}) x ON true"
    arrays = ", ".join(f"pg_catalog.unnest({_PARAMETER}::pg_catalog.text[])" for _ in key)
    names = ", ".join(f"v{n}" for n in range(len(key)))
    values = ", ".join(f"v{n}::{type} AS k{n}" for n, type in enumerate(types))
    same = " AND ".join(f"{a} = {b}" for a, b in zip(own, asked, strict=True))
    bounds = ", ".join(f"{_PARAMETER}::pg_catalog.text::{type}" for type in types)
    rows = f"SELECT {_id(own)} AS asked, {_id(own)} AS id, x.doc FROM {table} {rendered}"
    upto = f"{_row(own)} <= ({bounds})"
    order = ", ".join(own)
    texts = ", ".join(f"{c}::pg_catalog.text" for c in asked)
    numbered = ", ".join(f"{c} AS k{n}" for n, c in enumerate(own))
    numbered += f", pg_catalog.row_number() OVER w AS n, pg_catalog.lead({own[0]}) OVER w IS NULL AS ends"
    statements = {
        "render": f"SELECT {_id(asked)} AS asked, {_id(own)} AS id, x.doc "
        f"FROM (SELECT {values} FROM ROWS FROM ({arrays}) AS u({names})) k "
        f"LEFT JOIN {table} ON {same} {rendered}",
        "render_between": f"{rows} WHERE {_row(own)} > ({bounds}) AND {upto}",
        "render_upto": f"{rows} WHERE {upto}",
        "boundaries": f"SELECT {texts} "
        f"FROM (SELECT {numbered} FROM {table} WINDOW w AS (ORDER BY {order})) k "
        f"WHERE k.n % {_PARAMETER}::pg_catalog.int8 = 0 OR k.ends ORDER BY {', '.join(asked)}",
    }
    return {name: _with_placeholders(sql) for name, sql in statements.items()}


def _row(columns: list[str]) -> str:
    return f"({', '.join(columns)})"


def _id(columns: list[str]) -> str:
    """Returns the SQL equivalent of `document.document_id`."""
    texts = [f"{c}::pg_catalog.text" for c in columns]
    if len(texts) == 1:
        return texts[0]
    parts = texts
    for special in ("\\", "|"):
        parts = [f"pg_catalog.replace({p}, {literal(special)}, {literal(chr(92) + special)})" for p in parts]
    return " || '|' || ".join(parts)


def _table_use(node: Node) -> TableUse:
    table = node.table
    full = all(leaf.identity == "full" for leaf in table.leaves)
    comparable = frozenset(
        name
        for name in node.used
        if full and table.columns[name].base in _COMPARABLE and not table.columns[name].generated_from
    )
    lookup = _lookup(node) if node.parent is not None else None
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
    )


def _lookup(node: Node) -> Lookup:
    """Returns the look-up from a row of a table, through the tables above it, to the keys of its roots."""
    parent = node.parent
    if parent is None:
        raise AssertionError("the root has no look-up")
    key = parent.table.primary_key if parent.kind == "root" else ()
    if {theirs for _, theirs in node.on} == set(key) and len(node.on) == len(key):
        on = tuple(sorted(node.on, key=lambda pair: key.index(pair[1])))
        if all(_same_text(node, own, parent, theirs) for own, theirs in on):
            return Lookup(*_encoded(node, on), None)
    on = node.on
    columns = [node.table.columns[own] for own, _ in on]
    values = ", ".join(f"v{i}::{key_type(c.type, c.base)} AS v{i}" for i, c in enumerate(columns))
    arrays = ", ".join(f"pg_catalog.unnest({_PARAMETER}::pg_catalog.text[])" for _ in on)
    names = ", ".join(f"v{i}" for i in range(len(on)))
    source = f"(SELECT DISTINCT {values} FROM ROWS FROM ({arrays}) AS u({names})) v"
    met = [(f"v.v{i}", theirs) for i, (_, theirs) in enumerate(on)]
    steps, here = 0, parent
    while True:
        alias = f"p{steps}"
        matched = " AND ".join(f"{alias}.{quote(column)} = {value}" for value, column in met)
        source += f" JOIN {quote(*here.table.name)} {alias} ON {matched}"
        if here.parent is None:
            found = [f"{alias}.{quote(c)}" for c in here.table.primary_key]
            break
        met = [(f"{alias}.{quote(own)}", theirs) for own, theirs in here.on]
        if (shortcut := _root_key(here, alias)) is not None:
            found = shortcut
            break
        here, steps = here.parent, steps + 1
    outputs = ", ".join(f"{c}::pg_catalog.text" for c in found)
    present = f" WHERE {' AND '.join(f'{c} IS NOT NULL' for c in found)}" if here.parent is not None else ""
    return Lookup(*_encoded(node, on), _with_placeholders(f"SELECT DISTINCT {outputs} FROM {source}{present}"))


def _root_key(node: Node, alias: str) -> list[str] | None:
    """Returns the columns of a row that already are its root's key, so that the root need not be read. None if none."""
    parent = node.parent
    if parent is None or parent.kind != "root":
        return None
    ours = {theirs: own for own, theirs in node.on}
    if set(ours) != set(parent.table.primary_key) or len(node.on) != len(ours):
        return None
    if not all(_same_text(node, own, parent, theirs) for own, theirs in node.on):
        return None
    return [f"{alias}.{quote(ours[c])}" for c in parent.table.primary_key]


def _same_text(node: Node, own: str, parent: Node, theirs: str) -> bool:
    """Returns whether equal values of two linked columns have the same text, and events contain that text."""
    pair = {node.table.columns[own].base, parent.table.columns[theirs].base}
    return pair <= _CANONICAL and len({family(base) for base in pair}) == 1


def _encoded(node: Node, on: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = tuple(own for own, _ in on)
    return names, tuple(family(node.table.columns[name].base) for name in names)


def _with_placeholders(sql: str) -> str:
    """Returns the SQL with psycopg's placeholders. Every other `%` is doubled, as psycopg requires."""
    return sql.replace("%", "%%").replace(_PARAMETER, "%s")


def _hash(model: Model, root: Node, document: Document) -> str:
    """Returns the hash of a read model. It changes when documents have to be rebuilt by a resync.

    It covers the renderer version, the declaration and the order of the fields. It also covers the names and type
    families of the root's key columns, because they determine the form of the ids.
    It does not cover other properties of the tables: types of columns, primary keys of other tables, and which column
    a name refers to. When one of these changes, all documents are rendered again in place (`checks/table_state.py`). If
    a sink's own types do not fit the new documents, that is reported (`ports.WritableSink.outgrown`).
    """
    key = [[name, family(root.table.columns[name].base)] for name in root.table.primary_key]
    declaration = model.declaration.model_dump(mode="json")
    content = [RENDERER_VERSION, declaration, _order(document.fields), key]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{_HASH_FORM}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _order(fields: Sequence[Field]) -> list[object]:
    """Returns the order of the fields in a document, with those of nested objects."""
    return [[field.name, _order(field.fields)] for field in fields]


def form_of(hash: str) -> str:
    """Returns the form of a hash. Hashes of different forms cannot be compared."""
    return hash.partition("-")[0] if "-" in hash else ""
