"""Parses, resolves and quotes SQL names, and suggests the nearest correct name for a misspelt one.

An unquoted word refers to the name in its exact case if that exists, otherwise to the name in lower case. A quoted
word refers to the exact name only.
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


class Pattern(NamedTuple):
    """Restricts `Annotated[str, …]` to texts that match a pattern.

    Error messages show `words`, because users cannot be expected to read the pattern. JSON Schemas have the pattern.
    """

    pattern: str
    words: str

    def check(self, text: str) -> str:
        if not re.search(self.pattern, text):
            raise ValueError(f"must be {self.words}")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        return handler(schema) | {"pattern": self.pattern}


class Word(NamedTuple):
    """One part of a dotted name, without quotes."""

    text: str
    quoted: bool = False


def words(text: str) -> list[Word]:
    """Returns the words of a dotted name such as `public."Order lines"`. Raises ValueError for any other text."""
    text = text.strip()
    parts = _WORD.findall(text)
    if not parts or ".".join(parts) != text:
        quoted = re.sub(r'[^."]*\s[^."]*', r'"\g<0>"', text.replace('"', ""))
        hint = f"; quote a word that contains spaces, as in '{quoted}'" if '"' in quoted else ""
        raise ValueError(f"{text!r} is not a name{hint}")
    return [Word(p[1:-1].replace('""', '"'), True) if p[0] == '"' else Word(p) for p in parts]


def find(word: Word, among: Mapping[str, T]) -> T | None:
    """Returns the value that a word refers to, or None."""
    if word.text in among:
        return among[word.text]
    return None if word.quoted else among.get(word.text.lower())


def spellings(text: str) -> list[TableName]:
    """Returns the tables that a name can refer to. The first that exists is meant.

    Raises ValueError if the text is not the name of a table.
    """
    parts = words(text)
    if len(parts) > 2:
        raise ValueError(f'{text!r} is not the name of a table: write `table`, `schema.table` or `schema."Table"`')
    parts = [Word("public"), *parts][-2:]
    exact = TableName(*(p.text for p in parts))
    folded = TableName(*(p.text if p.quoted else p.text.lower() for p in parts))
    return list(dict.fromkeys((exact, folded)))


def quote(*parts: str) -> str:
    """Returns a name as SQL, with each part quoted."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def literal(text: str) -> str:
    """Returns a text as a SQL constant. `standard_conforming_strings` has to be on."""
    return "'" + text.replace("'", "''") + "'"


def near(name: str, correct: Iterable[str]) -> str:
    """Returns the correct name that was probably meant, or an empty text.

    At most one letter in four may be wrong.
    """
    typed = name.lower()
    distance, meant = min(((_distance(typed, n.lower()), n) for n in correct), default=(len(name), ""))
    return meant if distance <= max(1, len(name) // 4) else ""


def _distance(a: str, b: str) -> int:
    """Returns the number of missing, added, wrong and transposed letters (optimal string alignment distance)."""
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


def nearest(name: str, correct: Iterable[str]) -> str:
    """Returns a hint with the correct name that was probably meant, otherwise with the first of the correct names."""
    names = list(dict.fromkeys(correct))
    if meant := near(name, names):
        return f"did you mean {meant!r}?"
    if not names:
        return ""
    return f"one of: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
