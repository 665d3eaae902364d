"""Reads the changes in WAL, and writes them as Debezium's events.

PostgreSQL's own `pgoutput` decodes WAL (manual, "Logical Replication Message Formats"), without Kafka Connect.
tests/integration/test_events.py shows that Debezium's events have the same form.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from syncer.pipeline.route import UNAVAILABLE
from tests.engine.schema import Schema

SLOT = PUBLICATION = "engine"
_READ = (
    f"SELECT data FROM pg_logical_slot_get_binary_changes('{SLOT}', NULL, NULL,"
    f" 'proto_version', '1', 'publication_names', '{PUBLICATION}')"
).encode()
_FLUSH = b"SELECT pg_logical_emit_message(true, 'flush', '')"
"""Flushes WAL. Only flushed WAL is decoded, and an asynchronous commit may be flushed much later."""
_INVENTED = {
    "integer": "0",
    "bigint": "0",
    "text": "",
    "varchar": "",
    "character(3)": "",
    "numeric": "0",
    "date": "1970-01-01",
    "timestamp": "1970-01-01 00:00:00",
    "timestamptz": "1970-01-01 00:00:00+00",
    "boolean": "f",
    "mood": "",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "bytea": "\\x",
    "integer[]": "{}",
}
"""By type: the value that Debezium invents for a NOT NULL column that the before-image lacks."""
_INFINITE = {
    "date": {"infinity": "+5877611-06-21Z", "-infinity": "-5877611-06-22Z"},
    "timestamp": {"infinity": "+292278994-08-16T23:00:00Z", "-infinity": "-292275055-05-16T23:00:00Z"},
}
"""By type: Debezium's text for an infinite time. Those of `timestamptz` do not change."""


class Event(NamedTuple):
    table: str
    key: str
    """The row's key as text; empty for a truncate."""
    xid: int
    value: bytes


def begin(connection: psycopg.Connection[Any]) -> None:
    """Creates a publication and a slot, which keep the changes of all tables for `read`."""
    options = "WITH (publish_via_partition_root = true)"
    connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES {options}".encode())
    connection.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')".encode())


def read(connection: psycopg.Connection[Any], schema: Schema | None) -> list[Event]:
    """Returns the changes since the last call, in commit order. schema None: discards them."""
    connection.execute(_FLUSH)
    found = connection.execute(_READ, binary=True).fetchall()
    return list(_Decoder(schema).events(data for (data,) in found)) if schema else []


class _Reader:
    """One message of pgoutput."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, format: str) -> int:
        (found,) = struct.unpack_from(f">{format}", self.data, self.at)
        self.at += struct.calcsize(f">{format}")
        return int(found)

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        found, self.at = self.data[self.at : end].decode(), end + 1
        return found

    def letter(self) -> str:
        self.at += 1
        return chr(self.data[self.at - 1])

    def row(self) -> list[str | bool | None]:
        """Returns the column values as text. None for NULL; False for an unchanged TOASTed value."""
        found: list[str | bool | None] = []
        for _ in range(self.number("H")):
            match self.letter():
                case "n":
                    found.append(None)
                case "u":
                    found.append(False)
                case "t":
                    size = self.number("I")
                    found.append(self.data[self.at : self.at + size].decode())
                    self.at += size
        return found


class _Decoder:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.relations: dict[int, tuple[str, list[str]]] = {}
        self.xid = 0

    def events(self, messages: Iterator[bytes]) -> Iterator[Event]:
        for data in messages:
            message = _Reader(data)
            match message.letter():
                case "B":
                    message.at += 16
                    self.xid = message.number("I")
                case "R":
                    oid = message.number("I")
                    message.text()
                    name = message.text()
                    message.letter()
                    columns = []
                    for _ in range(message.number("H")):
                        message.letter()
                        columns.append(message.text())
                        message.at += 8
                    self.relations[oid] = name, columns
                case "I" | "U" | "D" as kind:
                    table, columns = self.relations[message.number("I")]
                    images = {}
                    while message.at < len(data):
                        which = message.letter()
                        images[which] = dict(zip(columns, message.row(), strict=True))
                    yield from self._row(kind, table, images)
                case "T":
                    count = message.number("I")
                    message.letter()
                    for _ in range(count):
                        yield self._event(self.relations[message.number("I")][0], "t", None, None)

    def _row(self, kind: str, table: str, images: dict[str, dict[str, Any]]) -> Iterator[Event]:
        """Yields the events of a row. A change of the key becomes a delete and a create."""
        old, full, new = images.get("K"), images.get("O"), images.get("N")
        before = full or (old and self._invented(table, old))
        if new and full:
            new = {name: full[name] if value is False else value for name, value in new.items()}
        key = self.schema[table].key
        if kind == "U" and before and new and any(before[name] != new[name] for name in key):
            yield self._event(table, "d", before, None)
            yield self._event(table, "c", None, new)
        else:
            yield self._event(table, {"I": "c", "U": "u", "D": "d"}[kind], before, new)

    def _invented(self, table: str, old: dict[str, Any]) -> dict[str, Any]:
        """Fills the other columns of an old row as Debezium does: it invents values for columns that are NOT NULL.

        WAL has only the key, or all columns of a partition under FULL whose root has another identity.
        """
        columns = self.schema[table].columns
        made = {c.name: _INVENTED[c.type] for c in columns if c.not_null and old.get(c.name) is None}
        return old | made

    def _event(self, table: str, op: str, before: Any, after: Any) -> Event:
        source = {"schema": "public", "table": table, "txId": self.xid, "ts_ms": 1}
        images = {"before": self._values(table, before), "after": self._values(table, after)}
        row = after or before or {}
        key = "|".join(str(row[name]) for name in self.schema[table].key) if row else ""
        return Event(table, key, self.xid, json.dumps({"op": op, **images, "source": source}).encode())

    def _values(self, table: str, row: dict[str, Any] | None) -> dict[str, Any] | None:
        if row is None:
            return None
        return {name: _value(value, self.schema[table].column(name).type) for name, value in row.items()}


def _value(text: str | bool | None, type: str) -> Any:
    """Returns the JSON value under the handling modes that `syncer check` requires."""
    if text is None:
        return None
    if text is False:
        return UNAVAILABLE
    assert isinstance(text, str)
    if type.endswith("[]"):
        return _array(text, type.removesuffix("[]"))
    match type:
        case "integer" | "bigint":
            return int(text)
        case "boolean":
            return text == "t"
        case "date" | "timestamp":
            return _INFINITE[type].get(text) or f"{text.replace(' ', 'T')}Z"
        case "timestamptz" if not text.endswith("infinity"):
            at = datetime.fromisoformat(text)
            return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        case "bytea":
            return text.removeprefix("\\x")
    return text


_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)|([{}])', re.DOTALL)


def _array(text: str, type: str) -> list[Any]:
    """Returns an array as Debezium writes it: a list of its elements. Inner arrays are lost here, as the worst case."""
    lists: list[list[Any]] = [[]]
    for quoted, plain, bracket in (found.groups() for found in _ELEMENT.finditer(text)):
        if bracket == "{":
            lists.append([])
        elif bracket == "}":
            inner = lists.pop()
            lists[-1].append(inner)
        else:
            element = plain if plain is not None else re.sub(r"\\(.)", r"\1", quoted)
            lists[-1].append(None if plain == "NULL" else _value(element, type))
    [[found_list]] = lists
    return [None if isinstance(element, list) else element for element in found_list]
