"""What is wrong with a sink's block in a declaration, and where in the YAML. For all sinks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """One mistake. Its place is `block`; if that is empty `field`; if both are, the sink's block."""

    what: str
    why: str = ""
    hint: str = ""
    block: Path = ()
    """Keys below the block of the sink: `("mapping", "status", "type")`."""
    field: tuple[str, ...] = ()
    """Names of a field of the document, from the outside in."""
    certain: bool = True
    """False: the server could not be asked."""


def locate(block: Mapping[str, Any], words: Collection[str]) -> Path:
    """Finds the place that a server's message means. Returns the path to the first of these words that is a
    value in the block, or else the end of a key; empty if there is none."""
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
