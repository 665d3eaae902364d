"""Reads documents, versions and places, for `verify`, `trace` and sweeps.

Without indexes, the ids come from the keys of the documents. With indexes, they come from the version keys. The reason
is that a pointer can list places of a document that does not exist: a script was cut short, or a member was found
later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson
import redis

from syncer.sinks.chunks import pages
from syncer.sinks.redis import places, strays
from syncer.sinks.redis.calls import Constants, elsewhere
from syncer.sinks.redis.claims import Claims
from syncer.sinks.redis.cluster import Servers, pipeline, values
from syncer.sinks.redis.hash_format import flat, flat_json
from syncer.sinks.redis.indexes import Index
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.patterns import PLACEHOLDER
from syncer.sinks.redis.record import Record, parse
from syncer.sinks.target import Target

_PAGE = 500


class RedisReader:
    """Implements `ports.InspectableSink` and `ports.IndexedSink` over the keys of one pattern."""

    name: str
    _servers: Servers
    _keys: Keys
    _indexes: Sequence[Index]
    _claims: Claims
    _constants: Constants
    _target: Target
    _hash: bool
    _clustered: bool

    def ids(self, since: str = "") -> Iterator[str]:
        """Yields every id. An id may come twice (SCAN). Keys of others that match the pattern are left out."""
        with self._servers.classified("cannot list the keys", self.name):
            for node in self._servers.each():
                if self._indexes:
                    keys = node.scan_iter(match=self._keys.version_glob, count=2000, _type="string")
                    found = (id for key in keys if (id := self._keys.of_version(key)) is not None)
                else:
                    kind = "hash" if self._hash else "string"
                    keys = node.scan_iter(match=self._keys.glob, count=2000, _type=kind)
                    found = (id for key in keys if (id := self._keys.id(key)) is not None)
                while page := list(islice(found, _PAGE)):
                    # The version key expires with its document or later, so every document has one.
                    for id, record in zip(page, self._records(node, page), strict=True):
                        if record and (record.is_document or (self._indexes and record.places)):
                            yield id

    def find_strays(self) -> int:
        """Adds members of the indexes' keys to pointers that do not list them. Returns how many there were.

        Reads only keys that `syncer:indexes` records for this read model, and none if Redis was built from another
        declaration. After a change of the declaration, the keys may be those of the application.
        """
        with self._servers.classified("cannot read the indexes", self.name):
            raw: Any = self._servers.client().get(self._keys.meta)
            found = orjson.loads(raw) if raw else {}
            if (found.get("model"), found.get("hash")) != (self._target.model, self._target.hash):
                return 0
            return strays.adopt(self._servers, self._keys, self._claims.claimed(), clustered=self._clustered)

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Returns the documents as JSON text: as written, or for a hash as `normalize` returns it.

        With indexes, the field `(indexes)` of the text shows the places of the document.
        """
        out: dict[str, bytes] = {}
        with self._servers.classified("cannot read documents", self.name):
            for node, groups in self._pages([id for id in ids if id]):
                documents = dict(self._read(node, groups))
                out |= self._with_places(node, groups, documents) if self._indexes else documents
        return out

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        out: dict[str, int] = {}
        with self._servers.classified("cannot read the versions", self.name):
            for node, groups in self._pages(ids):
                some = [id for group in groups for id in group]
                for id, record in zip(some, self._records(node, some), strict=True):
                    if record and record.version:
                        out[id] = record.version
        return out

    def _records(self, node: redis.Redis, ids: Sequence[str]) -> Iterator[Record | None]:
        """Yields the record of each id, from their server. None for a version key of others."""
        texts = values(pipeline(node, [["GET", self._mark(id)] for id in ids]))
        return (parse(text, self._keys.owner) for text in texts)

    def _pages(self, ids: Sequence[str]) -> Iterator[tuple[redis.Redis, list[list[str]]]]:
        """Yields servers with groups of ids of one slot each, for up to `_PAGE` ids at a time."""
        for page in pages(ids, _PAGE):
            yield from self._servers.owners(page, self._keys.document)

    def _mark(self, id: str) -> str:
        """Returns the version key of an id."""
        return self._keys.version(self._keys.document(id))

    def _read(self, node: redis.Redis, groups: Sequence[Sequence[str]]) -> Iterator[tuple[str, bytes]]:
        """Yields the documents of groups of ids of one slot each, from their server."""
        keys = [[self._keys.document(id) for id in group] for group in groups]
        answers: list[Any] = []
        if self._hash:
            answers = pipeline(node, [["HGETALL", key] for group in keys for key in group])
        else:
            for group, answer in zip(keys, pipeline(node, [["MGET", *group] for group in keys]), strict=True):
                answers += [answer] * len(group) if isinstance(answer, Exception) else answer
        return self._documents([id for group in groups for id in group], answers)

    def _documents(self, ids: Sequence[str], answers: Sequence[Any]) -> Iterator[tuple[str, bytes]]:
        for id, answer in zip(ids, values(answers), strict=True):
            body = answer
            if isinstance(answer, Mapping):
                body = flat_json({name.decode(): value.decode() for name, value in answer.items()})
            if body is not None:
                yield id, body

    def _with_places(
        self, node: redis.Redis, groups: Iterable[Iterable[str]], documents: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """Returns the documents of these ids together with the members that they have in the places of the pointer."""
        ids, out = [id for group in groups for id in group], dict[str, bytes]()
        records = dict(zip(ids, self._records(node, ids), strict=True))
        listed = [place for id in ids if (record := records[id]) for place in record.places]
        commands = [["ZSCORE" if one.kind == "zset" else "SISMEMBER", one.key, one.member] for one in listed]
        scores = values(pipeline(node, commands))
        for id in ids:
            record, document = records[id], documents.get(id)
            found = [
                (place, bool(next(scores)) if place.kind == "set" else next(scores))
                for place in (record.places if record else ())
            ]
            shown = places.shown_places(self._indexes, id, found)
            if document is None:
                if record and self._expires_with_places(record):
                    is_absent = places.intact(shown)  # the members stay; `expired` explains the document
                else:
                    is_absent = all(score is None or score is False for _, score in found)
                if is_absent:
                    continue
            if text := places.with_places(document, shown):
                out[id] = text
        return out

    def _expires_with_places(self, record: Record) -> bool:
        """Returns whether a missing document with this record has expired. Its version key does not expire."""
        return bool(self._constants.expire and record.is_document and record.places)

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Decides by the time that the version keys have left, because they outlive their documents.

        If the version key is missing too, the document was written before both expired, or it never was. It counts
        as expired if a backfill of all documents began before that. A version key with a pointer does not expire.
        Its document counts as expired if the version key is that of a document.
        """
        expire, keep, found = self._constants.expire, self._constants.keep, set[str]()
        if not expire:
            return found
        with self._servers.classified("cannot read documents", self.name):
            for node, groups in self._pages(ids):
                some = [id for group in groups for id in group]
                marks = [self._mark(id) for id in some]
                left = values(pipeline(node, [["PTTL", mark] for mark in marks]))
                texts = values(pipeline(node, [["GET", mark] for mark in marks]))
                for id, ms, text in zip(some, left, texts, strict=True):
                    record = parse(text, self._keys.owner)
                    if text is None:
                        is_expired = rendered >= keep
                    elif record is None or not record.is_document:
                        is_expired = False
                    else:  # -1 ms without a pointer: the document was written before `expire` was configured
                        is_expired = self._expires_with_places(record) or 0 <= ms <= 1000 * (keep - expire)
                    if is_expired:
                        found.add(id)
        return found

    def normalize(self, body: bytes) -> bytes | None:
        try:
            document = flat_json(flat(body)) if self._hash else body
            if self._indexes:
                if self._clustered and elsewhere(self._keys.document("0"), places.places_of(self._indexes, "0", body)):
                    return None
                wanted = places.wanted(places.places_of(self._indexes, PLACEHOLDER, body))
                return places.with_places(document, wanted)
        except ValueError:  # `write` rejects it
            return None
        return document

    def count(self) -> int:
        """Counts the ids one by one. SCAN may return one twice while Redis resizes its tables."""
        return sum(1 for _ in self.ids())
