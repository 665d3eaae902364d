"""The Redis sink: one key per document, as JSON text or as a hash, its version in a second key, and indexes.

A batch becomes calls of a script for up to 500 documents each; on a cluster, for documents of one slot. The calls are
pipelined to each server. The script (`write.lua`) writes a document only if its version is newer. A delete leaves the
version behind as a tombstone that expires. `syncer:meta:PATTERN` records which read model the keys belong to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
import redis
from redis.exceptions import NoScriptError

from syncer.declaration.compile import Compiled
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry
from syncer.ports import DurabilityToken, PublishedWatermark
from syncer.sinks.partials import StoresPartials
from syncer.sinks.redis import durability, watermarks
from syncer.sinks.redis.calls import SCRIPT, Constants, Write, command, pipelines_of, writes_of
from syncer.sinks.redis.checks import one_slot
from syncer.sinks.redis.claims import Claims
from syncer.sinks.redis.cluster import FAILURES, Servers, pipeline
from syncer.sinks.redis.errors import classify_error
from syncer.sinks.redis.hash_format import nested_fields
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.partials import RedisPartials
from syncer.sinks.redis.reader import RedisReader
from syncer.sinks.redis.settings import Connection, Settings
from syncer.sinks.target import Target


class RedisSink(RedisReader, StoresPartials):
    """Implements `ports.Sink` over the keys of one pattern. Safe to share between threads."""

    in_place = True

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
        self._pattern, self._indexes = settings.key, settings.indexes
        self._settings, self._connection = settings, connection
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
        self._partials = RedisPartials(self._servers, self._keys, self._target, tombstone)
        self._claims = Claims(self._servers, model.name, settings.key, settings.indexes)

    def prepare(self, *, new: bool = True) -> None:
        """Checks the server, and that existing documents belong to this declaration and epoch.

        Missing documents are no error here: `durability` reports the loss, and everything is rendered again.
        """
        if split := one_slot(self._connection, self._settings):
            raise split
        try:
            for node in self._servers.each():
                durability.server_identity(node, self.name)
            client, meta = self._servers.client(), orjson.dumps(self._target.meta())
            raw: Any = client.get(self._keys.meta)
            if raw:
                self._accept(orjson.loads(raw))
            # Before the record is replaced: an earlier generation stops when it finds a later one there.
            if taken := self._claims.claim():
                raise Fatal(taken.what, where=self.name, why=taken.why, hint=taken.hint)
            client.set(self._keys.meta, meta, nx=True)
            raw = client.get(self._keys.meta)
            if self._accept(orjson.loads(raw)):
                client.set(self._keys.meta, meta)
                with suppress(*FAILURES):  # without the permission, there is no watermark
                    watermarks.withdraw(self._servers, self._keys, self._target)
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
        """Gives up the keys of earlier indexes. Generations share the keys, so readers see this one already."""
        with self._servers.classified("cannot record the indexes", self.name):
            raw: Any = self._servers.client().get(self._keys.meta)
            if raw:
                self._target.check_epoch(orjson.loads(raw)["epoch"], f"the record {self._keys.meta}")
            self._claims.drop_obsolete()
        return []

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """Writes as `ports.WritableSink.write` says.

        Once a part of the batch is acknowledged, a failure of the rest is returned in `retry`, not raised.
        """
        out, began = Outcome(), time.monotonic()
        writes = writes_of(
            batch, self._keys, as_hash=self._hash, indexes=self._indexes, clustered=self._clustered, out=out
        )
        failure: Exception | None = None
        try:
            owners = list(self._servers.owners(writes, lambda write: write.key))
        except FAILURES as error:
            raise classify_error(error, "cannot write", self.name) from error

        def late() -> Retry | None:
            return self._target.late(timeout, len(batch)) if time.monotonic() - began > timeout else None

        for node, groups in owners:
            down: Exception | None = None
            for calls in pipelines_of(groups):
                try:
                    answers = [down] * len(calls) if down else self._execute(node, calls, late)
                except FAILURES as error:  # of this server; others may do
                    down, answers = error, [error] * len(calls)
                for call, answer in zip(calls, answers, strict=True):
                    failure = self._settle(call, answer, out) or failure
        if failure and len(out.retry) == len(batch):
            raise failure
        return out

    def _execute(
        self, node: redis.Redis, calls: Sequence[Sequence[Write]], late: Callable[[], Retry | None]
    ) -> list[Any]:
        """Returns the answers or the error of each call. Raises FAILURES when the server does not answer.

        late: returns an error when it is too late to write.
        """
        answers: list[Any] = [[] for _ in calls]
        left, loaded = list(enumerate(calls)), False
        while left:
            if error := late():
                for i, _ in left:
                    answers[i] = error
                break
            now, left = left, []
            given = pipeline(node, [command(self._constants, call, self._keys) for _, call in now])
            if not loaded and any(isinstance(answer, NoScriptError) for answer in given):
                node.script_load(SCRIPT)  # the server was restarted and has lost it, so these calls have not run
            for (i, call), answer in zip(now, given, strict=True):
                if isinstance(answer, NoScriptError) and not loaded:
                    left.append((i, call))
                elif isinstance(answer, Exception):
                    answers[i] = answer
                else:
                    answers[i] += answer
                    if rest := call[len(answer) :]:  # the script ended early
                        left.append((i, rest))
            loaded = True
        return answers

    def _settle(self, call: Sequence[Write], answer: Any, out: Outcome) -> Retry | None:
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
            elif result.startswith(b"?"):
                mark = result[1:].decode(errors="replace")
                repair = f"redis-cli DEL '{mark}'; syncer verify {self._target.model} --repair"
                reason = f"the list of its members in the key {mark} is damaged; run: {repair}"
                out.rejected.append(Rejection(write.id, reason, "damaged pointer"))
            elif result.startswith(b"!"):
                reason = f"the key does not belong to this read model: {result[1:].decode(errors='replace')}"
                out.rejected.append(Rejection(write.id, reason, "key of others"))
            else:
                self._target.stale(write.id, write.version, int(result), out)
        return None

    def durability(self) -> DurabilityToken:
        with self._servers.classified("cannot read the durability token", self.name):
            return durability.durability(self._servers, self._keys.marks(self._clustered), self.name)

    def publish(self, watermark: PublishedWatermark) -> None:
        try:
            watermarks.publish(self._servers, self._keys, watermark)
        except FAILURES as error:
            failure = classify_error(error, "cannot publish the watermark", self.name)
            if isinstance(failure, Retry):  # a missing permission is no reason to connect again every second
                self._servers.refresh()
            raise failure from error

    def published(self) -> PublishedWatermark | None:
        with self._servers.classified("cannot read the watermark", self.name):
            return watermarks.lowest(self._servers, self._keys, self._target.generation)

    def close(self) -> None:
        self._servers.close()


SINK = RedisSink
