"""Generates the statements of a grouped root: on its groups and their keys, and from row images to groups.

A group is read by its key: `expression = key` for each group expression. An index on the expressions serves that. Where
an expression implies bounds of a column (`group_span.py`), the statements contain these bounds, too.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from syncer.declaration.catalog import Column
from syncer.declaration.compiled import GroupColumn, Lookup
from syncer.declaration.groups import ROW, Grouping
from syncer.declaration.names import quote
from syncer.declaration.node import Node
from syncer.declaration.parameters import PARAMETER, arrays, bounds, document_id, row, texts, with_placeholders
from syncer.declaration.sql_types import family, key_type, own_type

KEY = "k"
"""The alias of the requested group in a document's SQL. Its columns are k0, k1, …, in key order."""
_RANGE_ROWS = 100_000
"""A range of groups ends when it has this many rows. A statement over them takes about a tenth of a second."""


class Bucket(NamedTuple):
    """Divides the rows of a group (`partial_buckets.py`)."""

    column: Column
    number: Callable[[str], str]
    """Returns the number of the bucket, from the column's value as SQL."""


def same_group(grouping: Grouping, alias: str, *, bounded: str = "") -> str:
    """Returns the condition that a row belongs to the group `KEY`.

    bounded: the column that a bucket bounds. Bounds of other columns are left out: PostgreSQL might use their index.
    """
    keys = grouping.keys
    conditions = [f"{key.sql(alias)} = {KEY}.k{n}" for n, key in enumerate(keys)]
    for n, key in enumerate(keys):
        if key.span and bounded in ("", key.span.column):
            column, value = f"{alias}.{quote(key.span.column)}", f"{KEY}.k{n}"
            conditions += [f"{column} >= {key.span.low(value)}", f"{column} <= {key.span.high(value)}"]
    return " AND ".join(conditions)


def group_statements(root: Node, grouping: Grouping, document: str) -> dict[str, str]:
    """Returns the statements on groups and on their keys, by their names in `Compiled`.

    document: a sub-select that returns `doc` for the group `KEY`, and no row if the group has no rows.
    """
    own, types = grouping.sql("r"), [key.type for key in grouping.keys]
    keys = [f"{KEY}.k{n}" for n in range(len(types))]
    names = ", ".join(f"v{n}" for n in range(len(types)))
    typed = ", ".join(f"v{n}::{type} AS k{n}" for n, type in enumerate(types))
    given = f"ROWS FROM ({arrays(len(types))})"
    listed = ", ".join(f"{sql} AS k{n}" for n, sql in enumerate(own))
    table, present = f"{quote(*root.table.name)} r", grouping.present("r")
    rows = f"FROM {table} WHERE {present}"
    id, order = document_id(keys), ", ".join(keys)
    found = f"LEFT JOIN LATERAL ({document}) x ON true"
    shown = f"SELECT {id} AS asked, CASE WHEN x.doc IS NOT NULL THEN {id} END AS id, x.doc"
    between, upto = (
        f"SELECT DISTINCT {listed} FROM {table} CROSS JOIN {given_bounds} WHERE {present} AND {condition}"
        for given_bounds, condition in (_range(grouping, "lh"), _range(grouping, "h"))
    )
    counted = f"SELECT {listed}, pg_catalog.count(*) AS size {rows} GROUP BY {', '.join(own)}"
    plain = ", ".join(f"c.k{n}" for n in range(len(types)))
    numbered = (
        f"SELECT {plain}, c.size, pg_catalog.row_number() OVER w AS n,"
        f" pg_catalog.sum(c.size) OVER w AS total, pg_catalog.lead(c.size) OVER w IS NULL AS ends"
        f" FROM ({counted}) c WINDOW w AS (ORDER BY {plain})"
    )
    full = f"pg_catalog.div({KEY}.total, {_RANGE_ROWS}) > pg_catalog.div({KEY}.total - {KEY}.size, {_RANGE_ROWS})"
    written = ", ".join(f"v{n}::{type}::pg_catalog.text" for n, type in enumerate(types))
    statements = {
        "render": f"{shown} FROM (SELECT {typed} FROM {given} AS u({names})) {KEY} {found}",
        "render_between": f"{shown} FROM ({between}) {KEY} {found}",
        "render_upto": f"{shown} FROM ({upto}) {KEY} {found}",
        "boundaries": f"SELECT {texts(keys)} FROM ({numbered}) {KEY}"
        f" WHERE {KEY}.n % {PARAMETER}::pg_catalog.int8 = 0 OR {full} OR {KEY}.ends ORDER BY {order}",
        "canonical_keys": f"SELECT {written} FROM {given} WITH ORDINALITY AS u({names}, n) ORDER BY u.n",
        "keys_between": f"SELECT {texts(keys)} FROM ({between}) {KEY} ORDER BY {order}",
        "keys_upto": f"SELECT {texts(keys)} FROM ({upto}) {KEY} ORDER BY {order}",
        "first_keys": f"SELECT {texts(keys)} FROM (SELECT DISTINCT {listed} {rows}) {KEY} ORDER BY {order}"
        f" LIMIT {PARAMETER}::pg_catalog.int8",
    }
    return {name: with_placeholders(sql) for name, sql in statements.items()}


def _range(grouping: Grouping, sides: str) -> tuple[str, str]:
    """Returns a FROM item with the parameters, and the condition that a row's group lies between them.

    sides: `lh` for low < key <= high, `h` for key <= high. A bound of a column needs a parameter a second time.
    PostgreSQL pulls the sub-select up, so an index serves the comparisons.
    """
    parameters = ", ".join(
        f"{bounds([key.type])} AS {side}{n}" for side in sides for n, key in enumerate(grouping.keys)
    )
    numbers = range(len(grouping.keys))
    conditions = [
        condition
        for side in sides
        for condition in beyond(grouping, [f"b.{side}{n}" for n in numbers], ">" if side == "l" else "<=")
    ]
    return f"(SELECT {parameters}) b", " AND ".join(conditions)


def beyond(grouping: Grouping, values: Sequence[str], comparison: str) -> list[str]:
    """Returns the conditions that compare the group of the row `r` with a key.

    values: the key as SQL. comparison: `>`, `>=` or `<=`.
    """
    own, low = grouping.sql("r"), comparison.startswith(">")
    conditions = [f"{row(own)} {comparison} {row(values)}"]
    place = next((n for n, key in enumerate(grouping.keys) if key.span), None)
    if place is not None and (span := grouping.keys[place].span):
        columns = [*own[:place], f"r.{quote(span.column)}"]
        limit = span.low(values[place]) if low else span.high(values[place])
        conditions.append(f"{row(columns)} {'>=' if low else '<='} {row([*values[:place], limit])}")
    return conditions


def group_lookup(root: Node, grouping: Grouping, bucket: Bucket | None = None) -> Lookup:
    """Returns the look-up from the values in a row image to the key of the group that the image belongs to.

    bucket: the key then ends with the number of the image's bucket.

    PostgreSQL evaluates the group expressions on the values. They have to mean the same as on a row of the table. So
    the values get the types and collations of the table's columns: the first part of the UNION ALL provides them.
    """
    columns, key = list(grouping.columns), grouping.sql("i")
    if bucket is not None:
        columns += [bucket.column] if bucket.column not in columns else []
        key.append(bucket.number(f"i.{quote(bucket.column.name)}"))
    names = ", ".join(f"v{n}" for n in range(len(columns)))
    theirs = ", ".join(f"r.{quote(column.name)}" for column in columns)
    typed = ", ".join(f"v{n}::{_input_type(grouping, column)}" for n, column in enumerate(columns))
    given = f"SELECT DISTINCT {typed} FROM ROWS FROM ({arrays(len(columns))}) AS u({names})"
    images = f"SELECT {theirs} FROM {quote(*root.table.name)} r WHERE false UNION ALL {given}"
    present = grouping.present("i")
    if bucket is not None:  # an image may be older than NOT NULL of the column
        present += f" AND i.{quote(bucket.column.name)} IS NOT NULL"
    sql = f"SELECT DISTINCT {texts(key)} FROM ({images}) i WHERE {present}"
    return Lookup(
        tuple(column.name for column in columns),
        tuple(family(column.base) for column in columns),
        with_placeholders(sql),
        nulls=grouping.nullable,
    )


def leading_images(root: Node, grouping: Grouping) -> str:
    """Returns the statement that keeps the values of row images that belong to one group, for `syncer trace`.

    Its parameters are the values and the group's key, in one array for each column.
    """
    columns, keys = grouping.columns, grouping.keys
    values, key = [f"v{n}" for n in range(len(columns))], [f"r{n}" for n in range(len(keys))]
    named = [quote(f"syncer {name}") for name in (*values, *key)]  # no name of a column
    theirs = ", ".join(f"r.{quote(column.name)}" for column in columns)
    typed = ", ".join(f"v{n}::{_input_type(grouping, column)}" for n, column in enumerate(columns))
    none = ", ".join(f"NULL::pg_catalog.text AS {name}" for name in named)
    names = ", ".join((*values, *key))
    given = f"SELECT {names}, {typed} FROM ROWS FROM ({arrays(len(named))}) AS u({names})"
    images = f"SELECT {none}, {theirs} FROM {quote(*root.table.name)} r WHERE false UNION ALL {given}"
    found = ", ".join(f"i.{name}" for name in named[: len(values)])
    asked = zip(keys, named[len(values) :], strict=True)
    same = " AND ".join(f"{key.sql('i')} = i.{name}::{key.type}" for key, name in asked)
    return with_placeholders(f"SELECT DISTINCT {found} FROM ({images}) i WHERE {same}")


def _input_type(grouping: Grouping, column: Column) -> str:
    """Returns the type that an image's value is cast to.

    A function of an integer may depend on its width, as to_hex() does. The column itself may have been wider when an
    event was written.
    """
    if grouping.whole(column.name):
        return key_type(column.type, column.base)
    return own_type(column.type, column.base)


def group_columns(grouping: Grouping) -> tuple[GroupColumn, ...]:
    """Returns the group expressions for `syncer check` and `syncer explain`."""
    return tuple(
        GroupColumn(
            key.name,
            key.text,
            _of_table(key.template),
            key.columns[0] if key.bare else "",
            key.span.column if key.span else "",
            tuple((part.text, _of_table(part.sql)) for part in key.parts),
            (key.local.text, _of_table(key.local.sql)) if key.local else None,
        )
        for key in grouping.keys
    )


def _of_table(template: str) -> str:
    """Returns an expression over the columns of the table, as an index can have it."""
    return template.replace(f"{ROW}.", "")
