"""Writes the parameters of statements, and keys and ids of documents as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from syncer.declaration.names import literal

PARAMETER = "\0"
"""Stands for a parameter in SQL, until `with_placeholders` replaces it."""


def with_placeholders(sql: str) -> str:
    """Returns the SQL with psycopg's placeholders. Every other `%` is doubled, as psycopg requires."""
    return sql.replace("%", "%%").replace(PARAMETER, "%s")


def arrays(count: int) -> str:
    """Returns this number of text[] parameters as the arguments of ROWS FROM."""
    return ", ".join(f"pg_catalog.unnest({PARAMETER}::pg_catalog.text[])" for _ in range(count))


def bounds(types: Iterable[str]) -> str:
    """Returns a key as parameters, one text for each column. types: of the columns."""
    return ", ".join(f"{PARAMETER}::pg_catalog.text::{type}" for type in types)


def row(columns: Iterable[str]) -> str:
    return f"({', '.join(columns)})"


def texts(columns: Iterable[str]) -> str:
    return ", ".join(f"{column}::pg_catalog.text" for column in columns)


def document_id(columns: Sequence[str]) -> str:
    """Returns the SQL equivalent of `document.document_id`."""
    parts = [f"{column}::pg_catalog.text" for column in columns]
    if len(parts) == 1:
        return parts[0]
    for special in ("\\", "|"):
        parts = [f"pg_catalog.replace({p}, {literal(special)}, {literal(chr(92) + special)})" for p in parts]
    return " || '|' || ".join(parts)
