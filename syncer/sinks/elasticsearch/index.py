"""The settings of a generation's index, and the record of the declaration that it was built from. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncer.declaration.compile import Compiled
from syncer.sinks.elasticsearch import mapping
from syncer.sinks.elasticsearch.settings import Settings
from syncer.sinks.problem import Problem, locate
from syncer.sinks.target import Target

Json = dict[str, Any]

OTHER_NAME = "choose another index name; a search can name several: GET /one,another/_search"
TAKEN_HINT = "choose another index name, or remove the index or alias that has this one"
_RESERVED = {
    "index.gc_deletes": "a delete has to be remembered for longer than any write can take",
    "index.translog.durability": "an acknowledged write has to be on disk",
    "index.disable_sequence_numbers": "sequence numbers show what was written after deletes were forgotten",
}


def body(declared: Settings, model: Compiled, target: Target, aliases: Json) -> Json:
    """Returns the body of the request that creates the index."""
    return {
        "aliases": aliases,
        "settings": settings(declared.settings),
        "mappings": mapping.mapping(declared.mapping, model.fields) | record(target),
    }


def record(target: Target) -> Json:
    """Returns the part of the mapping that records what the index is built from."""
    return {"_meta": {"syncer": target.meta()}}


def meta(info: Json) -> Json:
    """Returns the record of an index, or an empty one if the syncer did not create the index.

    info: the index as `GET /INDEX` returns it."""
    found: Json = info["mappings"].get("_meta", {}).get("syncer", {})
    return found


def taken(name: str, index: str) -> str:
    """Returns the message for a name that is the alias of an index, or the index itself, of somebody else."""
    what = "an index" if index == name else f"an alias of {index}"
    return f"the name {name} is taken by {what}, which does not belong to this read model"


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the index: the declared ones and those that the syncer needs."""
    return _flat(given) | {"index.gc_deletes": "1h"}


def setting_problems(given: Mapping[str, Any]) -> list[Problem]:
    """Returns one problem for each declared setting that the syncer has to control."""
    found = _flat(given)
    return [
        Problem(f"settings.{name}: cannot be set; {why}", block=locate({"settings": given}, [name]))
        for name, why in _RESERVED.items()
        if name in found
    ]


def _flat(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns settings in their dotted form with `index.` in front, so that each has one spelling."""
    out: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            full = prefix + name
            out[full if full.startswith("index.") else f"index.{full}"] = value
    return out
