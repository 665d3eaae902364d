"""Which expression PostgreSQL refuses: read models that have only one of their expressions, or all but one.

PostgreSQL judges the whole statement and tells the first mistake, by its position in SQL that nobody wrote.
`NEUTRAL` takes the place of what is left out; a filter or an order is left out without a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from syncer.declaration.located_yaml import Path
from syncer.declaration.model import Declaration, Model

NEUTRAL = "1"
_FILTERS = ("where", "order_by")


def places(model: Model) -> list[tuple[Path, str]]:
    """Every expression of a read model: where it is, and its text; those of a group are one."""
    return list(_walk(_plain(model), ()))


def alone(model: Model, place: Path) -> Model:
    """The read model with this expression and no other."""
    return _with(model, lambda path: path == place)


def bare(model: Model) -> Model:
    """The read model without any: its tables and links."""
    return _with(model, lambda path: False)


def without(model: Model, place: Path) -> Model:
    """The read model with every expression but this one."""
    return _with(model, lambda path: path != place)


def _plain(model: Model) -> dict[str, Any]:
    return model.declaration.model_dump(exclude_defaults=True)


def _with(model: Model, kept: Callable[[Path], bool]) -> Model:
    return replace(model, declaration=Declaration.model_validate(_keep(_plain(model), (), kept)))


def _walk(entry: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    for name in (*_FILTERS, "value"):
        if name in entry:
            given = entry[name]
            yield (*path, name), given if isinstance(given, str) else ", ".join(given)
    for part in ("relations", "document", "object"):
        for name, below in entry.get(part, {}).items():
            here = (*path, part, name)
            if isinstance(below, str):
                yield here, below
            elif "group_by" in below:
                yield here, f"{below['value']} by {below['group_by']}"
            else:
                yield from _walk(below, here)


def _keep(entry: Mapping[str, Any], path: Path, kept: Callable[[Path], bool]) -> dict[str, Any]:
    result = {name: value for name, value in entry.items() if name not in _FILTERS or kept((*path, name))}
    if "value" in result and not kept((*path, "value")):
        result["value"] = NEUTRAL
    for part in ("relations", "document", "object"):
        if part in entry:
            result[part] = {name: _kept(below, (*path, part, name), kept) for name, below in entry[part].items()}
    return result


def _kept(entry: Any, path: Path, kept: Callable[[Path], bool]) -> Any:
    if isinstance(entry, str) or "group_by" in entry:
        return entry if kept(path) else NEUTRAL
    return _keep(entry, path, kept)
