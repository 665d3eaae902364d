"""Reduces a read model to one of its expressions, or to all but one, to find out which of them PostgreSQL rejects.

PostgreSQL validates the whole statement and reports the first mistake. It reports a position in generated SQL, which
means nothing to the author of the read model. `postgres/validate_sql.py` therefore tries reduced read models.
`NEUTRAL` replaces an omitted expression. A filter or an order is simply removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from syncer.declaration.fixed_columns import only_constants
from syncer.declaration.form import Declaration
from syncer.declaration.located_yaml import Path
from syncer.declaration.model import Model

NEUTRAL = "1"
_FILTERS = ("where", "when", "order_by")
_GROUPS = "group_by"


def group_alone(model: Model, name: str) -> Model:
    """Returns a read model with this one of the group expressions, and without any other expression."""
    root = model.declaration.root
    only = root.model_copy(update={"group": {name: (root.group or {})[name]}})
    plain = {**_plain(bare(model)), "root": only.model_dump(exclude_defaults=True), "document": {name: name}}
    return replace(model, declaration=Declaration.model_validate(plain))


def places(model: Model) -> list[tuple[Path, str]]:
    """Returns the path and the text of every expression in a read model. The two of a group count as one."""
    return list(_walk(_plain(model), ()))


def alone(model: Model, place: Path) -> Model:
    """Returns the read model with only this expression."""
    return _with(model, lambda path: path == place)


def bare(model: Model) -> Model:
    """Returns the read model without expressions: only its tables and links."""
    return _with(model, lambda path: False)


def without(model: Model, place: Path) -> Model:
    """Returns the read model with every expression except this one."""
    return _with(model, lambda path: path != place)


def _plain(model: Model) -> dict[str, Any]:
    return model.declaration.model_dump(exclude_defaults=True)


def _with(model: Model, kept: Callable[[Path], bool]) -> Model:
    return replace(model, declaration=Declaration.model_validate(_keep(_plain(model), (), kept)))


def _walk(entry: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    for name in (_GROUPS, *_FILTERS, "value"):
        if name in entry:
            given = entry[name]
            yield (*path, name), given if isinstance(given, str) else ", ".join(given)
    for part in ("relations", "document", "object"):
        for name, below in entry.get(part, {}).items():
            here = (*path, part, name)
            if isinstance(below, str):
                yield here, below
            elif _is_object(below):
                yield here, f"{below['value']} by {below['group_by']}"
            else:
                yield from _walk(below, here)


def _keep(entry: Mapping[str, Any], path: Path, kept: Callable[[Path], bool]) -> dict[str, Any]:
    result = {name: value for name, value in entry.items() if name not in _FILTERS or kept((*path, name))}
    if "one" in entry and (constants := only_constants(entry.get("where", ""))):
        result.setdefault("where", constants)  # they may be a part of the unique key
    if not any(kept(place) for place, _ in _walk(entry, path)):
        result.pop(_GROUPS, None)  # the other expressions of a list of groups need it
    if "value" in result and not kept((*path, "value")):
        result["value"] = NEUTRAL
    for part in ("relations", "document", "object"):
        if part in entry:
            result[part] = {name: _kept(below, (*path, part, name), kept) for name, below in entry[part].items()}
    return result


def _kept(entry: Any, path: Path, kept: Callable[[Path], bool]) -> Any:
    if isinstance(entry, str) or _is_object(entry):
        return entry if kept(path) else NEUTRAL
    return _keep(entry, path, kept)


def _is_object(entry: Mapping[str, Any]) -> bool:
    """Returns whether this is an object by group, whose `value` and `group_by` are one expression."""
    return _GROUPS in entry and "many" not in entry
