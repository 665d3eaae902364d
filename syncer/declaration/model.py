"""A read model as its user declares it: YAML → a tree of frozen values that still know their lines.

The classes below are the form, and the JSON Schema that editors use is made from them (`json_schema`). Only
the shape is judged here; what the names in it mean is for `compile.py`, which has the catalog.

Two things to know when writing one. An aggregate counts every row of a relation that passes its `where`, also
those that `limit` leaves off the list. `where` of a `one` relation hides the row: the object is null.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails

from syncer.declaration import located_yaml
from syncer.declaration.names import Shaped, near, nearest, spellings
from syncer.errors import Fatal
from syncer.events import TableName

_SQL: dict[str, Any] = {"type": ["string", "number", "boolean"]}
Expression = Annotated[
    str,
    Field(min_length=1),
    WithJsonSchema(_SQL | {"description": "A SQL expression over the row of this level."}),
]
Filter = Annotated[
    str | None,
    Field(min_length=1),
    WithJsonSchema(_SQL | {"description": "A SQL condition over the row and its `one` relations."}),
]
Name = Annotated[str, Field(min_length=1)]
On = Annotated[dict[Name, Name], Field(min_length=1, description="Its column: our column.")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Root(Strict):
    table: Name = Field(description="`schema.table`; its primary key is the documents' id.")


class OneRelation(Strict):
    """At most one row of another table, matched by unique columns of it; not shown, only used."""

    one: Name = Field(description="Its table.")
    on: On
    where: Filter = None
    relations: dict[Name, Relation] = {}


class ManyRelation(Strict):
    """Rows of another table that point here; not shown, only used."""

    many: Name = Field(description="Their table.")
    on: On
    where: Filter = None
    order_by: Expression | Annotated[list[Expression], Field(min_length=1)] = Field(
        default=[], description="Like SQL's; the primary key is always added."
    )
    relations: dict[Name, Relation] = {}

    @property
    def order(self) -> list[str]:
        return [self.order_by] if isinstance(self.order_by, str) else self.order_by


class Shown(Strict):
    document: Document | None = Field(default=None, description="Its fields, as an object.")
    value: Expression | None = Field(default=None, description="One value instead of an object.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Shown:
        if (self.document is None) == (self.value is None):
            raise ValueError("say either `document` or `value`")
        return self


class One(OneRelation, Shown):
    """At most one row of another table, as an object (or a value), or null."""


class Many(ManyRelation, Shown):
    """Rows of another table, as a list of objects (or values)."""

    limit: int | None = Field(default=None, gt=0, description="Shortens the list; aggregates ignore it.")


class Object(Strict):
    """A nested object over the same row."""

    object: Document


class Grouped(Strict):
    """An object: each value of `group_by`, as text, and the aggregate over its rows."""

    value: Expression
    group_by: Expression


_SHAPES: dict[str, type[Strict]] = {
    "~one": One,
    "~many": Many,
    "~object": Object,
    "~grouped": Grouped,
    "~one relation": OneRelation,
    "~many relation": ManyRelation,
}


def _entry(value: object) -> str | None:
    """Which kind a document's field is; pydantic asks."""
    if isinstance(value, str):
        return "~expression"
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Strict) else ()
    kinds = {"one": "~one", "many": "~many", "object": "~object", "group_by": "~grouped", "value": "~grouped"}
    if isinstance(value, dict) and (_misspelt(value) or _OF_RELATIONS & value.keys()):
        del kinds["value"]  # it is of a relation
    return next((kind for key, kind in kinds.items() if key in keys), None)


_KINDS = ("one", "many", "object")


_OF_RELATIONS = frozenset(("on", "order_by", "limit", "relations"))


def _misspelt(given: Mapping[Any, object]) -> str:
    """The key that should say what an entry is, if it is there and misspelt. Pydantic would complain about
    all the others."""
    if any(kind in given for kind in (*_KINDS, "group_by")):
        return ""
    known = {"group_by", *(name for shape in _SHAPES.values() for name in shape.model_fields)}
    strange = [str(key) for key in given if key not in known]
    if len(strange) == 1 and not _OF_RELATIONS.isdisjoint(given):
        return strange[0]
    return next((key for key in strange if near(key, _KINDS)), "")


def _relation(value: object) -> str | None:
    kind = _entry(value)
    return f"{kind} relation" if kind in ("~one", "~many") else None


Entry = Annotated[
    Annotated[Expression, Tag("~expression")]
    | Annotated[One, Tag("~one")]
    | Annotated[Many, Tag("~many")]
    | Annotated[Object, Tag("~object")]
    | Annotated[Grouped, Tag("~grouped")],
    Discriminator(_entry),
]
Relation = Annotated[
    Annotated[OneRelation, Tag("~one relation")] | Annotated[ManyRelation, Tag("~many relation")],
    Discriminator(_relation),
]
Document = Annotated[dict[Name, Entry], Field(min_length=1, description="Field: what it holds.")]


class Declaration(Strict):
    """A read model: one document for each row of the root table, kept in step in every sink."""

    name: Annotated[
        str,
        Shaped(r"^[a-z][a-z0-9_-]*$", "a lower-case letter, and then lower-case letters, digits, _ or -"),
    ] = Field(max_length=100)
    root: Root
    where: Filter = None
    relations: dict[Name, Relation] = {}
    document: Document
    sink: dict[str, dict[str, Any]] = Field(min_length=1, description="Kind: its settings.")


@dataclass(frozen=True)
class Model:
    """A declaration, and where it was written."""

    declaration: Declaration
    file: str
    lines: Mapping[located_yaml.Path, int]

    @property
    def name(self) -> str:
        return self.declaration.name

    def at(self, path: located_yaml.Path) -> str:
        """`file:line` of a place in the declaration (of the nearest place around it that has a line)."""
        return at(self.file, self.lines, path)


def place_of(model: Model, field: tuple[str, ...]) -> located_yaml.Path:
    """Where a field of the document is declared. field: its names from the outside in."""
    entries: Mapping[str, Any] = model.declaration.document
    part: str = "document"
    path: located_yaml.Path = ()
    for name in field:
        path = (*path, part, name)
        part = "object" if isinstance(entries.get(name), Object) else "document"
        entries = getattr(entries.get(name), part, None) or {}
    return path


def at(file: str, lines: Mapping[located_yaml.Path, int], path: located_yaml.Path) -> str:
    while path not in lines:
        path = path[:-1]
    return f"{file}:{lines[path]}"


class Mistakes(Fatal):
    """Several at once. `each` has them one by one."""

    def __init__(self, each: list[Fatal]) -> None:
        super().__init__(f"{len(each)} mistakes\n" + "\n".join(map(str, each)))
        self.each = each


def together(errors: Iterable[Fatal]) -> Fatal:
    """One error that tells several, each once, in the order of the lines."""
    each: dict[str, Fatal] = {}
    for error in errors:
        each |= {str(one): one for one in (error.each if isinstance(error, Mistakes) else [error])}
    found = sorted(each.values(), key=_line)
    return found[0] if len(found) == 1 else Mistakes(found)


def _line(error: Fatal) -> tuple[str, int]:
    file, _, line = error.where.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (error.where, 0)


def load(path: str | Path) -> Model:
    """The read model of one file. Raises Fatal with every mistake of its shape: line, nearest right key."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Fatal("cannot read the read model", where=str(path), why=str(error)) from error
    return parse(text, str(path))


def parse(text: str, file: str) -> Model:
    """The read model of a text; `file` is what errors call it."""
    plain, lines = located_yaml.read(text, file, typed_under={"sink"})
    if not isinstance(plain, dict):
        raise Fatal("a read model is a mapping", where=file, hint="begin with `name: …`")
    try:
        return Model(Declaration.model_validate(plain), file, lines)
    except ValidationError as error:
        found = _without_echoes(error.errors())
        raise together([_explain(e, file, lines) for e in found]) from error


def _without_echoes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the keys that are missing because another one is misspelt: that is one mistake, not two."""
    strange = [e["loc"] for e in errors if e["type"] == "extra_forbidden"]

    def misspelt(loc: tuple[int | str, ...]) -> bool:
        return any(other[:-1] == loc[:-1] and near(str(other[-1]), [str(loc[-1])]) for other in strange)

    return [e for e in errors if e["type"] != "missing" or not misspelt(e["loc"])]


def load_all(folder: str | Path) -> list[Model]:
    """Every `*.yaml` and `*.yml` of a folder, by name. Raises Fatal with the mistakes of all of them."""
    models, errors = load_all_valid(folder)
    if errors:
        raise together(errors)
    return models


def load_all_valid(folder: str | Path, *, why: str = "") -> tuple[list[Model], list[Fatal]]:
    """Those that can be read, by name, and what is wrong with the others.

    why: says why it is this folder. Raises Fatal with it if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise Fatal(
            "there is no folder of read models",
            where=str(folder.absolute()),
            why=why,
            hint="set models in the configuration, or --models FOLDER",
        )
    errors: list[Fatal] = []
    models: dict[str, Model] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml")):
        try:
            found = load(path)
        except Fatal as error:
            errors.append(error)
            continue
        if other := models.get(found.name):
            why = f"so is the one in {other.file}"
            errors.append(Fatal(f"the read model is named {found.name!r}", where=found.at(("name",)), why=why))
        models.setdefault(found.name, found)
    return sorted(models.values(), key=lambda m: m.name), errors


_ANY_DEPTH = frozenset("recursive recurse depth max_depth levels tree".split())
"""What a person may write who looks for trees of any depth."""
_LEVELS = (
    "trees of any depth are not supported yet: declare as many levels as you show, each in the one above, "
    "such as parent: {one: t, on: {id: parent_id}, document: {name: name, parent: {one: t, …}}}"
)
_ONE_ROOT = (
    "write a read model for each root table, with an index of its own; a search can name several: "
    "GET /orders,invoices/_search"
)


def _explain(error: ErrorDetails, file: str, lines: Mapping[located_yaml.Path, int]) -> Fatal:
    """One of pydantic's errors in our words."""
    place = tuple(p for p in error["loc"] if not (isinstance(p, str) and (p.startswith("~") or p == "[key]")))
    kinds = [_SHAPES[p] for p in error["loc"] if isinstance(p, str) and p in _SHAPES]
    shape: type[Strict] = kinds[-1] if kinds else Root if place[:1] == ("root",) else Declaration
    key = str(place[-1]) if place else ""
    hint = ""
    match error["type"]:
        case "extra_forbidden":
            what, hint = f"unknown key {key!r}", nearest(key, shape.model_fields)
            if key in ("one", "many"):
                hint = "a relation has either `one` or `many`"
            if key.lower() in _ANY_DEPTH:
                hint = _LEVELS
        case "missing":
            what = f"{key!r} is missing"
        case "union_tag_not_found" | "union_tag_invalid" | "callable_discriminator":
            what = f"cannot tell what {key!r} is"
            given = error["input"] if isinstance(error["input"], dict) else {}
            hint = "an expression, or a mapping with `one`, `many`, `object`, or `value` and `group_by`"
            if "relations" in place:
                hint = "a relation has `one` or `many`"
            if wrong := _misspelt(given):
                place = (*place, wrong)
                right = _KINDS[:2] if _OF_RELATIONS & given.keys() else _KINDS
                what, hint = f"unknown key {wrong!r}", nearest(wrong, right)
        case "value_error":
            what = f"{key!r}: {error['msg'].removeprefix('Value error, ')}"
        case _:
            what = f"{key!r}: {error['msg'][:1].lower()}{error['msg'][1:]}"
    if place == ("root",) and isinstance(error["input"], list):
        what, hint = "a read model has one root", _ONE_ROOT
    return Fatal(what, where=at(file, lines, place), hint=hint)


def tables(model: Model) -> set[TableName]:
    """Every table whose catalog `compile` needs, in each spelling that could be meant."""
    return {table for spelled in spelled_tables(model) for table in spelled}


def spelled_tables(model: Model) -> list[tuple[TableName, ...]]:
    """Each table in the spellings that could be meant. The first that exists is."""
    found = []
    for text, _ in named_tables(model):
        with suppress(ValueError):  # `bind` tells it with the others
            found.append(tuple(spellings(text)))
    return found


def meant(spelled: Iterable[Sequence[TableName]], existing: Container[TableName]) -> set[TableName]:
    """Those of the existing tables that are meant. Orders and orders may both exist."""
    first = (next((table for table in names if table in existing), None) for names in spelled)
    return {table for table in first if table is not None}


def named_tables(model: Model) -> Iterator[tuple[str, located_yaml.Path]]:
    """The tables as the declaration calls them, and where; the root first."""
    yield model.declaration.root.table, ("root", "table")

    def walk(entries: Mapping[str, object], path: located_yaml.Path) -> Iterator[tuple[str, located_yaml.Path]]:
        for name, entry in entries.items():
            here = (*path, name)
            if isinstance(entry, OneRelation):
                yield entry.one, (*here, "one")
            elif isinstance(entry, ManyRelation):
                yield entry.many, (*here, "many")
            elif isinstance(entry, Object):
                yield from walk(entry.object, (*here, "object"))
            if isinstance(entry, OneRelation | ManyRelation):
                yield from walk(entry.relations, (*here, "relations"))
            if isinstance(entry, Shown):
                yield from walk(entry.document or {}, (*here, "document"))

    yield from walk(model.declaration.relations, ("relations",))
    yield from walk(model.declaration.document, ("document",))


def json_schema() -> str:
    """The form as JSON Schema, for editors; `config/readmodel.schema.json` is this text."""
    schema = Declaration.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


for _shape in _SHAPES.values():
    _shape.model_rebuild()
Declaration.model_rebuild()
