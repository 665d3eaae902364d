"""Which changes a client wants: by key, and by equality on fields of the document. Pure.

`key=17` repeated means any of these keys. `where=status:paid` repeated means all of these conditions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from syncer.serving.push.change import Change, Op

MAX_KEYS, MAX_CONDITIONS = 1000, 20


@dataclass(frozen=True, slots=True)
class Condition:
    """A field that equals a value. A list on the way matches if one of its elements does.

    path: the names of nested objects and of the field. value: the text of the request. It equals a string with this
    text, a number with this value, and the words true, false and null.
    """

    path: tuple[str, ...]
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Returns the condition of `field.nested:value`. Raises ValueError if it has no field or no colon."""
        field, colon, value = text.partition(":")
        path = tuple(field.split("."))
        if not colon or not all(path):
            raise ValueError(f"{text!r} is not field:value, such as status:paid or customer.country:DE")
        return cls(path, value)

    def matches(self, document: Any) -> bool:
        return any(_equals(value, self.value) for value in _values(document, self.path))


@dataclass(frozen=True, slots=True)
class Filter:
    """keys: any of them; empty for all. where: all of the conditions."""

    keys: frozenset[str] = frozenset()
    where: tuple[Condition, ...] = ()

    @classmethod
    def parse(cls, keys: Sequence[str], where: Sequence[str]) -> Filter:
        """Returns the filter of a request. Raises ValueError with the reason."""
        if len(keys) > MAX_KEYS or len(where) > MAX_CONDITIONS:
            raise ValueError(f"more than {MAX_KEYS} keys, or more than {MAX_CONDITIONS} conditions")
        if "" in keys:
            raise ValueError("a key is empty")
        return cls(frozenset(keys), tuple(Condition.parse(text) for text in where))

    def op(self, change: Change) -> Op | None:
        """Returns what the client is to do with a change; None if the key is not wanted.

        The server does not know the documents that a client has. So each changed document that does not match is
        sent as `left`, without its content.
        """
        if self.keys and change.key not in self.keys:
            return None
        if change.body is None:
            return "delete"
        if not self.where:  # the most frequent case, for each client and change
            return "upsert"
        return "upsert" if all(one.matches(change.document) for one in self.where) else "left"


def _values(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yields the values of a field. A missing field has none."""
    if isinstance(value, list):
        for element in value:
            yield from _values(element, path)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _values(value[path[0]], path[1:])


def _equals(value: Any, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value] == text
    if isinstance(value, int):
        return str(value) == text or _number(text) == value
    return isinstance(value, float) and _number(text) == value


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
