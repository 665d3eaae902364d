"""Stage 2, decode: turns a record's bytes into a change event or a work item. Pure.

A record that cannot be read raises `Reject`. It goes to the dead-letter topic unchanged, and the other records go
on. Debezium's manual describes the envelope, in "Data change events" of the PostgreSQL connector.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from syncer.errors import Reject
from syncer.events import ChangeEvent, Image, Position, TableName, WorkItem

_OPERATIONS = frozenset("cudrt")
_NEEDS = {"keys": ("keys",), "range": ("high",), "sweep": ()}
"""By the kind of a work item: the fields that it must have."""
_REPLAY = "inspect the record (syncer dlq show), then run syncer dlq replay or syncer resync MODEL"


class _Source(msgspec.Struct, rename={"txid": "txId"}):
    schema: str
    table: str
    txid: int | None = None
    ts_ms: int | None = None


class _Envelope(msgspec.Struct):
    """The fields of Debezium's envelope that are needed. To skip the others halves the time to decode."""

    op: str
    source: _Source
    before: Image | None = None
    after: Image | None = None


class _Wrapped(msgspec.Struct):
    """The envelope as a converter with `schemas.enable=true` writes it."""

    payload: _Envelope


_plain, _wrapped = msgspec.json.Decoder(_Envelope), msgspec.json.Decoder(_Wrapped)
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def change(position: Position, value: bytes | None) -> ChangeEvent | None:
    """Returns the change event of a record. None for tombstones and for operations that change no row.

    An `r` event gets no transaction to wait for. The connector read the row in its own snapshot before it sent the
    event. Every later snapshot sees the same or more, and each later commit has an event of its own. The event's
    `txId` is the transaction in which Debezium reads. It stays open until the last table is read, so to wait for it
    would take hours.

    Raises Reject if the record cannot be read.
    """
    if value is None:
        return None
    try:
        envelope = _plain.decode(value)
    except _ERRORS as error:
        try:
            envelope = _wrapped.decode(value).payload
        except _ERRORS:
            raise _undecodable("a change event", position, error) from error
    op, source = envelope.op, envelope.source
    if op not in _OPERATIONS:
        return None
    if op != "t" and (envelope.before if op == "d" else envelope.after) is None:
        raise _undecodable("a change event", position, TypeError(f"operation {op} lacks its row image"))
    table = TableName(source.schema, source.table)
    txid = None if op == "r" else source.txid
    return ChangeEvent(table, op, envelope.before, envelope.after, txid, source.ts_ms or 0)  # type: ignore[arg-type]


def work(position: Position, value: bytes | None, columns: int | None, *, roots: bool = False) -> WorkItem | None:
    """Returns the work item of a record that `encode_work` wrote. None for tombstones.

    columns: the number of columns that each key must have; None: not checked.
    roots: whether the known keys may have one column less, because they name the roots of partials.
    Raises Reject if the record cannot be read.
    """
    if value is None:
        return None
    try:
        fields: dict[str, Any] = orjson.loads(value)
        fields["keys"] = tuple(map(tuple, fields.get("keys", ())))
        for bound in ("low", "high"):
            if fields.get(bound) is not None:
                fields[bound] = tuple(fields[bound])
        item = WorkItem(**fields)
        bounds = tuple(bound for bound in (item.low, item.high) if bound is not None)
        known = (columns, columns - 1) if roots and columns is not None and item.kind == "keys" else (columns,)
        if columns is not None and any(
            len(key) not in known or not all(isinstance(part, str) for part in key) for key in item.keys + bounds
        ):
            raise TypeError(f"a key does not consist of {columns} texts")
        if item.kind not in _NEEDS or not all(getattr(item, name) for name in _NEEDS[item.kind]):
            raise TypeError(f"kind {item.kind!r} is unknown, or lacks a field")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise _undecodable("a work item", position, error) from error
    return item


def encode_item(item: WorkItem) -> bytes:
    """Returns the JSON text of a work item, without empty fields."""
    return orjson.dumps({name: value for name, value in item._asdict().items() if value})


def _undecodable(kind: str, position: Position, error: Exception) -> Reject:
    why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return Reject(f"cannot read {kind}", where=str(position), why=why, hint=_REPLAY)
