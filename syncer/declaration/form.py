"""Declares the YAML form of a read model, as pydantic classes. The JSON Schema for editors is generated from them.

Only the structure is validated here. `compile.py`, which has the catalog, decides what the names in it refer to.
docs/read-models.md explains the form to its users.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from syncer.declaration.names import Pattern, near
from syncer.quantities import Seconds, lasting, parse_duration

_SQL: dict[str, Any] = {"type": ["string", "number", "boolean"]}
Expression = Annotated[
    str,
    Field(min_length=1),
    WithJsonSchema(_SQL | {"description": "A SQL expression over the row of this level."}),
]
Filter = Annotated[
    str | None,
    Field(min_length=1, description="A SQL condition over the row and its `one` relations."),
    WithJsonSchema(_SQL | {"description": "A SQL condition over the row and its `one` relations."}),
]
Name = Annotated[str, Field(min_length=1)]
On = Annotated[
    dict[Name, Name],
    Field(
        min_length=1,
        description="The link: columns of the related table, each with a column of the outer row. In `many`, a path "
        "(`follows.followee_id`) or an array (`any(ids)`) can replace a column.",
    ),
]
When = Annotated[
    str | None,
    Field(min_length=1, description="A SQL condition over the outer row. Unless it is true, no row is related."),
    WithJsonSchema(_SQL | {"description": "A SQL condition over the outer row. Unless it is true, no row is related."}),
]
Relations = Annotated[
    dict[Name, "Relation"], Field(description="Related rows that expressions can use and the document does not show.")
]


MinInterval = Annotated[
    Seconds,
    lasting(most=60),
    Field(
        description="An interval of at most 60s, such as 1s. A document is rendered at most about once per interval."
        " The last state always arrives.",
    ),
]
_MOST_VALUES, _LONGEST = 10_000_000, timedelta(days=36_500)


def _bucket_size(value: Any) -> Any:
    """Returns a number of values as int, and a duration with a unit as timedelta. Raises ValueError."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9.]+", value.strip()):
        span = timedelta(seconds=parse_duration(value))
        if span % timedelta(seconds=1) or not timedelta(seconds=1) <= span <= _LONGEST:
            raise ValueError("a duration must be whole seconds, from 1s to 36500d")
        return span
    if str(value).strip().isdecimal() and 2 <= int(value) <= _MOST_VALUES:
        return int(value)
    raise ValueError("must be a number of values, from 2 to 10000000, or a duration such as 1h")


BucketSize = Annotated[
    int | timedelta,
    BeforeValidator(_bucket_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 2, "maximum": _MOST_VALUES}, {"type": "string", "pattern": "^[0-9]"}]}
    ),
]
MOST_ANCESTORS = 100
"""The greatest `limit` of `up`. It bounds the work that a cycle in the data causes."""


class Strict(BaseModel):
    """Base of all parts of the form. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Partials(Strict):
    """Aggregates over rows are combined from partials. So one changed row re-reads one bucket of rows."""

    by: Name = Field(description="A NOT NULL column of the rows: an integer, a date or a timestamp.")
    size: BucketSize = Field(
        description="The number of values of the column in one bucket. For dates and timestamps a duration, such as 1h."
    )


class Root(Strict):
    """The table that has one document for each of its rows, or for each group of its rows."""

    table: Name = Field(description="`schema.table`. Without `group`, its primary key is the id of the documents.")
    group: Annotated[dict[Name, Expression], Field(min_length=1)] | None = Field(
        default=None,
        description="Expressions over a row, by name. Each group of rows has one document. The values form its id.",
    )
    nulls: Literal["drop"] | None = Field(
        default=None, description="`drop` leaves out rows for which an expression of `group` is NULL."
    )
    partials: Partials | None = Field(
        default=None,
        description="Divides the rows of each group into buckets, and stores the aggregates of each bucket.",
    )

    @model_validator(mode="after")
    def _options_of_groups(self) -> Root:
        for name in ("nulls", "partials"):
            if getattr(self, name) and not self.group:
                raise ValueError(f"`{name}` needs `group`")
        return self


class OneRelation(Strict):
    """At most one row of another table, which a unique index or key guarantees. Not shown, only used."""

    one: Name = Field(description="The related table.")
    on: On
    when: When = None
    where: Filter = None
    relations: Relations = {}


class ManyRelation(Strict):
    """Rows of another table that refer to the outer row. Not shown, only used."""

    many: Name = Field(description="The related table.")
    on: On
    when: When = None
    where: Filter = None
    order_by: Expression | Annotated[list[Expression], Field(min_length=1)] = Field(
        default=[], description="The order, as in SQL. The primary key is always appended."
    )
    relations: Relations = {}
    partials: Partials | None = Field(
        default=None,
        description="Divides the rows into buckets, and stores the aggregates of each bucket. "
        "Only for a relation of the root.",
    )

    @property
    def order(self) -> list[str]:
        return [self.order_by] if isinstance(self.order_by, str) else self.order_by


class UpRelation(Strict):
    """The ancestors of a row in a tree: a row, the row above it, and so on. Not shown, only used."""

    up: Name = Field(description="The table of the tree.")
    on: On
    step: dict[Name, Name] = Field(
        default={},
        description="The link from each ancestor to the next one: columns of the tree, like `on`. Default: `on`, if "
        "the outer row is a row of the tree.",
    )
    limit: int = Field(
        gt=0, le=MOST_ANCESTORS, description="Maximum number of ancestors. The farther ones are left out."
    )
    first: Literal["farthest", "nearest"] = Field(
        default="farthest", description="Which ancestor comes first. Default: `farthest`, as in a breadcrumb."
    )
    where: Filter = None
    relations: Relations = {}


class Shown(Strict):
    """A related row as the document shows it."""

    document: Document | None = Field(default=None, description="The fields of an object.")
    value: Expression | None = Field(default=None, description="A single value instead of an object.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Shown:
        if (self.document is None) == (self.value is None):
            raise ValueError("give either `document` or `value`")
        return self


class One(OneRelation, Shown):
    """At most one row of another table, as an object or a single value. Without a row, the field is null."""


class Many(ManyRelation, Shown):
    """Rows of another table, as a list of objects or values."""

    limit: int | None = Field(default=None, gt=0, description="Maximum length of the list. Aggregates ignore it.")
    group_by: Expression | Annotated[list[Expression], Field(min_length=1)] = Field(
        default=[], description="Expressions over a row. The list has one element for each group of rows."
    )

    @property
    def groups(self) -> list[str]:
        return [self.group_by] if isinstance(self.group_by, str) else self.group_by


class Up(UpRelation, Shown):
    """The ancestors of a row in a tree, as a list of objects or values."""


class Object(Strict):
    """A nested object over the same row."""

    object: Document = Field(description="The fields of the object.")


class Grouped(Strict):
    """An object with one field for each group: the value of `group_by` as text, and the aggregate over its rows."""

    value: Expression = Field(description="An aggregate, such as count(orders).")
    group_by: Expression = Field(description="The expression to group by, over the rows of the same relation.")


PARTS: dict[str, type[Strict]] = {
    "~one": One,
    "~many": Many,
    "~up": Up,
    "~object": Object,
    "~grouped": Grouped,
    "~one relation": OneRelation,
    "~many relation": ManyRelation,
    "~up relation": UpRelation,
}
"""The alternatives of a field, by their tag in pydantic's error locations. `~` cannot be confused with a key."""

KINDS = ("one", "many", "up", "object")
OF_RELATIONS = frozenset(("on", "when", "order_by", "limit", "relations", "step", "first"))
"""Keys that only relations have."""


def misspelt_kind(given: Mapping[Any, object]) -> str:
    """Returns the misspelt key that should say which kind of field this is, or an empty text.

    Without this, pydantic would complain about all the other keys.
    """
    if any(kind in given for kind in KINDS) or ("group_by" in given and OF_RELATIONS.isdisjoint(given)):
        return ""
    known = {"group_by", *(name for part in PARTS.values() for name in part.model_fields)}
    unknown = [str(key) for key in given if key not in known]
    if len(unknown) == 1 and not OF_RELATIONS.isdisjoint(given):
        return unknown[0]
    return next((key for key in unknown if near(key, KINDS)), "")


def _field_tag(value: object) -> str | None:
    """Returns the tag of the kind of a field, as pydantic's discriminator."""
    if isinstance(value, str):
        return "~expression"
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Strict) else ()
    kinds = {kind: f"~{kind}" for kind in KINDS} | {"group_by": "~grouped", "value": "~grouped"}
    if isinstance(value, dict) and (misspelt_kind(value) or OF_RELATIONS & value.keys()):
        del kinds["value"], kinds["group_by"]  # here they belong to a relation
    return next((kind for key, kind in kinds.items() if key in keys), None)


def _relation_tag(value: object) -> str | None:
    kind = _field_tag(value)
    return f"{kind} relation" if kind in ("~one", "~many", "~up") else None


Entry = Annotated[
    Annotated[Expression, Tag("~expression")]
    | Annotated[One, Tag("~one")]
    | Annotated[Many, Tag("~many")]
    | Annotated[Up, Tag("~up")]
    | Annotated[Object, Tag("~object")]
    | Annotated[Grouped, Tag("~grouped")],
    Discriminator(_field_tag),
]
Relation = Annotated[
    Annotated[OneRelation, Tag("~one relation")]
    | Annotated[ManyRelation, Tag("~many relation")]
    | Annotated[UpRelation, Tag("~up relation")],
    Discriminator(_relation_tag),
]
Document = Annotated[dict[Name, Entry], Field(min_length=1, description="Fields by name.")]


class Declaration(Strict):
    """A read model: one document for each row of the root table, kept in sync in every sink."""

    name: Annotated[
        str,
        Pattern(r"^[a-z][a-z0-9_-]*$", "a lower-case letter, followed by lower-case letters, digits, _ or -"),
    ] = Field(max_length=100, description="The unique name. Commands, topics and metrics use it.")
    root: Root = Field(description="The table that has one document for each of its rows.")
    where: Filter = None
    min_interval: MinInterval = 0.0
    relations: Relations = {}
    document: Document
    sink: dict[str, dict[str, Any]] = Field(min_length=1, description="The sinks by kind, with their settings.")


def json_schema() -> str:
    """Returns the form as JSON Schema, for editors. `config/readmodel.schema.json` contains this text."""
    schema = Declaration.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


for _part in PARTS.values():
    _part.model_rebuild()
Declaration.model_rebuild()
