"""The Redis sink: one key per document, as JSON text or as a hash, and its version in a second key.

A batch becomes calls of a script for up to 500 documents each; on a cluster, for documents of one slot. The calls are
pipelined to each server. The script (`write.lua`) writes a document only if its version is newer. A delete leaves the
version behind as a tombstone that expires. `syncer:meta:PATTERN` records which read model the keys belong to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import orjson
import redis
from redis.exceptions import NoScriptError

from syncer.declaration.compile import Compiled
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry
from syncer.ports import DurabilityToken
from syncer.sinks.redis import durability
from syncer.sinks.redis.calls import SCRIPT, Constants, Write, command, pipelines_of, writes_of
from syncer.sinks.redis.cluster import FAILURES, Servers, pipeline, values
from syncer.sinks.redis.errors import classify_error
from syncer.sinks.redis.hash_format import flat, flat_json, nested_fields
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.settings import Connection, Settings
from syncer.sinks.target import Target

_PAGE = 500


class RedisSink:
    """Implements `ports.Sink` over the keys of one pattern. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        *,
        model: Compiled,
        epoch: int = 1,
        generation: int = 1,
    ) -> None:
        self.name = f"redis:{settings.key}"
        self._hash = settings.format == "hash"
        self._pattern = settings.key
        self._keys = Keys(settings.key)
        self._model = model
        self._target = Target.of(self.name, model, epoch, generation)
        expire = max(1, round(settings.expire)) if settings.expire else 0
        tombstone = max(1, round(settings.tombstone))
        # The version outlives its document. So the sink can distinguish an expired document from a lost one.
        keep = expire + tombstone if expire else 0
        self._constants = Constants(expire, keep, tombstone, "hash" if self._hash else "string", self._keys.owner)
        self._clustered = connection.cluster
        self._servers = Servers(connection.client)

    def prepare(self, *, new: bool = True) -> None:
        """Checks the server, and that existing documents belong to this declaration and epoch.

        Missing documents are no error here: `durability` reports the loss, and everything is rendered again.
        """
        try:
            for node in self._servers.each():
                durability.server_identity(node, self.name)
            client, meta = self._servers.client(), orjson.dumps(self._target.meta())
            client.set(self._keys.meta, meta, nx=True)
            raw: Any = client.get(self._keys.meta)
            if self._accept(orjson.loads(raw)):
                client.set(self._keys.meta, meta)
        except FAILURES as error:
            raise classify_error(error, "Redis cannot be used", self.name) from error

    def _accept(self, found: Mapping[str, Any]) -> bool:
        """Returns whether to replace the record that was found: this sink has a later epoch or generation.

        Raises Fatal if the keys belong to another read model, declaration or later epoch.
        """
        if found["model"] != self._target.model:
            raise Fatal(
                f"the keys {self._pattern} belong to the read model {found['model']}",
                where=self.name,
                hint=self._keys.taken_hint,
            )
        self._target.check_epoch(found["epoch"], f"the record {self._keys.meta}")
        if found["generation"] >= self._target.generation:
            self._target.check_hash(found["hash"])
        return (self._target.epoch, self._target.generation) > (found["epoch"], found["generation"])

    def outgrown(self) -> list[str]:
        """Returns the fields that a hash cannot hold: lists and objects. JSON text can hold every value."""
        return [problem.what for problem in nested_fields(self._model.fields)] if self._hash else []

    def activate(self) -> list[str]:
        """Does nothing: generations share the keys, so each document is readable as soon as it is written."""
        return []

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """Writes as `ports.WritableSink.write` says.

        Once a part of the batch is acknowledged, a failure of the rest is returned in `retry`, not raised.
        """
        out, began = Outcome(), time.monotonic()
        writes = writes_of(batch, self._keys, as_hash=self._hash, out=out)
        failure: Exception | None = None
        try:
            owners = list(self._servers.owners(writes, lambda write: write.key))
        except FAILURES as error:
            raise classify_error(error, "cannot write", self.name) from error
        for node, groups in owners:
            down: Exception | None = None
            for calls in pipelines_of(groups):
                if time.monotonic() - began > timeout:
                    down = self._target.late(timeout, len(batch))
                try:
                    answers = [down] * len(calls) if down else self._execute(node, batch.version, calls)
                except FAILURES as error:  # of this server; others may do
                    down, answers = error, [error] * len(calls)
                for call, answer in zip(calls, answers, strict=True):
                    failure = self._settle(call, answer, batch.version, out) or failure
        if failure and len(out.retry) == len(batch):
            raise failure
        return out

    def _execute(self, node: redis.Redis, version: int, calls: Sequence[Sequence[Write]]) -> list[Any]:
        """Returns the answer or the error of each call. Raises FAILURES when the server does not answer."""
        commands = [command(version, self._constants, call, self._keys) for call in calls]
        answers = pipeline(node, commands)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # the server was restarted and has lost the script, so these calls have not run
            node.script_load(SCRIPT)
            for i, answer in zip(unknown, pipeline(node, [commands[i] for i in unknown]), strict=True):
                answers[i] = answer
        return answers

    def _settle(self, call: Sequence[Write], answer: Any, version: int, out: Outcome) -> Retry | None:
        """Counts the documents of a call. Returns the error if they have to be rendered again."""
        if isinstance(answer, Exception):
            failure = classify_error(answer, "cannot write", self.name)
            if not isinstance(failure, Retry):
                raise failure from answer
            self._servers.refresh()
            out.retry += [write.id for write in call]
            out.retry_reason = str(failure)
            return failure
        for write, result in zip(call, answer, strict=True):
            if result == b"w":
                out.written += 1
            elif result == b"d":
                out.deleted += 1
            elif result.startswith(b"!"):
                reason = f"the key does not belong to this read model: {result[1:].decode(errors='replace')}"
                out.rejected.append(Rejection(write.id, reason, "key of others"))
            else:
                self._target.stale(write.id, version, int(result), out)
        return None

    def durability(self) -> DurabilityToken:
        with self._classified("cannot read the durability token"):
            return durability.durability(self._servers, self._keys.marks(self._clustered), self.name)

    def ids(self, since: str = "") -> Iterator[str]:
        """Yields every id. An id may come twice (SCAN). Keys of others that match the pattern are left out."""
        kind = "hash" if self._hash else "string"
        with self._classified("cannot list the keys"):
            for node in self._servers.each():
                keys = node.scan_iter(match=self._keys.glob, count=2000, _type=kind)
                found = (id for key in keys if (id := self._keys.id(key)) is not None)
                while page := list(islice(found, _PAGE)):
                    texts = values(pipeline(node, [["GET", self._mark(id)] for id in page]))
                    for id, text in zip(page, texts, strict=True):
                        # The version key expires with its document or later, so every document has one.
                        if text is not None and self._keys.is_document(text):
                            yield id

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Returns the documents as JSON text: as written, or for a hash as `normalize` returns it."""
        out: dict[str, bytes] = {}
        with self._classified("cannot read"):
            for node, groups in self._pages([id for id in ids if id]):
                out |= self._read(node, groups)
        return out

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        out: dict[str, int] = {}
        with self._classified("cannot read the versions"):
            for node, groups in self._pages(ids):
                some = [id for group in groups for id in group]
                texts = values(pipeline(node, [["GET", self._mark(id)] for id in some]))
                for id, text in zip(some, texts, strict=True):
                    if text is not None and (version := self._keys.version_in(text)) is not None:
                        out[id] = version
        return out

    def _pages(self, ids: Sequence[str]) -> Iterator[tuple[redis.Redis, list[list[str]]]]:
        """Yields servers with groups of ids of one slot each, for up to `_PAGE` ids at a time."""
        for start in range(0, len(ids), _PAGE):
            yield from self._servers.owners(ids[start : start + _PAGE], self._keys.document)

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

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Decides by the time that the version keys have left, because they outlive their documents.

        If the version key is missing too, the document was written before both expired, or it never was. It counts
        as expired if a backfill of all documents began before that.
        """
        expire, keep, found = self._constants.expire, self._constants.keep, set[str]()
        if not expire:
            return found
        with self._classified("cannot read"):
            for node, groups in self._pages(ids):
                some = [id for group in groups for id in group]
                marks = [self._mark(id) for id in some]
                left = values(pipeline(node, [["PTTL", mark] for mark in marks]))
                texts = values(pipeline(node, [["GET", mark] for mark in marks]))
                for id, ms, text in zip(some, left, texts, strict=True):
                    if text is None:
                        is_expired = rendered >= keep
                    else:  # -1 ms: the document was written before `expire` was configured
                        is_expired = self._keys.is_document(text) and 0 <= ms <= 1000 * (keep - expire)
                    if is_expired:
                        found.add(id)
        return found

    def normalize(self, body: bytes) -> bytes | None:
        if not self._hash:
            return body
        try:
            return flat_json(flat(body))
        except ValueError:  # `write` rejects it
            return None

    def count(self) -> int:
        """Counts the ids one by one. SCAN may return one twice while Redis resizes its tables."""
        return sum(1 for _ in self.ids())

    def close(self) -> None:
        self._servers.close()

    @contextmanager
    def _classified(self, what: str) -> Iterator[None]:
        """Raises the errors of the client as the syncer's. The cluster's layout may be the cause: it is read again."""
        try:
            yield
        except FAILURES as error:
            self._servers.refresh()
            raise classify_error(error, what, self.name) from error


SINK = RedisSink
