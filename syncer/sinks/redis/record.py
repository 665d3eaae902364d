"""The text of a version key: the version of an id, its state, and the places of its members. No I/O.

    VERSION OWNER                       a document
    VERSION OWNER deleted               a remembered delete
    VERSION OWNER[ deleted]\\n[PLACES]   the same, and the pointer: a JSON list of all places a member may be in

A place is `[TYPE, KEY, MEMBER]`, or `[TYPE, KEY, MEMBER, "stray"]` if it was found later (`strays.py`). The script
`write.lua` writes the text. Version 0 means that the pointer was written, and that neither a document nor a delete was
written yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson


class Listed(NamedTuple):
    """A place in a pointer. kind: `zset` or `set`, as TYPE calls it."""

    kind: str
    key: str
    member: str
    stray: str = ""


class Record(NamedTuple):
    version: int
    is_document: bool
    places: Sequence[Listed]


def parse(text: bytes | None, owner: str) -> Record | None:
    """Returns the record in the text of a version key. None if there is none of this owner (`Keys.owner`).

    A damaged pointer counts as empty, so `verify` reports the document. `write.lua` rejects it.
    """
    head, _, pointer = (text or b"").partition(b"\n")
    digits, _, state = head.partition(b" ")
    if not digits.isdigit() or state not in (owner.encode(), f"{owner} deleted".encode()):
        return None
    return Record(int(digits), state == owner.encode(), _places(pointer) if pointer else [])


def _places(pointer: bytes) -> list[Listed]:
    try:
        places = [Listed(*place) for place in orjson.loads(pointer)]
    except (ValueError, TypeError):
        return []
    texts = (isinstance(text, str) for place in places for text in place)
    return places if all(texts) and all(place.kind in ("zset", "set") for place in places) else []
