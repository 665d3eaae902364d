"""From a batch to calls of the script: what goes into one, how many go out together. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from syncer.document import Batch, Outcome, Rejection
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.script import SCRIPT, flat

_DOCUMENTS = 500  # a call: the server answers nobody else meanwhile
_BYTES = 1 << 20  # a call
_IN_FLIGHT = 8 << 20  # bytes of the calls that are sent together
_MAX_VALUE = 512 << 20  # proto-max-bulk-len
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Constants(NamedTuple):
    """What is the same for all documents of a read model. Seconds; 0 is never."""

    expire: int
    keep: int
    tombstone: int
    kind: str
    owner: str


class Write(NamedTuple):
    """One document of a call. values: None for a delete. size: bytes, about."""

    id: str
    key: str
    values: Sequence[bytes | str] | None
    size: int


def writes_of(batch: Batch, keys: Keys, *, as_hash: bool, out: Outcome) -> list[Write]:
    """What to write; what no key can hold is added to `out.refused`."""
    writes = []
    for id, body in batch.upserts.items():
        if reason := _unfit(id, body):
            out.rejected.append(Rejection(id, reason, "does not fit"))
            continue
        values: Sequence[bytes | str] = (body,)
        if as_hash:
            try:
                values = [text for field in flat(body).items() for text in field]
            except ValueError as error:
                out.rejected.append(Rejection(id, str(error), "no hash"))
                continue
        writes.append(Write(id, keys.document(id), values, len(body) + len(id)))
    for id in batch.deletes:
        if _unfit(id, b""):
            out.deleted += 1  # nothing can be there
        else:
            writes.append(Write(id, keys.document(id), None, len(id)))
    return writes


def _unfit(id: str, body: bytes) -> str:
    if not id:
        return "the id is empty"
    return f"{len(body)} bytes, Redis takes {_MAX_VALUE}" if len(body) > _MAX_VALUE else ""


def pipelines_of(groups: Iterable[Sequence[Write]]) -> Iterator[list[list[Write]]]:
    """Lists of calls to send together; each call within one group."""
    calls: list[list[Write]] = []
    in_flight = 0
    for group in groups:
        size = _BYTES  # the first document begins a call
        for write in group:
            if size + write.size > _BYTES or len(calls[-1]) == _DOCUMENTS:
                if calls and in_flight + write.size > _IN_FLIGHT:
                    yield calls
                    calls, in_flight = [], 0
                calls.append([])
                size = 0
            calls[-1].append(write)
            size += write.size
            in_flight += write.size
    if calls:
        yield calls


def command(version: int, constants: Constants, call: Sequence[Write], keys: Keys) -> list[Any]:
    """The script's EVALSHA for these documents."""
    names: list[str] = []
    values: list[Any] = []
    for write in call:
        names += (write.key, keys.version(write.key))
        if write.values is None:
            values.append(-1)
        else:
            values.append(len(write.values))
            values += write.values
    return ["EVALSHA", _SHA, len(names), *names, f"{version:020d}", *constants, *values]
