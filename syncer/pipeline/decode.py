"""Stage 1, decode: from a record's bytes to a change event or a work item. Pure.

A record that cannot be read is a `Reject`: it goes to the dead-letter topic as it is, and the rest goes on.
Debezium's envelope is described in its manual, "Data change events" of the PostgreSQL connector.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from syncer.errors import Reject
from syncer.events import ChangeEvent, Image, Position, TableName, WorkItem

_OPERATIONS = frozenset("cudrt")
_NEEDS = {"keys": ("keys",), "range": ("high",), "sweep": ()}  # by the kind of a work item
_REPLAY = "see what wrote it (syncer dlq show), then: syncer dlq replay, or syncer resync MODEL"


class _Source(msgspec.Struct, rename={"txid": "txId"}):
    schema: str
    table: str
    txid: int | None = None
    ts_ms: int | None = None


class _Envelope(msgspec.Struct):
    """What is read of Debezium's envelope; the rest is skipped, which takes half the time of reading it."""

    op: str
    source: _Source
    before: Image | None = None
    after: Image | None = None


class _Wrapped(msgspec.Struct):
    """As written with `schemas.enable=true`."""

    payload: _Envelope


_plain, _wrapped = msgspec.json.Decoder(_Envelope), msgspec.json.Decoder(_Wrapped)
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def change(position: Position, value: bytes | None) -> ChangeEvent | None:
    """The change event of a record; None for what carries no change (tombstones, other operations).

    An `r` event has no transaction to wait for. It tells nothing that a later snapshot would not show: the
    connector read the row in a snapshot of its own before it sent the event, and every snapshot that is taken
    after that one sees as much or more. What was committed since has an event of its own. The `txId` that
    Debezium gives it is that of the transaction in which it reads, open until the last table is read: to wait
    for that would take hours.
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
        raise _undecodable("a change event", position, TypeError(f"operation {op} without its row image"))
    table = TableName(source.schema, source.table)
    txid = None if op == "r" else source.txid
    return ChangeEvent(table, op, envelope.before, envelope.after, txid, source.ts_ms or 0)  # type: ignore[arg-type]


def work(position: Position, value: bytes | None, columns: int | None) -> WorkItem | None:
    """The work item of a record, as `encode_work` wrote it. columns: of its keys; None: they are not used."""
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
        if columns is not None and any(
            len(key) != columns or not all(isinstance(part, str) for part in key) for key in item.keys + bounds
        ):
            raise TypeError(f"a key that has not {columns} texts")
        if item.kind not in _NEEDS or not all(getattr(item, name) for name in _NEEDS[item.kind]):
            raise TypeError(f"kind {item.kind!r} without what it needs")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise _undecodable("a work item", position, error) from error
    return item


def encode_work(item: WorkItem) -> bytes:
    return orjson.dumps({name: value for name, value in item._asdict().items() if value})


def _undecodable(kind: str, position: Position, error: Exception) -> Reject:
    why = f"no {error}" if isinstance(error, KeyError) else str(error)
    return Reject(f"cannot read {kind}", where=str(position), why=why, hint=_REPLAY)
