"""Declares the YAML form of a read model, as pydantic classes. The JSON Schema for editors is generated from them.

Only the structure is validated here. `compile.py`, which has the catalog, decides what the names in it refer to.
docs/read-models.md explains the form to its users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from syncer.declaration.names import Pattern, near

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
    Field(min_length=1, description="The link: columns of the related table, each with a column of the outer row."),
]
Relations = Annotated[
    dict[Name, "Relation"], Field(description="Related rows that expressions can use and the document does not show.")
]


class Strict(BaseModel):
    """Base of all parts of the form. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Root(Strict):
    """The table that has one document for each of its rows."""

    table: Name = Field(description="`schema.table`. Its primary key is the id of the documents.")


class OneRelation(Strict):
    """At most one row of another table, which a unique index or key guarantees. Not shown, only used."""

    one: Name = Field(description="The related table.")
    on: On
    where: Filter = None
    relations: Relations = {}


class ManyRelation(Strict):
    """Rows of another table that refer to the outer row. Not shown, only used."""

    many: Name = Field(description="The related table.")
    on: On
    where: Filter = None
    order_by: Expression | Annotated[list[Expression], Field(min_length=1)] = Field(
        default=[], description="The order, as in SQL. The primary key is always appended."
    )
    relations: Relations = {}

    @property
    def order(self) -> list[str]:
        return [self.order_by] if isinstance(self.order_by, str) else self.order_by


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
    "~object": Object,
    "~grouped": Grouped,
    "~one relation": OneRelation,
    "~many relation": ManyRelation,
}
"""The alternatives of a field, by their tag in pydantic's error locations. `~` cannot be confused with a key."""

KINDS = ("one", "many", "object")
OF_RELATIONS = frozenset(("on", "order_by", "limit", "relations"))
"""Keys that only relations have."""


def misspelt_kind(given: Mapping[Any, object]) -> str:
    """Returns the misspelt key that should say which kind of field this is, or an empty text.

    Without this, pydantic would complain about all the other keys.
    """
    if any(kind in given for kind in (*KINDS, "group_by")):
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
    kinds = {"one": "~one", "many": "~many", "object": "~object", "group_by": "~grouped", "value": "~grouped"}
    if isinstance(value, dict) and (misspelt_kind(value) or OF_RELATIONS & value.keys()):
        del kinds["value"]  # here it belongs to a relation
    return next((kind for key, kind in kinds.items() if key in keys), None)


def _relation_tag(value: object) -> str | None:
    kind = _field_tag(value)
    return f"{kind} relation" if kind in ("~one", "~many") else None


Entry = Annotated[
    Annotated[Expression, Tag("~expression")]
    | Annotated[One, Tag("~one")]
    | Annotated[Many, Tag("~many")]
    | Annotated[Object, Tag("~object")]
    | Annotated[Grouped, Tag("~grouped")],
    Discriminator(_field_tag),
]
Relation = Annotated[
    Annotated[OneRelation, Tag("~one relation")] | Annotated[ManyRelation, Tag("~many relation")],
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
