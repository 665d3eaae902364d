"""Read models over groups of rows: Hypothesis strategies, and the expected documents by plain SQL with GROUP BY.

Each part of a read model is drawn as two texts: as the declaration writes it, and as PostgreSQL reads it in the
oracle's statement. There, the grouped table has the alias `t` and the joined table `j`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import yaml
from hypothesis import strategies as st

from syncer.checks import check_model
from syncer.declaration.compile import compile
from syncer.declaration.model import tables
from syncer.document import document_id
from syncer.postgres.catalog import load
from tests.engine.arbitrary import schemas
from tests.engine.play import Play, exact
from tests.engine.schema import VALUES, Column, Identity, Schema, Table, literal, word

Draw = Callable[[st.SearchStrategy[Any]], Any]
_WHOLE = ("{c}", "{c} % 2", "{c} / 2", "-{c}")
_TEXT = ("{c}", "{c}", "left({c}, 1)", "{c} || '|'", '{c} collate "C"')
_EXPRESSIONS = {
    "integer": _WHOLE,
    "bigint": _WHOLE,
    "text": _TEXT,
    "varchar": _TEXT,
    "character(3)": ("{c}::text",),
    "numeric": ("{c}::bigint", "round({c}, 1)::text", "{c} > 1"),
    "date": ("{c}", "date_trunc('month', {c})", "extract(year from {c})::integer"),
    "timestamptz": (
        "{c}",
        "date_trunc('hour', {c}, 'UTC')",
        "date_trunc('day', {c}, 'Europe/Berlin')",
        "date_trunc('day', {c}, 'America/Havana')",
        "date_trunc('hour', {c}, 'Asia/Kolkata')",
        "date_trunc('week', {c} at time zone 'Europe/Berlin')",
        "({c} at time zone 'America/New_York')::date",
    ),
    "timestamp": ("{c}", "date_trunc('day', {c})", "{c}::date"),
    "boolean": ("{c}", "not {c}"),
    "uuid": ("{c}",),
    "bytea": ("{c}",),
    "mood": ("{c}",),
}
"""By type: group expressions over a column."""
_AGGREGATES = {
    "count({c})": "count({a})",
    "count(distinct {c})": "count(DISTINCT {a})",
    "min({c})": "min({a} ORDER BY {key})",
    "max({c})": "max({a} ORDER BY {key})",
    "array({c})": "coalesce(array_agg({a} ORDER BY {key}), '{{}}')",
    "array({c}) filter (where {k} is not null)": (
        "coalesce(array_agg({a} ORDER BY {key}) FILTER (WHERE {b} IS NOT NULL), '{{}}')"
    ),
    "last({c} order by {k} desc)": "(array_agg({a} ORDER BY {b} ASC NULLS LAST, {reversed}))[1]",
}
_ORDERED = ("integer", "bigint", "numeric", "text", "varchar", "date", "timestamptz", "mood")
"""Types that have a minimum."""


@dataclass(frozen=True)
class Join:
    """A `one` relation: `j` of the grouped rows, or `i` of the rows of `j`."""

    table: str
    own: str
    """The column of the joined table."""
    other: str
    where: tuple[str, str] | None = None

    def yaml(self, below: dict[str, Any]) -> dict[str, Any]:
        """Returns the relation. below: its own relations."""
        relation = {"one": word(self.table), "on": {word(self.own): word(self.other)}}
        relation |= {"where": self.where[0]} if self.where else {}
        return relation | ({"relations": below} if below else {})

    def sql(self, name: str, outer: str) -> str:
        """Returns the join to the row `outer`."""
        joined = f"(SELECT * FROM {word(self.table)} t{_where(self.where)})" if self.where else word(self.table)
        return f" LEFT JOIN {joined} {name} ON {name}.{word(self.own)} = {outer}.{word(self.other)}"


@dataclass(frozen=True)
class GroupedCase:
    """The tables and the read model of one history. It prints as SQL and YAML."""

    schema: Schema
    table: str
    groups: tuple[tuple[str, str], ...]
    """Group expressions: of the declaration and of the oracle."""
    nulls: bool
    fields: tuple[tuple[str, str], ...]
    where: tuple[str, str] | None
    join: Join | None
    identities: dict[str, Identity]
    nested: Join | None = None
    """The relation `i` of the rows of `j`."""

    def sql(self) -> list[str]:
        return list(self.schema.sql(self.identities))

    def root(self) -> dict[str, Any]:
        """Returns the root of the declaration."""
        groups = {f"g{n}": text for n, (text, _) in enumerate(self.groups)}
        return {"table": word(self.table), "group": groups} | ({"nulls": "drop"} if self.nulls else {})

    @property
    def declaration(self) -> str:
        model: dict[str, Any] = {"name": "model", "root": self.root()}
        if self.where:
            model["where"] = self.where[0]
        if self.join:
            model["relations"] = {"j": self.join.yaml({"i": self.nested.yaml({})} if self.nested else {})}
        model["document"] = {
            "n": "count(*)",
            **{f"g{n}": f"g{n}" for n in range(len(self.groups))},
            **{f"f{n}": text for n, (text, _) in enumerate(self.fields)},
        }
        text: str = yaml.safe_dump(model | {"sink": {"memory": {}}}, sort_keys=False, allow_unicode=True, width=200)
        return text

    @property
    def expected(self) -> str:
        """The statement of the oracle: the key of each group as text, and its document."""
        source = f"{word(self.table)} t"
        source += self.join.sql("j", "t") if self.join else ""
        source += self.nested.sql("i", "j") if self.nested else ""
        keys = [f"{sql} AS g{n}" for n, (_, sql) in enumerate(self.groups)]
        fields = [f"{sql} AS f{n}" for n, (_, sql) in enumerate(self.fields)]
        inner = f"SELECT count(*) AS n, {', '.join([*keys, *fields])} FROM {source}{_where(self.where)}"
        inner += f" GROUP BY {', '.join(sql for _, sql in self.groups)}"
        texts = ", ".join(f"d.g{n}::text" for n in range(len(self.groups)))
        present = " AND ".join(f"d.g{n} IS NOT NULL" for n in range(len(self.groups)))
        return f"SELECT ARRAY[{texts}], row_to_json(d)::text FROM ({inner}) d WHERE {present}"

    @property
    def tables(self) -> list[Table]:
        """The tables that the application writes to, once for each use in the read model."""
        joined = [self.schema[join.table] for join in (self.join, self.nested) if join]
        return [self.schema[self.table]] * 2 + joined

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it in Hypothesis' output."""
        made = "\n".join(f"{sql};" for sql in self.sql() if " SET (" not in sql)
        printer.text(f"\n{made}\n---\n{self.declaration}---\n{self.expected}\n")


def _where(condition: tuple[str, str] | None) -> str:
    return f" WHERE {condition[1]}" if condition else ""


@st.composite
def grouped_cases(draw: Draw) -> GroupedCase:
    schema = draw(schemas())
    table = draw(st.sampled_from(schema.tables))
    nulls = draw(st.booleans())
    chosen, groups = draw(groups_of(table, nulls))
    join = draw(joins(schema, table))
    columns = [(word(c.name), f"t.{word(c.name)}", c) for c in table.columns]
    if join:
        columns += [(f"j.{word(c.name)}", f"j.{word(c.name)}", c) for c in schema[join.table].columns]
    fields = tuple(_field(draw, table, columns) for _ in range(draw(st.integers(0, 3))))
    shared = [c for c, (text, _) in zip(chosen, groups, strict=True) if text == word(c.name)]
    if join and join.other in [c.name for c in shared]:  # the rows of a group have the same row of `j`
        there = word(draw(st.sampled_from(schema[join.table].columns)).name)
        fields += ((f"j.{there}", f"(array_agg(j.{there}))[1]"),)
    where = draw(_conditions(columns)) if draw(st.booleans()) else None
    needed = {table.name: {c.name for c in chosen} | ({join.other} if join else set())}
    if join:
        needed.setdefault(join.table, set()).add(join.own)
    identities = {t.name: sufficient_identity(draw, t, needed.get(t.name, set())) for t in schema.tables}
    return GroupedCase(schema, table.name, groups, nulls, fields, where, join, identities)


@st.composite
def groups_of(draw: Draw, table: Table, nulls: bool) -> tuple[list[Column], tuple[tuple[str, str], ...]]:
    """Draws one or two group expressions, each over one column. Returns the columns with them."""
    # A default for NULL in an enum column needs a cast to text, which no index can have.
    stored = [c for c in table.columns if not c.generated and (nulls or c.not_null or c.type != "mood")]
    others = [c for c in stored if not c.key]  # a group of a key has one row
    columns = st.sampled_from(stored) | st.sampled_from(others) if others else st.sampled_from(stored)
    chosen = draw(st.lists(columns, min_size=1, max_size=2, unique=True))
    return chosen, tuple(_group(draw, column, nulls) for column in chosen)


def _group(draw: Draw, column: Column, nulls: bool) -> tuple[str, str]:
    """Draws a group expression over a column. If NULLs are no group, a nullable column gets a default."""
    has_default = not column.not_null and column.type != "mood" and (not nulls or draw(st.booleans()))
    # An index has bounds of a column only, or an immutable expression: not date_trunc of a timestamptz.
    fitting = [e for e in _EXPRESSIONS[column.type] if not (has_default and "date_trunc" in e and "at time" not in e)]
    if column.values:  # with infinite times, which have no year, and with the lowest bigint
        fitting = [e for e in fitting if "extract" not in e and not e.startswith("-")]
    text = draw(st.sampled_from(fitting))
    both = [text.format(c=name) for name in (word(column.name), f"t.{word(column.name)}")]
    if has_default:
        default = literal(draw(st.sampled_from(VALUES[column.type])))
        both = [
            text.format(c=f"coalesce({name}, {default}::{column.type})")
            for name in (word(column.name), f"t.{word(column.name)}")
        ]
    return both[0], both[1]


@st.composite
def joins(draw: Draw, schema: Schema, table: Table, often: Collection[str] = ()) -> Join | None:
    """Draws a relation of the rows of a table. often: columns that are preferred for the link."""
    pairs = [
        (other, own, ours)
        for other in schema.tables
        for own in other.columns
        for ours in table.columns
        if (other.key == (own.name,) or other.unique == own.name)
        and own.type == ours.type
        and not (own.generated or ours.generated or (other is table and own is ours))
    ]
    preferred = [pair for pair in pairs if pair[2].name in often]
    if not pairs or not draw(st.integers(0, 3)):
        return None
    other, own, ours = draw(st.sampled_from(preferred if preferred and draw(st.booleans()) else pairs))
    names = [(word(c.name), f"t.{word(c.name)}", c) for c in other.columns]
    where = draw(_conditions(names)) if not draw(st.integers(0, 3)) else None
    return Join(other.name, own.name, ours.name, where)


@st.composite
def _conditions(draw: Draw, columns: list[tuple[str, str, Column]]) -> tuple[str, str]:
    """Draws a condition. columns: their names in the declaration and in the oracle."""
    text, sql, column = draw(st.sampled_from(columns))
    if column.type == "boolean":
        return text, sql
    value = literal(draw(st.sampled_from(VALUES[column.type])))
    how = draw(st.sampled_from([f"<> {value}", f"<> {value}", f"= {value}", "is not null", "is null"]))
    return f"{text} {how}", f"{sql} {how}"


def _field(draw: Draw, table: Table, columns: list[tuple[str, str, Column]]) -> tuple[str, str]:
    text, sql, column = draw(st.sampled_from(columns))
    other, other_sql, _ = draw(st.sampled_from(columns))
    calls = [call for call in _AGGREGATES if column.type in _ORDERED or not call.startswith("m")]
    call = draw(st.sampled_from(sorted(calls)))
    key = ", ".join(f"t.{word(name)}" for name in table.key)
    reverse = ", ".join(f"t.{word(name)} DESC" for name in table.key)
    names = {"a": sql, "b": other_sql, "key": key, "reversed": reverse}
    return call.format(c=text, k=other), _AGGREGATES[call].format(**names)


def sufficient_identity(draw: Draw, table: Table, needed: set[str]) -> Identity:
    fitting: list[Identity] = ["FULL"]
    if needed <= set(table.key):
        fitting.append("DEFAULT")
    covered = [c for c in table.columns if c.key or c.name in needed]
    if all(column.not_null for column in covered):
        fitting.append(tuple(column.name for column in covered))
    found: Identity = draw(st.sampled_from(fitting))
    return found


class GroupedPlay(Play):
    """A play whose expected documents are those of SQL. It creates the indexes that the check demands."""

    case: GroupedCase  # type: ignore[assignment]

    def compile(self) -> None:
        for statement in list(self._missing_indexes()):
            self.admin.execute(statement.encode())
        super().compile()

    def _missing_indexes(self) -> Iterator[str]:
        catalog = load(self.admin, tables(self.model))
        compiled = compile(self.model, catalog)
        for finding in check_model("model.yaml", compiled, catalog):
            if finding.code in ("group-index", "partials-index"):
                yield finding.fix

    def expected(self) -> dict[str, Any]:
        found = self.admin.execute(self.case.expected.encode()).fetchall()
        number: Any = exact(Decimal)
        return _named({document_id(tuple(key)): json.loads(text, parse_float=number) for key, text in found})

    def written(self) -> dict[str, Any]:
        return _named(super().written())

    def refused(self) -> list[str]:
        return [id for id in super().refused() if id]


def _named(documents: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the group of an empty text: servers refuse an empty id, so it has a dead letter instead."""
    return {id: document for id, document in documents.items() if id}
