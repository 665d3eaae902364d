"""Turns a batch into calls of the script `write.lua`. No I/O but reading the script at import."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from typing import Any, NamedTuple

from syncer.document import Batch, Outcome, Rejection
from syncer.sinks.redis.hash_format import flat
from syncer.sinks.redis.indexes import Index
from syncer.sinks.redis.keys import Keys, slot
from syncer.sinks.redis.places import Place, places_of

SCRIPT = resources.files(__package__).joinpath("write.lua").read_text("utf-8")
_MAX_DOCUMENTS = 500  # of one call: the server serves no other client meanwhile
_MAX_BYTES = 1 << 20  # of one call
_MAX_IN_FLIGHT = 8 << 20  # bytes of the calls that are sent together
_MAX_VALUE = 512 << 20  # bytes; proto-max-bulk-len of Redis
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Constants(NamedTuple):
    """The arguments of the script that are the same for all documents of a read model."""

    expire: int
    """Seconds until a document expires. 0: never."""
    keep: int
    """Seconds until the version of a document expires. 0: never."""
    tombstone: int
    """Seconds for which a delete is remembered."""
    kind: str
    """TYPE of a document: `string` or `hash`."""
    owner: str
    """See `Keys.owner`."""


class Write(NamedTuple):
    """One document of a call. values: None for a delete. size: approximate bytes."""

    id: str
    key: str
    version: int
    values: Sequence[bytes | str] | None
    size: int
    places: Sequence[Place] = ()


def writes_of(
    batch: Batch, keys: Keys, *, as_hash: bool, indexes: Sequence[Index], clustered: bool, out: Outcome
) -> list[Write]:
    """Returns the writes of a batch. Adds documents that no key can hold to `out.rejected`."""
    writes = []
    for id, body in batch.upserts.items():
        if reason := _misfit(id, body):
            out.rejected.append(Rejection(id, reason, "does not fit"))
            continue
        values: Sequence[bytes | str] = (body,)
        if as_hash:
            try:
                values = [text for field in flat(body).items() for text in field]
            except ValueError as error:
                out.rejected.append(Rejection(id, str(error), "no hash"))
                continue
        key, places = keys.document(id), list[Place]()
        try:
            places = places_of(indexes, id, body) if indexes else places
        except ValueError as error:
            out.rejected.append(Rejection(id, str(error), "no index"))
            continue
        if clustered and (reason := elsewhere(key, places)):
            out.rejected.append(Rejection(id, reason, "another slot"))
            continue
        size = len(body) + len(id) + sum(len(place.key) + len(place.member) for place in places)
        writes.append(Write(id, key, batch.version_of(id), values, size, places))
    for id in batch.deletes:
        if _misfit(id, b""):
            out.deleted += 1  # no such document can exist
        else:
            writes.append(Write(id, keys.document(id), batch.version_of(id), None, len(id)))
    return writes


def _misfit(id: str, body: bytes) -> str:
    """Returns why Redis cannot store the document, or an empty text."""
    if not id:
        return "the id is empty"
    return f"{len(body)} bytes, the limit of Redis is {_MAX_VALUE}" if len(body) > _MAX_VALUE else ""


def elsewhere(key: str, places: Iterable[Place]) -> str:
    """Returns why one script cannot write a document and its places on a cluster, or an empty text."""
    number = slot(key)
    for place in places:
        if slot(place.key) != number:
            return f"the key {place.key} is not in the slot of {key}: a value in it has a brace"
    return ""


def pipelines_of(groups: Iterable[Sequence[Write]]) -> Iterator[list[list[Write]]]:
    """Yields lists of calls to send together. A call holds documents of one group only."""
    calls: list[list[Write]] = []
    in_flight = 0
    for group in groups:
        size = _MAX_BYTES  # the first document begins a call
        for write in group:
            if size + write.size > _MAX_BYTES or len(calls[-1]) == _MAX_DOCUMENTS:
                if calls and in_flight + write.size > _MAX_IN_FLIGHT:
                    yield calls
                    calls, in_flight = [], 0
                calls.append([])
                size = 0
            calls[-1].append(write)
            size += write.size
            in_flight += write.size
    if calls:
        yield calls


def command(constants: Constants, call: Sequence[Write], keys: Keys) -> list[Any]:
    """Returns the EVALSHA command that runs the script for these documents."""
    names: list[str] = []
    values: list[Any] = []
    for write in call:
        names += (write.key, keys.version(write.key))
        values.append(f"{write.version:020d}")
        if write.values is None:
            values.append(-1)
        else:
            values.append(len(write.values))
            values += write.values
        names += [place.key for place in write.places]
        values.append(len(write.places))
        for place in write.places:
            values += (place.kind, place.member, place.score)
    return ["EVALSHA", _SHA, len(names), *names, *constants, *values]
