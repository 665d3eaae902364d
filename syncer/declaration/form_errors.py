"""Translates pydantic's errors about a read model into messages for the person who wrote the YAML."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from syncer.declaration.form import KINDS, OF_RELATIONS, PARTS, Declaration, Root, Strict, misspelt_kind
from syncer.declaration.located_yaml import Path
from syncer.declaration.names import near, nearest
from syncer.declaration.wrong_values import requirement
from syncer.errors import Fatal

_ANY_DEPTH = frozenset("recursive recurse depth max_depth levels tree ancestors".split())
"""Keys that a user may try in order to declare a tree of any depth."""
_UP = (
    "write `up` for the ancestors of a row in a tree, such as "
    "ancestors: {up: t, on: {id: parent_id}, limit: 20, document: {id: id, name: name}}"
)
_TEXT, _LIST = "constrained-str", "list[constrained-str]"
"""How pydantic names the two alternatives of `order_by` and `group_by` in the path of an error."""
_EXAMPLES = {
    "root": "root: {table: public.orders}",
    "group": "group: {name: expression}",
    "on": "on: {column: column}",
    "step": "step: {id: parent_id}",
    "document": "document: {field: expression}",
    "object": "object: {field: expression}",
    "relations": "relations: {name: {one: table, on: {column: column}}}",
    "partials": "partials: {by: id, size: 5000}",
    "sink": "sink: {redis: {key: 'order:{id}'}}",
}
"""Mappings, by their key."""
_DOWN = frozenset("down descendants subtree".split())
_LEVELS = (
    "the descendants of a row cannot be listed to any depth: declare the levels that you show, each inside the one "
    "above, such as children: {many: t, on: {parent_id: id}, document: {name: name, children: {many: t, …}}}"
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

    def other_alternative(error: ErrorDetails) -> bool:
        """Whether this is about the alternative that was not meant: a text where a list is given, or a list."""
        last = error["loc"][-1] if error["loc"] else ""
        if last == _LIST:
            return error["type"] == "list_type"
        return last == _TEXT and isinstance(error["input"], list)

    found = [e for e in errors if e["type"] != "missing" or not misspelt(e["loc"])]
    return [e for e in found if not other_alternative(e)]


def _explain(error: ErrorDetails, file: str, lines: Mapping[Path, int]) -> Fatal:
    no_keys = ("[key]", _TEXT, _LIST)
    path = tuple(p for p in error["loc"] if not (isinstance(p, str) and (p.startswith("~") or p in no_keys)))
    parts = [PARTS[p] for p in error["loc"] if isinstance(p, str) and p in PARTS]
    part: type[Strict] = parts[-1] if parts else Root if path[:1] == ("root",) else Declaration
    name = next((p for p in reversed(path) if isinstance(p, str)), "")
    key = f"{name}.{path[-1]}" if path and isinstance(path[-1], int) else name  # of an item in a list
    hint = ""
    match error["type"]:
        case "extra_forbidden":
            what, hint = f"unknown key {key!r}", nearest(key, part.model_fields)
            if key in KINDS[:3]:
                hint = "a relation has either `one`, `many` or `up`"
            hint = _of_trees(key) or hint
        case "missing":
            what = f"the key {key!r} is missing"
        case "union_tag_not_found" | "union_tag_invalid" | "callable_discriminator":
            what = f"{key!r} is neither an expression nor a known mapping"
            given = error["input"] if isinstance(error["input"], dict) else {}
            hint = "write an expression, or a mapping with `one`, `many`, `up`, `object`, or `value` and `group_by`"
            if "relations" in path:
                what, hint = f"{key!r} is not a relation", "write a mapping with `one`, `many` or `up`"
            if wrong := next((name for name in map(str, given) if name.lower() in _DOWN), ""):
                path, what, hint = (*path, wrong), f"unknown key {wrong!r}", _LEVELS
            elif wrong := misspelt_kind(given):
                path = (*path, wrong)
                correct = KINDS[:3] if OF_RELATIONS & given.keys() else KINDS
                what, hint = f"unknown key {wrong!r}", nearest(wrong, correct)
        case _:
            what, hint = f"{key!r}: {requirement(error)}", _what_to_write(error["type"], name, part)
    if error["loc"][-1:] == (_TEXT,) and error["type"] == "string_type":
        what = f"{key!r}: must be an expression, or a list of expressions"
    if path == ("root",) and isinstance(error["input"], list):
        what, hint = "a read model has exactly one root table", _ONE_ROOT
    return Fatal(what, where=at(file, lines, path), hint=hint)


def _what_to_write(kind: str, key: str, part: type[Strict]) -> str:
    """Returns an example or the meaning of a key whose value has the wrong form. Empty if the error says enough."""
    if kind in ("dict_type", "model_type", "model_attributes_type") and key in _EXAMPLES:
        return f"write `{_EXAMPLES[key]}`"
    if kind in ("value_error", "string_too_short") or key not in part.model_fields:
        return ""
    return part.model_fields[key].description or ""


def _of_trees(key: str) -> str:
    """Returns how to declare a tree, if somebody may write this key for one."""
    if key.lower() in _DOWN:
        return _LEVELS
    return _UP if key.lower() in _ANY_DEPTH else ""
