"""Parses a request to refresh documents. Pure.

A request names its documents in one of two ways:

    keys            the keys of root rows, which are the ids of documents
    table and rows  rows of a table below the root, by the values that link them to their parent

A moved row makes two documents stale: its old one and its new one. A deleted row makes its old document stale. A new
snapshot does not show the old document of a row. So a request has to give the link values *before and after* the
change, as two rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from syncer import document
from syncer.declaration.compile import Compiled, TableUse
from syncer.events import Key
from syncer.freshness import tokens
from syncer.freshness.refused import Refused
from syncer.freshness.tokens import Token, TokenKind
from syncer.quantities import counted

_EXAMPLES = '{"keys": ["17"]}, or {"table": "order_items", "rows": [{"order_id": 1}, {"order_id": 2}]}'
_FIELDS = ("keys", "table", "rows", "token", "timeout")
NOW = Token(TokenKind.NOW)

Row = Mapping[str, Any]
"""Column → JSON value. `text_of` turns it into PostgreSQL's text."""


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """What to refresh. Either `keys` or `rows` is empty."""

    keys: Sequence[Key] = ()
    """As the caller wrote them: `refresh_roots.py` turns them into PostgreSQL's texts."""
    uses: Sequence[TableUse] = ()
    """The uses of the table that `rows` belong to."""
    rows: Sequence[Row] = ()
    token: Token = NOW
    timeout: float = 10.0
    """Seconds."""

    @property
    def size(self) -> int:
        return len(self.keys) or len(self.rows)


def parse(body: Any, compiled: Compiled, *, timeout: float, max_timeout: float, most: int) -> RefreshRequest:
    """Returns the request of a JSON body. Raises Refused: 400 with the wrong field, 413 for more than `most` entries.

    timeout: seconds, if the body gives none. max_timeout: the longest that the body may give.
    """
    if not isinstance(body, dict):
        raise _bad("the body is no JSON object", "")
    if unknown := [str(name) for name in body if name not in _FIELDS]:
        raise _bad(f"the body has an unknown field: {unknown[0][:50]!r}", f"known fields: {', '.join(_FIELDS)}")
    if ("keys" in body) == ("rows" in body) or ("table" in body) != ("rows" in body):
        raise _bad("the body needs either `keys`, or `table` and `rows`", "")
    token = body.get("token", "now")
    if not isinstance(token, str):
        raise _bad("`token` is no text", f"valid tokens look like {tokens.EXAMPLES}")
    parsed, seconds = tokens.parse(token), _timeout(body.get("timeout", timeout), max_timeout)
    entries = body["keys"] if "keys" in body else body["rows"]
    if not isinstance(entries, list) or not entries:
        raise _bad(f"`{'keys' if 'keys' in body else 'rows'}` is no list with at least one entry", "")
    if len(entries) > most:
        raise too_many(compiled.name, most)
    if "keys" in body:
        keys = list(dict.fromkeys(_key(entry, compiled) for entry in entries))
        return RefreshRequest(keys=keys, token=parsed, timeout=seconds)
    uses = _uses(body["table"], compiled)
    return RefreshRequest(uses=uses, rows=[_row(entry) for entry in entries], token=parsed, timeout=seconds)


def too_many(model: str, most: int) -> Refused:
    """Returns the error for a request about more documents than one request may refresh."""
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the request is about more than {counted(most, 'document')}",
        where=model,
        why="refresh.max_documents limits how many documents one request may refresh",
        hint="wait until the documents show the commit (GET /wait): the syncer renders them anyway",
    )


def _timeout(value: Any, longest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _bad("`timeout` is no number of seconds", "")
    if not 0 < value <= longest:
        raise _bad(f"`timeout` is {value:g} s", f"it must be more than 0 and at most {longest:g} s")
    return float(value)


def _key(entry: Any, compiled: Compiled) -> Key:
    """Returns a key: a document's id, or a list with the value of each key column."""
    columns = len(compiled.key)
    if isinstance(entry, str):
        try:
            return document.parse_id(text_of(entry, "`keys`"), columns)
        except ValueError as error:
            raise _bad("an entry of `keys` is no id of a document", str(error)) from None
    values = entry if isinstance(entry, list) else [entry]
    if len(values) != columns:
        raise _bad("an entry of `keys` has the wrong number of values", f"the key is ({', '.join(compiled.key)})")
    return tuple(text_of(value, "`keys`") for value in values)


def _row(entry: Any) -> Row:
    if not isinstance(entry, dict):
        raise _bad("an entry of `rows` is no object", "each row maps the names of columns to values")
    return entry


def text_of(value: Any, where: str) -> str:
    """Returns PostgreSQL's input text of a JSON value. where: names the value. Raises Refused (400)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise _bad(f"a value of {where} is neither text nor an integer", "send other types as PostgreSQL's text")
    if "\0" in value or _is_broken(value):
        raise _bad(f"a value of {where} has a character that PostgreSQL cannot store", "")
    return value


def _is_broken(value: str) -> bool:
    """Returns whether a text has half of a surrogate pair, which UTF-8 cannot encode."""
    return any("\ud800" <= character <= "\udfff" for character in value)


def _uses(table: Any, compiled: Compiled) -> list[TableUse]:
    """Returns the uses of a table. Its name may lack the schema if only one table has that name."""
    known = sorted({str(name) for name in compiled.tables})
    named = {use.table for use in compiled.table_uses if table in (str(use.table), use.table.name)}
    if not isinstance(table, str) or len(named) != 1:
        why = "several of its tables have this name" if named else "it uses no such table"
        raise _bad("`table` is no table of the read model", f"{why}; its tables: {', '.join(known)}")
    [one] = named
    return [use for use in compiled.table_uses if use.table == one]


def _bad(what: str, why: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, what, why=why, hint=f"send for example {_EXAMPLES}")
