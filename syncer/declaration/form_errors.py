"""Translates pydantic's errors about a read model into messages for the person who wrote the YAML."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from syncer.declaration.form import KINDS, OF_RELATIONS, PARTS, Declaration, Root, Strict, misspelt_kind
from syncer.declaration.located_yaml import Path
from syncer.declaration.names import near, nearest
from syncer.errors import Fatal

_ANY_DEPTH = frozenset("recursive recurse depth max_depth levels tree".split())
"""Keys that a user may try in order to declare a tree of any depth."""
_LEVELS = (
    "trees of any depth are not supported yet: declare as many levels as you show, each inside the one above, "
    "such as parent: {one: t, on: {id: parent_id}, document: {name: name, parent: {one: t, …}}}"
)
_ONE_ROOT = (
    "write a read model for each root table, with an index of its own; a search can name several: "
    "GET /orders,invoices/_search"
)


def explain(error: ValidationError, file: str, lines: Mapping[Path, int]) -> list[Fatal]:
    """Returns an error for each mistake in the form, with its line and the nearest correct key."""
    return [_explain(details, file, lines) for details in _without_consequences(error.errors())]


def at(file: str, lines: Mapping[Path, int], path: Path) -> str:
    """Returns `file:line` of a path, or of the nearest place around it that has a line."""
    while path not in lines:
        path = path[:-1]
    return f"{file}:{lines[path]}"


def _without_consequences(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Removes missing keys that are only missing because another key is misspelt. That is one mistake, not two."""
    unknown = [e["loc"] for e in errors if e["type"] == "extra_forbidden"]

    def misspelt(loc: tuple[int | str, ...]) -> bool:
        return any(other[:-1] == loc[:-1] and near(str(other[-1]), [str(loc[-1])]) for other in unknown)

    return [e for e in errors if e["type"] != "missing" or not misspelt(e["loc"])]


def _explain(error: ErrorDetails, file: str, lines: Mapping[Path, int]) -> Fatal:
    path = tuple(p for p in error["loc"] if not (isinstance(p, str) and (p.startswith("~") or p == "[key]")))
    parts = [PARTS[p] for p in error["loc"] if isinstance(p, str) and p in PARTS]
    part: type[Strict] = parts[-1] if parts else Root if path[:1] == ("root",) else Declaration
    key = str(path[-1]) if path else ""
    hint = ""
    match error["type"]:
        case "extra_forbidden":
            what, hint = f"unknown key {key!r}", nearest(key, part.model_fields)
            if key in ("one", "many"):
                hint = "a relation has either `one` or `many`"
            if key.lower() in _ANY_DEPTH:
                hint = _LEVELS
        case "missing":
            what = f"the key {key!r} is missing"
        case "union_tag_not_found" | "union_tag_invalid" | "callable_discriminator":
            what = f"{key!r} is neither an expression nor a known mapping"
            given = error["input"] if isinstance(error["input"], dict) else {}
            hint = "write an expression, or a mapping with `one`, `many`, `object`, or `value` and `group_by`"
            if "relations" in path:
                what, hint = f"{key!r} is not a relation", "write a mapping with `one` or `many`"
            if wrong := misspelt_kind(given):
                path = (*path, wrong)
                correct = KINDS[:2] if OF_RELATIONS & given.keys() else KINDS
                what, hint = f"unknown key {wrong!r}", nearest(wrong, correct)
        case "value_error":
            what = f"{key!r}: {error['msg'].removeprefix('Value error, ')}"
        case _:
            what = f"{key!r}: {error['msg'][:1].lower()}{error['msg'][1:]}"
    if path == ("root",) and isinstance(error["input"], list):
        what, hint = "a read model has exactly one root table", _ONE_ROOT
    return Fatal(what, where=at(file, lines, path), hint=hint)
