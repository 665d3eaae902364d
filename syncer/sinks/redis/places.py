"""The places of a document: the members that it has in sorted sets and sets. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from syncer.sinks.redis.indexes import EXACT_SCORES, MAX_SCORE, Index
from syncer.sinks.redis.patterns import ID
from syncer.sinks.redis.record import Listed

FIELD = "(indexes)"
"""The name under which `read` shows the places, next to the fields of the document."""
_MEMBER, _STRAY, _UNDECLARED = "member", "unexpected member", "of another declaration"
_MAX_PLACES = 1000


class _Number(str):
    """The text of a JSON number, to distinguish it from a JSON string."""


class Place(NamedTuple):
    """kind: TYPE of the key. score: for ZADD; empty in a set."""

    kind: str
    key: str
    member: str
    score: str


def places_of(indexes: Sequence[Index], id: str, body: bytes) -> list[Place]:
    """Returns where a document has members. id: the text `{id}` gives the places of any id, for comparisons.

    Raises ValueError for values that no score or key can have, and for too many places.
    """
    document = json.loads(body, parse_float=_Number, parse_int=_Number)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    found: dict[str, Place] = {}
    for index in indexes:
        score = _score(index.score, document) if index.score else ""
        if score is None:
            continue
        for key in _keys(index, id, document):
            place = Place(index.kind, key, index.member.fill({ID: id}), score)
            if found.setdefault(key, place) != place:
                raise ValueError(f"two indexes use the key {key}")
            if len(found) > _MAX_PLACES:
                raise ValueError(f"the document has more than {_MAX_PLACES} members in sets and sorted sets")
    return list(found.values())


def _keys(index: Index, id: str, document: Mapping[str, Any]) -> Iterator[str]:
    """Yields the keys of one index. One of the fields may be a list, and then there is a key for each value."""
    values = {ID: [id]} | {name: [*_values(name, document)] for name in index.key.names if name != ID}
    lists = [name for name, texts in values.items() if len(texts) > 1]
    if len(lists) > 1:
        raise ValueError(f"{' and '.join(lists)} are lists, and a key can contain only one")
    if all(values.values()):
        first = {name: texts[0] for name, texts in values.items()}
        for text in values[lists[0]] if lists else [id]:
            yield index.key.fill(first | {lists[0]: text} if lists else first)


def _values(name: str, document: Any) -> Iterator[str]:
    """Yields the values of a field with this dotted name, without nulls. Raises ValueError for an object."""
    path: list[str] = name.split(".") if name else []
    if isinstance(document, list):
        for one in document:
            yield from _values(name, one)
    elif path:
        if isinstance(document, dict):
            yield from _values(".".join(path[1:]), document.get(path[0]))
    elif isinstance(document, bool):
        yield "true" if document else "false"
    elif isinstance(document, str):
        yield document
    elif document is not None:
        raise ValueError("an object cannot be a part of a key")


def _score(name: str, document: Mapping[str, Any]) -> str | None:
    values = [*_values(name, document)]
    if not values:
        return None
    if len(values) > 1 or not isinstance(values[0], _Number):
        raise ValueError(f"the score {name} is {', '.join(values)!r}, which is not a finite number")
    number = Decimal(values[0])
    if abs(number) > MAX_SCORE:
        raise ValueError(f"the score {name} is {values[0]}; {EXACT_SCORES}")
    return repr(float(number))


Shown = dict[str, object]
"""Key of a place → the score, `member` in a set, None if there is no member, or what is wrong with it."""


def wanted(places: Iterable[Place]) -> Shown:
    """Returns the places that a document should have."""
    return {place.key: float(place.score) if place.score else _MEMBER for place in places}


def shown_places(indexes: Sequence[Index], id: str, scores: Iterable[tuple[Listed, float | bool | None]]) -> Shown:
    """Returns the places in a pointer as `wanted` shows them: with `{id}` instead of the id.

    scores: each place with the score of its member, True in a set, or None or False if there is no such member.
    """
    out: Shown = {}
    for place, score in scores:
        value: object = _MEMBER if score is True else None if score is False else score
        for index in indexes:
            fits = place.kind == index.kind and place.member == index.member.fill({ID: id})
            if fits and (name := index.key.with_placeholder(place.key, id)) is not None:
                out[name] = _STRAY if place.stray else value
                break
        else:
            out[f"{place.key} {place.member}"] = _STRAY if place.stray else _UNDECLARED
    return out


def intact(shown: Shown) -> bool:
    """Returns whether all places have a member, and are those of the declaration. Does not compare scores."""
    return all(value is not None and value not in (_STRAY, _UNDECLARED) for value in shown.values())


def with_places(document: bytes | None, shown: Shown) -> bytes | None:
    """Returns a document together with its places, as JSON text. None if there is neither."""
    if not shown:
        return document
    members = orjson.dumps(FIELD) + b":" + orjson.dumps(shown, option=orjson.OPT_SORT_KEYS) + b"}"
    if document is None:
        return b"{" + members
    inner = document.rstrip()[:-1].rstrip()
    return inner + (b"" if inner.endswith(b"{") else b",") + members
