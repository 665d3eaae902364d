"""Mistakes in a sink's block of a read model, their places in the YAML, and limits of fields. Used by all sinks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """One mistake. Its place is `block`; if that is empty, `field`; if both are empty, the sink's whole block."""

    what: str
    why: str = ""
    hint: str = ""
    block: Path = ()
    """Keys below the sink's block, such as `("mapping", "status", "type")`."""
    field: tuple[str, ...] = ()
    """Names of a field of the document, outermost first."""
    certain: bool = True
    """False if the server could not be asked."""


class Limit(NamedTuple):
    """The numbers that a sink accepts in a field. It rejects a document with another number."""

    field: str
    """The dotted name of the field."""
    highest: int
    """The greatest distance from zero."""
    why: str
    """Why the sink has this limit, as a clause."""
    block: Path
    """As in `Problem`."""


def locate(block: Mapping[str, Any], words: Collection[str]) -> Path:
    """Returns the place in the block that a server's message is about. Empty if there is none.

    It is the path to the first word that is a value in the block. If no word is a value, it is the path to the
    first word that ends a key.
    """
    leaves = list(_leaves(block, ()))
    for word in words:
        for path, value in leaves:
            if value == word:
                return path
    for word in words:
        for path, _ in leaves:
            for length in range(1, len(path) + 1):
                dotted = "." + ".".join(map(str, path[:length]))
                if word and dotted.endswith("." + word.removeprefix("index.")):
                    return path[:length]
    return ()


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    elif isinstance(value, list) and value:
        for place, below in enumerate(value):
            yield from _leaves(below, (*path, place))
    else:
        yield path, value
