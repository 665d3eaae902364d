"""Read models with partials of every kind: Hypothesis strategies, and the expected documents by plain SQL.

As in `groups.py`, each part of a read model is drawn as two texts: as the declaration writes it, and as PostgreSQL
reads it in the oracle's statement. Both use these names:

    r  the root row                              n  a row that the root is linked to
    e  the rows that are divided into buckets    j  a row that each of them is linked to
    o  the same rows, not divided                m  rows that are linked to each of them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from hypothesis import strategies as st

from tests.engine.groups import sufficient_identity
from tests.engine.partial_tables import Link, divided_schemas
from tests.engine.schema import VALUES, Column, Identity, Schema, Table, literal, word

Draw = Callable[[st.SearchStrategy[Any]], Any]
NUMBERS = ("integer", "bigint", "numeric")
TIMES = ("date", "timestamp", "timestamptz")
MERGEABLE = (*NUMBERS, *TIMES, "boolean", "uuid")
"""Types whose order the syncer knows. The order of a text belongs to PostgreSQL."""


class Both(NamedTuple):
    """An expression in the declaration and in the oracle."""

    text: str
    sql: str
    column: Column | None = None
    """The column, if the expression is one."""

    @property
    def type(self) -> str:
        return self.column.type if self.column else ""


@dataclass(frozen=True)
class Join:
    """A relation of the row `outer`."""

    name: str
    outer: str
    table: str
    own: str
    """The column of the related table."""
    other: str
    """The column of the outer row."""

    @property
    def on(self) -> str:
        return f"{self.name}.{word(self.own)} = {self.outer}.{word(self.other)}"

    def yaml(self) -> dict[str, Any]:
        kind = "many" if self.name == "m" else "one"
        return {kind: word(self.table), "on": {word(self.own): word(self.other)}}


class Listed(NamedTuple):
    """The divided relation as a list of the document."""

    limit: int
    fields: tuple[Both, ...]
    is_value: bool
    """Whether each element is a value instead of an object."""


@dataclass(frozen=True)
class PartialCase:
    """The tables and the read model of one history. It prints as SQL and YAML."""

    schema: Schema
    link: Link
    by: str
    size: int | str
    joins: dict[str, Join]
    identities: dict[str, Identity]
    root_where: Both | None = None
    where: Both | None = None
    order: tuple[Both, ...] = ()
    listed: Listed | None = None
    fields: tuple[Both, ...] = ()
    """Aggregates over the divided rows."""
    others: tuple[Both, ...] = ()
    """Fields of the root row."""

    @property
    def root(self) -> Table:
        return self.schema.tables[0]

    @property
    def divided(self) -> Table:
        return self.schema.tables[1]

    def sql(self) -> list[str]:
        """Returns the statements that create the tables, with the index that `syncer check` demands."""
        index = ", ".join(map(word, [*(own for own, _ in self.link), self.by]))
        return [*self.schema.sql(self.identities), f"CREATE INDEX ON {word(self.divided.name)} ({index})"]

    @property
    def declaration(self) -> str:
        on = {word(own): word(theirs) for own, theirs in self.link}
        divided: dict[str, Any] = {"many": word(self.divided.name), "on": on}
        divided["partials"] = {"by": self.by, "size": self.size}
        divided |= {"where": self.where.text} if self.where else {}
        divided |= {"order_by": [by.text for by in self.order]} if self.order else {}
        below = {join.name: join.yaml() for join in self.joins.values() if join.outer == "e"}
        divided |= {"relations": below} if below else {}
        relations = {join.name: join.yaml() for join in self.joins.values() if join.outer == "r"}
        relations["o"] = {"many": word(self.divided.name), "on": on}
        document: dict[str, Any] = {f"g{n}": other.text for n, other in enumerate(self.others)}
        if self.listed:
            fields = {f"v{n}": field.text for n, field in enumerate(self.listed.fields)}
            shown = {"value": fields["v0"]} if self.listed.is_value else {"document": fields}
            document["e"] = divided | {"limit": self.listed.limit} | shown
        else:
            relations["e"] = divided
        document |= {f"f{n}": field.text for n, field in enumerate(self.fields)}
        model: dict[str, Any] = {"name": "model", "root": {"table": word(self.root.name)}}
        model |= {"where": self.root_where.text} if self.root_where else {}
        model |= {"relations": relations, "document": document, "sink": {"memory": {}}}
        text: str = yaml.safe_dump(model, sort_keys=False, allow_unicode=True, width=200)
        return text

    def rows(self, names: str) -> str:
        """Returns FROM and WHERE of the divided rows of one root. names: of the joined rows."""
        source = f"{word(self.divided.name)} e"
        for name in filter(names.__contains__, self.joins):
            how = "JOIN" if name == "m" else "LEFT JOIN"
            source += f" {how} {word(self.joins[name].table)} {name} ON {self.joins[name].on}"
        linked = [f"e.{word(own)} = r.{word(theirs)}" for own, theirs in self.link]
        return f"{source} WHERE {' AND '.join([*linked, *([f'({self.where.sql})'] if self.where else [])])}"

    @property
    def expected(self) -> str:
        """The statement of the oracle: the key of each root as text, and its document."""
        shown = [f"{other.sql} AS g{n}" for n, other in enumerate(self.others)]
        if self.listed:
            pairs = ", ".join(f"'v{n}', {field.sql}" for n, field in enumerate(self.listed.fields))
            element = self.listed.fields[0].sql if self.listed.is_value else f"json_build_object({pairs})"
            by = ", ".join([*(by.sql for by in self.order), *keys_of(self.divided)])
            first = f"SELECT {element} AS v FROM {self.rows('j')} ORDER BY {by} LIMIT {self.listed.limit}"
            shown.append(f"(SELECT coalesce(json_agg(v), '[]') FROM ({first}) x) AS e")
        for n, field in enumerate(self.fields):
            shown.append(f"(SELECT {field.sql} FROM {self.rows('jm' if 'm.' in field.sql else 'j')}) AS f{n}")
        near = "".join(f" LEFT JOIN {word(n.table)} n ON {n.on}" for n in self.joins.values() if n.name == "n")
        key = ", ".join(f"r.{word(name)}::text" for name in self.root.key)
        where = f" WHERE {self.root_where.sql}" if self.root_where else ""
        document = f"CROSS JOIN LATERAL (SELECT {', '.join(shown)}) d"
        return f"SELECT ARRAY[{key}], row_to_json(d)::text FROM {word(self.root.name)} r{near} {document}{where}"

    @property
    def tables(self) -> list[Table]:
        """The tables that the application writes to: most often the divided one."""
        return [*self.schema.tables, self.divided, self.divided]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it in Hypothesis' output."""
        made = "\n".join(f"{sql};" for sql in self.sql() if " SET (" not in sql)
        printer.text(f"\n{made}\n---\n{self.declaration}---\n{self.expected}\n")


def keys_of(table: Table) -> list[str]:
    """Returns the primary key of the divided rows, which ends their order."""
    return [f"e.{word(name)}" for name in table.key]


@st.composite
def partial_cases(draw: Draw) -> PartialCase:
    schema, link, by, size = draw(divided_schemas())
    root, divided, _ = schema.tables
    joins = {name: join for name, outer in OUTER.items() if (join := draw(_joins(schema, name, outer)))}
    rows = [*_columns("e", divided), *(_columns("j", schema[joins["j"].table]) if "j" in joins else [])]
    many = _columns("m", schema[joins["m"].table]) if "m" in joins else []
    own = [one._replace(text=one.text.removeprefix("e.")) for one in rows]
    near = [one._replace(text=one.text.removeprefix("r.")) for one in _columns("r", root)]
    near += _columns("n", schema[joins["n"].table]) if "n" in joins else []
    sortable = all(divided.column(name).type in MERGEABLE for name in divided.key)
    listed, order = None, list[Both]()
    if sortable and draw(st.booleans()):
        order = draw(st.lists(_orders(own), max_size=2))
        shown = tuple(draw(st.lists(st.sampled_from(own), min_size=1, max_size=3)))
        listed = Listed(draw(st.integers(1, 3)), shown, draw(st.booleans()))
    sorts = [*(one.sql for one in order), *keys_of(divided)]
    divided_rows = Divided("count(e)", Both(f"e.{word(by)}", f"e.{word(by)}"), tuple(sorts), sortable)
    fields = st.lists(aggregates(rows, many, divided_rows), min_size=2, max_size=8)
    others = draw(st.lists(st.sampled_from(near), max_size=2))
    if draw(st.booleans()):
        linked = " AND ".join(f"o.{word(own_)} = r.{word(theirs)}" for own_, theirs in link)
        others.append(Both("count(o)", f"(SELECT count(*) FROM {word(divided.name)} o WHERE {linked})"))
    needed: dict[str, set[str]] = {divided.name: {by, *(own_ for own_, _ in link)}}
    for join in joins.values():
        needed.setdefault(join.table, set()).add(join.own)
    return PartialCase(
        schema,
        link,
        by,
        size,
        joins,
        {t.name: sufficient_identity(draw, t, needed.get(t.name, set())) for t in schema.tables},
        draw(conditions(near)) if draw(st.booleans()) else None,
        draw(conditions(own)) if not draw(st.integers(0, 2)) else None,
        tuple(order),
        listed,
        tuple(draw(fields)),
        tuple(others),
    )


OUTER = {"j": "e", "m": "e", "n": "r"}
"""The relations of a case, and the row that each of them begins at."""


@st.composite
def _joins(draw: Draw, schema: Schema, name: str, outer: str) -> Join | None:
    here = schema.tables[0 if outer == "r" else 1]
    pairs = [
        (table.name, own.name, other.name)
        for table in schema.tables
        for own in table.columns
        for other in here.columns
        if own.type == other.type and (name == "m" or table.key == (own.name,))
    ]
    return Join(name, outer, *draw(st.sampled_from(pairs))) if pairs and draw(st.booleans()) else None


def _columns(name: str, table: Table) -> list[Both]:
    """Returns the columns of a row. name: of the row."""
    prefix = {"j": "e.j", "m": "e.m"}.get(name, name)
    return [Both(f"{prefix}.{word(c.name)}", f"{name}.{word(c.name)}", c) for c in table.columns]


@st.composite
def conditions(draw: Draw, columns: Sequence[Both]) -> Both:
    text, sql, column = draw(st.sampled_from(columns))
    if column.type == "boolean":
        return Both(text, sql)
    value = literal(draw(st.sampled_from(column.values or VALUES[column.type])))
    compared = [f"<> {value}", f"= {value}", *([f"> {value}"] * 2 if column.type in (*NUMBERS, *TIMES) else [])]
    how = draw(st.sampled_from([*compared, "is not null", "is null"]))
    return Both(f"{text} {how}", f"{sql} {how}")


@st.composite
def _orders(draw: Draw, columns: Sequence[Both]) -> Both:
    text, sql, _ = draw(st.sampled_from([one for one in columns if one.type in MERGEABLE]))
    how = draw(st.sampled_from(["", " desc"])) + draw(st.sampled_from(["", " nulls first", " nulls last"]))
    return Both(f"{text}{how}", f"{sql}{how}")


class Divided(NamedTuple):
    """The rows that are divided into buckets."""

    counted: str
    """Counts them, in the declaration."""
    by: Both
    sorts: tuple[str, ...]
    """The order of the rows, in the oracle."""
    sortable: bool
    """Whether the syncer knows this order."""


@st.composite
def aggregates(draw: Draw, rows: Sequence[Both], many: Sequence[Both], divided: Divided) -> Both:
    """Draws an aggregate of any kind. rows: their columns and those of joined rows. many: those of `m`."""
    counted, by, sorts, sortable = divided
    used, where = [*rows, *many], draw(st.none() | conditions(rows))
    kept, filtered = (f" filter (where {one})" if where else "" for one in (where and where.text, where and where.sql))

    def of(function: str, types: Sequence[str], among: Sequence[Both] = rows, by: str = "") -> Both | None:
        fitting = [one for one in among if one.type in types]
        if not fitting:
            return None
        text, sql, _ = draw(st.sampled_from(fitting))
        return Both(f"{function}({text}){kept}", f"{function}({sql}{by}){filtered}")

    ordered = f" ORDER BY {', '.join(sorts)}"
    kind = draw(st.sampled_from(KINDS))
    found: Both | None = None
    if kind in ("sum", "avg"):
        found = of(kind, NUMBERS, used)
    elif kind in ("min", "max"):
        found = of(kind, (*NUMBERS, *TIMES) if sortable else (*NUMBERS[:2], *TIMES), rows, ordered)
    elif kind in ("bool_and", "bool_or", "every"):
        condition = draw(conditions(used))
        found = Both(f"{kind}({condition.text}){kept}", f"{kind}({condition.sql}){filtered}")
    elif kind == "distinct":
        found = Both(f"count(distinct {by.text}){kept}", f"count(DISTINCT {by.sql}){filtered}")
    elif kind in ("first", "last") and sortable:
        text, sql, _ = draw(st.sampled_from(rows))
        key = draw(_orders(rows))
        whole = [key.sql, *sorts]
        array = f"array_agg({sql} ORDER BY {', '.join(whole)}){filtered}"
        at = 1 if kind == "first" else f"cardinality({array})"
        found = Both(f"{kind}({text} order by {key.text}){kept}", f"({array})[{at}]")
    elif kind == "many" and many:
        found = Both(f"count(e.m){kept}", f"count(m.*){filtered}")
    elif kind == "many extreme" and many:
        found = of(draw(st.sampled_from(["min", "max"])), NUMBERS[:2], many)
    elif kind == "column":
        text, sql, _ = draw(st.sampled_from(used))
        found = Both(f"count({text}){kept}", f"count({sql}){filtered}")
    return found or Both(f"{counted}{kept}", f"count(*){filtered}")


KINDS = (
    *("count", "column", "distinct", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "first", "last"),
    *("many", "many extreme"),
)
