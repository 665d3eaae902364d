"""Stores the partials of a document in one hash, in the slot of the document. Readers do not need it.

    partials:{KEY}    epoch → EPOCH, etag → ETAG, BUCKET → VERSION BODY; a body is empty for a remembered delete

The script `partials.lua` writes partials and reads all of the document in one step. If the root partial is a delete,
the hash expires after twice the time for which a delete is remembered. So the sum of the versions cannot fall while the
delete of the combined document is remembered. The partials of an unknown root do not expire: a backfill that was
interrupted for some hours writes the root partial last.

A document may have thousands of partials, and each change needs all of them. So this module remembers the hashes that
it wrote last, with their etags. Each write gives a hash a new random etag. If a hash still has the remembered etag,
nobody wrote it since, and no failover took a write back. Then the server does not send the hash again.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from typing import Any, NamedTuple

import redis
from cachetools import LRUCache
from redis.exceptions import NoScriptError

from syncer.clock import split_version
from syncer.declaration.partial_keys import ROOT
from syncer.ports import StoredPartial, StoredPartials
from syncer.sinks.partials import Found, Given
from syncer.sinks.redis.cluster import Servers, pipeline, values
from syncer.sinks.redis.keys import Keys
from syncer.sinks.target import Target

SCRIPT = resources.files(__package__).joinpath("partials.lua").read_text("utf-8")
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_DIGITS = 20
_EPOCH, _ETAG = b"epoch", b"etag"
_FIELDS = frozenset((_EPOCH, _ETAG))
"""The fields of a hash that are no buckets."""
_ETAG_BYTES = 12
_MOST_BYTES = 64 << 20
_OVERHEAD = 250
"""The approximate memory of a partial without its body, in bytes."""


class _Hash(NamedTuple):
    """The content of a hash while it has this etag. size: the approximate memory, in bytes."""

    etag: str
    partials: Mapping[str, StoredPartial]
    size: int


class RedisPartials:
    """The partials of one read model. Threads may share it.

    tombstone: seconds for which deletes of documents are remembered. most_bytes: the memory for remembered hashes.
    """

    def __init__(
        self, servers: Servers, keys: Keys, target: Target, tombstone: int, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._servers, self._keys, self._target = servers, keys, target
        self._dead = 2 * tombstone
        self._lock = threading.Lock()
        self._hashes: LRUCache[str, _Hash] = LRUCache(most_bytes, lambda one: one.size)
        """By document id."""

    def write(self, version: int, partials: Given, timeout: float) -> StoredPartials:
        """See `ports.PartialSink.write_partials`."""
        found: dict[str, Mapping[str, StoredPartial]] = {}
        began = time.monotonic()
        with self._classified("cannot write partials"):
            for node, ids in self._nodes(list(partials)):
                if time.monotonic() - began > timeout:
                    break
                known = self._known(ids)
                found |= self._write(node, version, {id: partials[id] for id in ids}, known)
                if unknown := [id for id in ids if id not in found]:
                    found |= self._write(node, version, {id: partials[id] for id in unknown}, {})
        return found

    def read(self, ids: Sequence[str]) -> Found:
        """See `ports.PartialSink.read_partials`."""
        found: Found = {}
        with self._classified("cannot read partials"):
            for node, some in self._nodes(ids):
                answers = values(pipeline(node, [["HGETALL", self._key(id)] for id in some]))
                for id, answer in zip(some, answers, strict=True):
                    fields = dict(answer)
                    if fields.get(_EPOCH) == b"%020d" % self._target.epoch:
                        found[id] = _partials(fields)
        return found

    def ids(self) -> Iterator[tuple[str, str]]:
        """See `ports.PartialSink.partial_ids`."""
        with self._classified("cannot list the partials"):
            for node in self._servers.each():
                for key in node.scan_iter(match=self._keys.partials_glob, count=2000, _type="hash"):
                    if (id := self._keys.of_partials(key)) is not None:
                        buckets: Any = node.hkeys(key)
                        for bucket in buckets:
                            if bucket not in _FIELDS:
                                yield id, bucket.decode()

    def _classified(self, what: str) -> AbstractContextManager[None]:
        return self._servers.classified(what, self._target.name)

    def _nodes(self, ids: Sequence[str]) -> Iterator[tuple[redis.Redis, list[str]]]:
        """Yields each server with its ids."""
        for node, groups in self._servers.owners(ids, self._keys.document):
            yield node, [id for group in groups for id in group]

    def _key(self, id: str) -> str:
        return self._keys.partials(self._keys.document(id))

    def _write(
        self, node: redis.Redis, version: int, partials: Given, known: Mapping[str, _Hash]
    ) -> dict[str, Mapping[str, StoredPartial]]:
        """Writes partials of these documents, and returns all their partials.

        known: remembered hashes. A document is missing in the result if its hash is not the remembered one, although it
        has this etag. That happens only if somebody edited the hash.
        """
        found: dict[str, Mapping[str, StoredPartial]] = {}
        etag = secrets.token_hex(_ETAG_BYTES)
        commands = [self._command(version, etag, id, parts, known.get(id)) for id, parts in partials.items()]
        for (id, parts), answer in zip(partials.items(), self._run(node, commands), strict=True):
            if (content := self._content(version, parts, answer[0], known.get(id))) is None:
                continue
            found[id] = content
            self._remember(id, etag, content)
        return found

    def _content(
        self, version: int, parts: Mapping[str, bytes | None], answer: Any, known: _Hash | None
    ) -> Mapping[str, StoredPartial] | None:
        """Returns the partials of a document after a write, or None if the answer contradicts the remembered hash.

        parts: those that were written. answer: of the script.
        """
        if isinstance(answer, bytes):
            self._target.check_epoch(int(answer[1:]), "the partials of a document")
        if known is None or len(answer) != 2:
            return _partials(dict(zip(answer[::2], answer[1::2], strict=True)))
        content = dict(known.partials)
        newer = {
            bucket: StoredPartial(version, body or None)
            for bucket, body in parts.items()
            if bucket not in content or content[bucket].version < version
        }
        content.update(newer)
        return content if answer == [len(newer), len(content) + len(_FIELDS)] else None

    def _known(self, ids: Sequence[str]) -> dict[str, _Hash]:
        """Returns the remembered hashes of these documents."""
        with self._lock:
            return {id: one for id in ids if (one := self._hashes.get(id)) is not None}

    def _remember(self, id: str, etag: str, partials: Mapping[str, StoredPartial]) -> None:
        size = _OVERHEAD * len(partials) + sum(len(part.body) for part in partials.values() if part.body)
        with self._lock:
            self._hashes.pop(id, None)
            if size <= self._hashes.maxsize // 2:  # one document must not displace all others
                self._hashes[id] = _Hash(etag, partials, size)

    def _command(
        self, version: int, etag: str, id: str, parts: Mapping[str, bytes | None], known: _Hash | None
    ) -> list[Any]:
        epoch, _ = split_version(version)
        written: list[bytes | str] = [text for bucket, body in parts.items() for text in (bucket, body or b"")]
        constants = (f"{version:020d}", f"{epoch:020d}", self._dead, ROOT, etag)
        before = known.etag if known else ""
        return ["EVALSHA", _SHA, 1, self._key(id), *constants, before, len(parts), *written]

    def _run(self, node: redis.Redis, commands: Sequence[list[Any]]) -> list[Any]:
        answers = pipeline(node, commands)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            node.script_load(SCRIPT)
            answers = pipeline(node, commands)  # writing a partial again changes nothing
        return list(values(answers))


def _partials(fields: Mapping[bytes, bytes]) -> dict[str, StoredPartial]:
    return {
        bucket.decode(): StoredPartial(int(value[:_DIGITS]), value[_DIGITS:] or None)
        for bucket, value in fields.items()
        if bucket not in _FIELDS
    }
