"""Checks that indexes serve the groups of a grouped root. Without them, each change reads the whole table.

A missing index is an error. It is a warning if an index has an expression that may be the same, written in another way.
It is an error with other advice if PostgreSQL accepts the expression in no index, because it is not immutable.

Two kinds of statements read groups:

* one group by its key. An index serves it if its leading columns are the group expressions, in any order;
* a range of groups in key order, for a backfill. The index needs the expressions in key order.

A column with bounds for each value of an expression (`GroupColumn.bounded`) can take the expression's place, as the
last column. One index often serves both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from sqlglot import exp

from syncer.checks.finding import Finding, NewIndex, Severity, quote
from syncer.declaration.catalog import Table
from syncer.declaration.compiled import Compiled, GroupColumn
from syncer.declaration.sql_parser import parse
from syncer.declaration.sql_types import TEXTS, cast_target

_SMALL = 1000
"""Rows up to which a scan is as fast as an index."""
_ONE = "each change reads the whole table to render one group"
_RANGE = "each step of a backfill reads the whole table to render some groups"
_NO_INDEX = "PostgreSQL accepts only immutable expressions in an index, so no index can serve the groups"
_INSTEAD = {
    "to_char": "use date_trunc(…) or extract(… from …)",
    "concat": "use || instead",
    "concat_ws": "use || instead",
    "format": "use || instead",
}
"""By function that is not immutable: what a group can use instead."""
_FILLED = "or group by a column that the application or a trigger fills"


def check_groups(where: str, compiled: Compiled, table: Table, mutable: Collection[str] = ()) -> Iterator[Finding]:
    """Yields an error for each missing index, with the statement that creates it. A small table needs none.

    table: the grouped table. where: the file of the declaration.
    mutable: the SQL of the parts of group expressions that PostgreSQL accepts in no index (`postgres/mutable.py`).
    """
    indexes = [tuple(map(canonical, i.keys)) for i in table.indexes if i.keys and not i.partial]
    missing: dict[tuple[str, ...], list[str]] = {}
    if not any(_serves_one(keys, compiled.group) for keys in indexes):
        missing.setdefault(_for_one(compiled.group, mutable), []).append(_ONE)
    if not any(_serves_ranges(keys, compiled.group) for keys in indexes):
        missing.setdefault(_for_ranges(compiled.group), []).append(_RANGE)
    for_one = _for_one(compiled.group, mutable)
    if len(missing) == 2 and _serves_ranges(tuple(map(canonical, for_one)), compiled.group):
        missing = {for_one: [_ONE, _RANGE]}
    entries = {column for columns in missing for column in columns}
    if impossible := [g for g in compiled.group if g.sql in mutable and entry(g) in entries]:
        yield from (_not_immutable(where, table, group, mutable) for group in impossible)
        return
    for columns, why in missing.items():
        index = NewIndex(table.name, columns, concurrently=table.kind != "partitioned")
        expressions = any(column.startswith("(") for column in columns)
        severity: Severity = "warning" if expressions and _has_unknown_expression(table, compiled.group) else "error"
        yield Finding(
            _severity(table, severity),
            "group-index",
            f"{where}: {table.name}",
            f"no index serves the groups ({', '.join(group.text for group in compiled.group)})",
            "; ".join(why),
            str(index),
            index,
        )


def _severity(table: Table, severity: Severity) -> Severity:
    return "note" if 0 < table.rows_estimate <= _SMALL else severity


def _not_immutable(where: str, table: Table, group: GroupColumn, mutable: Collection[str]) -> Finding:
    part = next((text for text, sql in group.parts if sql in mutable), group.text)
    function = part.partition("(")[0].lower()
    advice = _INSTEAD.get(function, f"group {group.name} by another expression")
    if group.local and group.local[1] not in mutable:
        advice = f"{group.name}: {group.local[0]}"
    return Finding(
        _severity(table, "error"),
        "group-expression",
        f"{where}: {table.name}",
        f"the group {group.name} ({group.text}) is not immutable, because of {part}",
        f"{_NO_INDEX}; {_ONE}",
        f"{advice}\n{_FILLED}",
    )


def _serves_one(keys: Sequence[str], groups: Sequence[GroupColumn]) -> bool:
    """Returns whether an index leads to the rows of one group. keys: of the index, in canonical form."""
    left = {canonical(group.sql): group for group in groups}
    for key in keys:
        if key in left:
            del left[key]
            continue
        bounded = next((e for e, group in left.items() if group.bounded and canonical(quote(group.bounded)) == key), "")
        left.pop(bounded, None)
        break
    return not left


def _serves_ranges(keys: Sequence[str], groups: Sequence[GroupColumn]) -> bool:
    """Returns whether an index leads to the rows of a range of groups. keys: of the index, in canonical form."""
    for n, group in enumerate(groups):
        if n >= len(keys):
            return False
        if group.bounded and keys[n] == canonical(quote(group.bounded)):
            return True
        if keys[n] != canonical(group.sql):
            return False
    return True


def _has_unknown_expression(table: Table, groups: Sequence[GroupColumn]) -> bool:
    known = {canonical(group.sql) for group in groups} | {canonical(quote(column)) for column in table.columns}
    return any(canonical(key) not in known for index in table.indexes for key in index.keys if not index.partial)


def _for_one(groups: Sequence[GroupColumn], mutable: Collection[str]) -> tuple[str, ...]:
    """Returns the columns of an index that serves one group: a column with bounds comes last.

    If several groups have one, it replaces an expression that no index can contain.
    """
    bounded = sorted((group for group in groups if group.bounded), key=lambda group: group.sql not in mutable)
    last = next(iter(bounded), None)
    equal = [entry(group) for group in groups if group is not last]
    return (*equal, quote(last.bounded)) if last else tuple(equal)


def _for_ranges(groups: Sequence[GroupColumn]) -> tuple[str, ...]:
    found: list[str] = []
    for group in groups:
        if group.bounded:
            return (*found, quote(group.bounded))
        found.append(entry(group))
    return tuple(found)


def entry(group: GroupColumn) -> str:
    """Returns a group expression as a column of an index."""
    return quote(group.column) if group.column else f"({group.sql})"


def canonical(text: str) -> str:
    """Returns a form of an expression that does not depend on how it is written: parentheses, quotes and casts to text.

    PostgreSQL writes `date_trunc('day'::text, (at AT TIME ZONE 'UTC'::text))` for what a declaration writes without the
    casts. Returns the text itself if it cannot be parsed.
    """
    try:
        return _form(parse(text))
    except ValueError:
        return text


def _form(node: object) -> str:
    """Returns a part of a syntax tree as text. Raises ValueError for a type that is not known."""
    match node:
        case exp.Paren() | exp.Collate():  # PostgreSQL keeps the collation of an index apart from its expression
            return _form(node.this)
        case exp.Column() if len(node.parts) == 1:
            return str(node.name)
        case exp.Literal():
            return f"{node.this!r}" if node.args.get("is_string") else str(node.this)
        case exp.Dot() if isinstance(node.expression, exp.Anonymous) and node.this.name == "pg_catalog":
            return _form(node.expression)
        case exp.Anonymous():
            return f"{node.name.lower()}({', '.join(map(_form, node.expressions))})"
        case exp.JSONPath() if len(node.expressions) == 2:
            return repr(node.expressions[1].this)
        case exp.Cast():
            if isinstance(inner := node.this.unnest(), exp.Literal):  # PostgreSQL may omit the type of a constant
                return _form(inner)
            to = cast_target(node.args["to"], {})
            return _form(node.this) if to.type in TEXTS else f"({_form(node.this)})::{to.sql}"
        case exp.Expr():
            hidden = ("typed", "safe", "only_json_types", "_type")
            given = sorted((name, value) for name, value in node.args.items() if value and name not in hidden)
            parts = [f"{name}={_form(value)}" for name, value in given]
            return f"{type(node).__name__}({', '.join(parts)})"
        case list():
            return f"[{', '.join(map(_form, node))}]"
    return str(node)
