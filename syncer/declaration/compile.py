"""From a read model's tree to SQL: one statement that renders, one look-up for every table in the tree.

What comes out is plain data (`compiled.py`); `postgres/snapshot_reader.py` runs it. The statements name every table,
type and function by its schema, and pin nothing: the session does.
"""

# ruff: noqa: S608 - what is joined here are quoted names and expressions written anew

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
"""Raise it when the same declaration gives other documents than before."""
_HASH_FORM = 2
"""Raise it when the hash is made of other content. It is written before the hash, so that it can be told."""

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
"""Types that travel without loss: two images of such a column are equal exactly if its values are."""
_CANONICAL = frozenset(("uuid", *INTEGERS, *TEXTS))
"""Types whose text in an event is the text that PostgreSQL writes, one for each value."""


def compile(model: Model, catalog: Catalog) -> Compiled:
    """Everything that running a read model needs.

    Raises Fatal that tells each mistake with `file:line` and the nearest right name.
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
    occurrences = tuple(_occurrence(node) for node in root.walk())
    return Compiled(
        name=model.name,
        root=table.name,
        key=table.primary_key,
        key_types=tuple(family(table.columns[c].base) for c in table.primary_key),
        occurrences=occurrences,
        fields=document.fields,
        **statements,
        hash=_hash(model, root, document),
    )


def _statements(root: Node, document: Document) -> dict[str, str]:
    """The four statements on root rows, by their names in `Compiled`."""
    row, key = document.row, root.table.primary_key
    types = [key_type(c.type, c.base) for c in map(root.table.columns.__getitem__, key)]
    table = f"{quote(*root.table.name)} {row}"
    own = [f"{row}.{quote(c)}" for c in key]
    asked = [f"k.k{place}" for place in range(len(key))]
    rendered = f"LEFT JOIN LATERAL ({document.sql}) x ON true"
    arrays = ", ".join(f"pg_catalog.unnest({_PARAMETER}::pg_catalog.text[])" for _ in key)
    names = ", ".join(f"v{place}" for place in range(len(key)))
    values = ", ".join(f"v{place}::{type} AS k{place}" for place, type in enumerate(types))
    same = " AND ".join(f"{a} = {b}" for a, b in zip(own, asked, strict=True))
    bounds = ", ".join(f"{_PARAMETER}::pg_catalog.text::{type}" for type in types)
    rows = f"SELECT {_id(own)} AS asked, {_id(own)} AS id, x.doc FROM {table} {rendered}"
    upto = f"{_row(own)} <= ({bounds})"
    order = ", ".join(own)
    texts = ", ".join(f"{c}::pg_catalog.text" for c in asked)
    numbered = ", ".join(f"{c} AS k{place}" for place, c in enumerate(own))
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
    return {name: _placed(sql) for name, sql in statements.items()}


def _row(columns: list[str]) -> str:
    return f"({', '.join(columns)})"


def _id(columns: list[str]) -> str:
    """`document.document_id` in SQL."""
    texts = [f"{c}::pg_catalog.text" for c in columns]
    if len(texts) == 1:
        return texts[0]
    parts = texts
    for special in ("\\", "|"):
        parts = [f"pg_catalog.replace({p}, {literal(special)}, {literal(chr(92) + special)})" for p in parts]
    return " || '|' || ".join(parts)


def _occurrence(node: Node) -> TableUse:
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
    """From a row's side of the link up through its ancestors to the root."""
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
    return Lookup(*_encoded(node, on), _placed(f"SELECT DISTINCT {outputs} FROM {source}{present}"))


def _root_key(node: Node, alias: str) -> list[str] | None:
    """The columns of a row that are its root's key already, so that the root need not be read."""
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
    """Whether equal values of two linked columns have the same text, and events write that text."""
    pair = {node.table.columns[own].base, parent.table.columns[theirs].base}
    return pair <= _CANONICAL and len({family(base) for base in pair}) == 1


def _encoded(node: Node, on: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = tuple(own for own, _ in on)
    return names, tuple(family(node.table.columns[name].base) for name in names)


def _placed(sql: str) -> str:
    """With psycopg's placeholders, and every other `%` doubled for it."""
    return sql.replace("%", "%%").replace(_PARAMETER, "%s")


def _hash(model: Model, root: Node, document: Document) -> str:
    """Changes when documents have to be built again beside the ones that are read: another declaration, or
    another form of their ids.

    It leaves out what the tables say otherwise: columns' types, other tables' primary keys, which column a
    name means. When one of these changes, all documents are rendered again where they are
    (`checks/table_state.py`). Where
    the sink's own types no longer fit then, that is reported (`ports.Sink.outgrown`).
    """
    key = [[name, family(root.table.columns[name].base)] for name in root.table.primary_key]
    declaration = model.declaration.model_dump(mode="json")
    content = [RENDERER_VERSION, declaration, _order(document.fields), key]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{_HASH_FORM}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _order(fields: Sequence[Field]) -> list[object]:
    """In which order a document has its fields."""
    return [[field.name, _order(field.fields)] for field in fields]


def form_of(hash: str) -> str:
    """What a hash was made of; hashes of different forms cannot be compared."""
    return hash.partition("-")[0] if "-" in hash else ""
