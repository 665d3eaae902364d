"""Generates the lists in docs/read-models.md: keys, aggregates, functions, operators and types.

`python -m syncer.declaration.reference` updates the file. The text between the markers `<!-- generated: NAME -->` and
`<!-- end -->` is replaced, and everything else is written by hand.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from syncer.declaration import extensions, functions
from syncer.declaration.form import Declaration, Grouped, Many, Object, One, Root, Strict, Up
from syncer.declaration.sql_types import CASTABLE

PAGE = Path("docs/read-models.md")
_BLOCK = re.compile(r"(<!-- generated: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PARTS: dict[str, type[Strict]] = {
    "read model": Declaration,
    "root": Root,
    "one": One,
    "many": Many,
    "up": Up,
    "object": Object,
    "grouped": Grouped,
}
_RESULTS = {
    "=1": "The type of the first argument",
    "?": "Depends on the arguments",
    "same": "A geometry of the same kind",
    "point": "A point",
    "geometry": "A geometry",
    "new point": "A point; an argument may give its SRID",
    "new geometry": "A geometry; an argument may give its SRID",
}


def updated(page: str) -> str:
    """Returns the page with all generated blocks replaced. Raises KeyError for a block of an unknown name."""
    texts = blocks()
    return _BLOCK.sub(lambda match: f"{match[1]}\n{texts[match[2]]}\n\n{match[3]}", page)


def names(page: str) -> set[str]:
    """Returns the names of the generated blocks in a page."""
    return {match[2] for match in _BLOCK.finditer(page)}


def blocks() -> dict[str, str]:
    """Returns the text of each generated block, by its name."""
    return {
        **{name: _keys(part) for name, part in _PARTS.items()},
        "aggregates": _table(("aggregate", "result"), ((f"`{n}`", text) for n, text in functions.AGGREGATES.items())),
        "functions": _by_result(functions.FUNCTIONS),
        "keywords": _code(sorted(functions.KEYWORDS)),
        "operators": _operators(),
        "types": _wrapped(_code(CASTABLE)),
        "postgis": _by_result(extensions.FUNCTIONS),
    }


def _keys(part: type[Strict]) -> str:
    rows = (
        (f"`{name}`", "yes" if field.is_required() else "", field.description or "")
        for name, field in part.model_fields.items()
    )
    return _table(("key", "required", "meaning"), rows)


def _by_result(results: Mapping[str, str]) -> str:
    groups: dict[str, list[str]] = {}
    for name, result in results.items():
        groups.setdefault(result, []).append(name)
    items = (f"{_RESULTS.get(result, f'`{result}`')}: {_code(sorted(found))}" for result, found in groups.items())
    return "\n".join(_wrapped(f"* {item}") for item in items)


def _operators() -> str:
    groups: dict[int, list[str]] = {}
    for operator, precedence, _ in functions.BINARY.values():
        groups.setdefault(precedence, []).append(operator)
    items = (_code(dict.fromkeys(groups[precedence])) for precedence in sorted(groups, reverse=True))
    return "\n".join(_wrapped(f"* {item}") for item in items)


def _code(words: Iterable[str]) -> str:
    return " ".join(f"`{word}`" for word in words)


def _wrapped(text: str) -> str:
    indent = "  " if text.startswith("* ") else ""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def main() -> None:
    """Updates the generated blocks of the page in the current folder."""
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
