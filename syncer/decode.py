"""Stage 1, decode: from a record's bytes to a change event or a work item. Pure.

A record that cannot be read is a `Reject`: it goes to the dead-letter topic as it is, and the rest goes on.
Debezium's envelope is described in its manual, "Data change events" of the PostgreSQL connector.
"""

from __future__ import annotations

from typing import Any

import orjson

from syncer.change import Change, Position, TableName, Work
from syncer.errors import Reject

_OPERATIONS = frozenset("cudrt")
_IMAGE = frozenset((dict, type(None)))
_NUMBER = frozenset((int, type(None)))
_TEXT = frozenset((str,))
_REPLAY = "see what produced it, then: syncer resync MODEL"


def change(position: Position, value: bytes | None) -> Change | None:
    """The change event of a record; None for what carries no change (tombstones, other operations)."""
    if value is None:
        return None
    try:
        envelope = orjson.loads(value)
        if "op" not in envelope and "payload" in envelope:  # written with schemas.enable=true
            envelope = envelope["payload"]
        op = envelope["op"]
        if op not in _OPERATIONS:
            return None
        source = envelope["source"]
        table = TableName(source["schema"], source["table"])
        before, after = envelope.get("before"), envelope.get("after")
        txid, committed_ms = source.get("txId"), source.get("ts_ms") or 0
        needed = before if op == "d" else after
        if (needed is None and op != "t") or not {type(before), type(after)} <= _IMAGE:
            raise TypeError(f"the images are not those of operation {op}")
        if {type(table.schema), type(table.name)} != _TEXT or not {type(txid), type(committed_ms)} <= _NUMBER:
            raise TypeError("source is not of Debezium's form")
        return Change(table, op, before, after, txid, committed_ms)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise _undecodable("a change event", position, error) from error


def work(position: Position, value: bytes | None) -> Work | None:
    """The work item of a record, as `encode_work` wrote it."""
    if value is None:
        return None
    try:
        fields: dict[str, Any] = orjson.loads(value)
        fields["keys"] = tuple(map(tuple, fields.get("keys", ())))
        for bound in ("low", "high"):
            if fields.get(bound) is not None:
                fields[bound] = tuple(fields[bound])
        return Work(**fields)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise _undecodable("a work item", position, error) from error


def encode_work(item: Work) -> bytes:
    return orjson.dumps({name: value for name, value in item._asdict().items() if value})


def _undecodable(kind: str, position: Position, error: Exception) -> Reject:
    why = f"no {error}" if isinstance(error, KeyError) else str(error)
    return Reject(f"cannot read {kind}", where=str(position), why=why, hint=_REPLAY)
