"""Names as SQL reads them: words that may be quoted, found in a catalog, written back; the nearest right one.

An unquoted word means the name in its exact case if there is one, else in lower case. A quoted one is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from syncer.events import TableName

T = TypeVar("T")
_WORD = re.compile(r'(?:^|\.)("(?:[^"\0]|"")+"|[^".\s\0]+)')


class Shaped(NamedTuple):
    """For `Annotated[str, …]`: a text of this pattern. What it has to be is said in words, in schemas by the
    pattern."""

    pattern: str
    words: str

    def check(self, text: str) -> str:
        if not re.search(self.pattern, text):
            raise ValueError(f"it has to be {self.words}")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        return handler(schema) | {"pattern": self.pattern}


class Word(NamedTuple):
    text: str
    quoted: bool = False


def words(text: str) -> list[Word]:
    """The words of a dotted name: `public."Order lines"`. Raises ValueError if it is not one."""
    text = text.strip()
    parts = _WORD.findall(text)
    if not parts or ".".join(parts) != text:
        quoted = re.sub(r'[^."]*\s[^."]*', r'"\g<0>"', text.replace('"', ""))
        hint = f"; a word with spaces is quoted, as in '{quoted}'" if '"' in quoted else ""
        raise ValueError(f"{text!r} is not a name{hint}")
    return [Word(p[1:-1].replace('""', '"'), True) if p[0] == '"' else Word(p) for p in parts]


def find(word: Word, among: Mapping[str, T]) -> T | None:
    """What the word names."""
    if word.text in among:
        return among[word.text]
    return None if word.quoted else among.get(word.text.lower())


def spellings(text: str) -> list[TableName]:
    """The tables that a name can mean, the first that exists is meant. Raises ValueError if it is no name."""
    parts = words(text)
    if len(parts) > 2:
        raise ValueError(f'{text!r} is not the name of a table: `table`, `schema.table` or `schema."Table"`')
    parts = [Word("public"), *parts][-2:]
    exact = TableName(*(p.text for p in parts))
    folded = TableName(*(p.text if p.quoted else p.text.lower() for p in parts))
    return list(dict.fromkeys((exact, folded)))


def quote(*parts: str) -> str:
    """The name in SQL, whatever is in it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def literal(text: str) -> str:
    """The text as a SQL constant (under `standard_conforming_strings`)."""
    return "'" + text.replace("'", "''") + "'"


def near(name: str, right: Iterable[str]) -> str:
    """The right name that was probably meant: a letter in four is mistyped at most. Empty when there is
    none."""
    typed = name.lower()
    distance, meant = min(((_distance(typed, n.lower()), n) for n in right), default=(len(name), ""))
    return meant if distance <= max(1, len(name) // 4) else ""


def _distance(a: str, b: str) -> int:
    """How many letters are missing, added, wrong or in the wrong order (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]


def nearest(name: str, right: Iterable[str]) -> str:
    """A hint that names the right name that was probably meant, else some of them; empty when there are
    none."""
    names = list(dict.fromkeys(right))
    if meant := near(name, names):
        return f"did you mean {meant!r}?"
    if not names:
        return ""
    return f"one of: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
