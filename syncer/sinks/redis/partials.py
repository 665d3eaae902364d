"""Stores the partials of a document in one hash, in the slot of the document. Readers do not need it.

    partials:{KEY}    epoch → EPOCH, BUCKET → VERSION BODY; a body is empty for a remembered delete

The script `partials.lua` writes partials and reads all of the document in one step. If the root partial is a delete,
the hash expires after twice the time for which a delete is remembered. So the sum of the versions cannot fall while the
delete of the combined document is remembered. The partials of an unknown root do not expire: a backfill that was
interrupted for some hours writes the root partial last.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from typing import Any

import redis
from redis.exceptions import NoScriptError

from syncer.clock import split_version
from syncer.declaration.partial_keys import ROOT
from syncer.ports import StoredPartial
from syncer.sinks.partials import Found, Given
from syncer.sinks.redis.cluster import Servers, pipeline, values
from syncer.sinks.redis.keys import Keys
from syncer.sinks.target import Target

SCRIPT = resources.files(__package__).joinpath("partials.lua").read_text("utf-8")
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_DIGITS = 20
_EPOCH = b"epoch"


class RedisPartials:
    """The partials of one read model. tombstone: seconds for which deletes of documents are remembered."""

    def __init__(self, servers: Servers, keys: Keys, target: Target, tombstone: int) -> None:
        self._servers, self._keys, self._target = servers, keys, target
        self._dead = 2 * tombstone

    def write(self, version: int, partials: Given, timeout: float) -> Found:
        """See `ports.PartialSink.write_partials`."""
        found: Found = {}
        began = time.monotonic()
        with self._classified("cannot write partials"):
            for node, ids in self._nodes(list(partials)):
                if time.monotonic() - began > timeout:
                    break
                answers = self._run(node, [self._command(version, id, partials[id]) for id in ids])
                for id, answer in zip(ids, answers, strict=True):
                    found[id] = self._parse(answer[0])
        return found

    def read(self, ids: Sequence[str]) -> Found:
        """See `ports.PartialSink.read_partials`."""
        found: Found = {}
        with self._classified("cannot read partials"):
            for node, some in self._nodes(ids):
                answers = values(pipeline(node, [["HGETALL", self._key(id)] for id in some]))
                for id, answer in zip(some, answers, strict=True):
                    fields = dict(answer)
                    if fields.pop(_EPOCH, b"") == b"%020d" % self._target.epoch:
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
                            if bucket != _EPOCH:
                                yield id, bucket.decode()

    def _classified(self, what: str) -> AbstractContextManager[None]:
        return self._servers.classified(what, self._target.name)

    def _nodes(self, ids: Sequence[str]) -> Iterator[tuple[redis.Redis, list[str]]]:
        """Yields each server with its ids."""
        for node, groups in self._servers.owners(ids, self._keys.document):
            yield node, [id for group in groups for id in group]

    def _key(self, id: str) -> str:
        return self._keys.partials(self._keys.document(id))

    def _command(self, version: int, id: str, parts: Mapping[str, bytes | None]) -> list[Any]:
        epoch, _ = split_version(version)
        written: list[bytes | str] = [text for bucket, body in parts.items() for text in (bucket, body or b"")]
        constants = (f"{version:020d}", f"{epoch:020d}", self._dead, ROOT)
        return ["EVALSHA", _SHA, 1, self._key(id), *constants, len(parts), *written]

    def _run(self, node: redis.Redis, commands: Sequence[list[Any]]) -> list[Any]:
        answers = pipeline(node, commands)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            node.script_load(SCRIPT)
            answers = pipeline(node, commands)  # writing a partial again changes nothing
        return list(values(answers))

    def _parse(self, answer: Any) -> dict[str, StoredPartial]:
        if isinstance(answer, bytes):
            self._target.check_epoch(int(answer[1:]), "the partials of a document")
        fields = dict(zip(answer[::2], answer[1::2], strict=True))
        fields.pop(_EPOCH, None)
        return _partials(fields)


def _partials(fields: Mapping[bytes, bytes]) -> dict[str, StoredPartial]:
    return {
        bucket.decode(): StoredPartial(int(value[:_DIGITS]), value[_DIGITS:] or None)
        for bucket, value in fields.items()
    }
