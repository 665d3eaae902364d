"""Summaries in Redis: a document a key, as JSON text or as a hash, with its version in a key beside it.

A batch is one script call for up to 500 documents (on a cluster: of one slot), pipelined to each server. The
script (`_redis_script.py`) writes a document only if its version is newer; a delete leaves the version behind
as a tombstone that expires. `_redis_keys.py` makes the keys. `syncer:meta:PATTERN` records whose they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import orjson
import redis
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry as ClientRetry

from syncer.config.types import Seconds, take_credentials_out
from syncer.declaration.compile import Compiled
from syncer.declaration.compile import Field as DocumentField
from syncer.declaration.names import Shaped
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry, SyncerError
from syncer.ports import DurabilityToken
from syncer.sinks.problem import Problem
from syncer.sinks.redis import durability, trial
from syncer.sinks.redis.calls import Constants, Write, command, pipelines_of, writes_of
from syncer.sinks.redis.cluster import FAILURES, Client, Servers, pipeline, values
from syncer.sinks.redis.keys import Keys, pattern_problem
from syncer.sinks.redis.script import SCRIPT, classify_error, flat, flat_json, nested_fields
from syncer.sinks.target import Target
from syncer.tls import CaFile

_PAGE = 500
_LONGEST = 100 * 366 * 86400
"""Seconds. Redis counts in milliseconds from 1970, and Lua writes large numbers in another form."""


class Settings(BaseModel):
    """Writes each document to a key of Redis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(description="The key of a document, with {id} in it once: customer:{id}:summary")
    format: Literal["json", "hash"] = Field(
        "json", description="json: one string, the document's text; hash: a field for each value, flat only"
    )
    expire: Seconds | None = Field(
        None, description="Documents vanish so long after they were last written, such as 7d (default: never)"
    )
    tombstone: Seconds = Field(
        3600, description="How long a delete is remembered, such as 1h; half an hour at least", ge=1800
    )

    @field_validator("key")
    @classmethod
    def _pattern(cls, value: str) -> str:
        if problem := pattern_problem(value):
            raise ValueError(problem)
        return value


class Connection(BaseModel):
    """Where Redis is, and how to sign in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Annotated[str, Shaped(r"^(rediss?|unix)://", "redis://host:port/database, or rediss:// for TLS")] = Field(
        "redis://127.0.0.1:6379/0", description="redis://host:port/database; rediss:// for TLS"
    )
    username: str | None = Field(None, description="An ACL user (default: the default user)")
    password: SecretStr | None = Field(None, description="Its password")
    ca_file: CaFile | None = Field(None, description="PEM file of the authority behind its certificate")
    timeout: Seconds = Field(10, description="Wait this long for an answer (seconds)")
    cluster: bool = Field(False, description="Whether the address is of a Redis Cluster")

    _credentials = model_validator(mode="before")(take_credentials_out)

    def client(self) -> Client:
        """Retries nothing. A cluster is connected to at once, a single server with its first command."""
        options: dict[str, Any] = {
            "username": self.username,
            "password": self.password.get_secret_value() if self.password else None,
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "retry": ClientRetry(NoBackoff(), 0),
        }
        if self.ca_file and self.url.startswith("rediss:"):
            options["ssl_ca_certs"] = self.ca_file
        if self.cluster:
            return redis.RedisCluster.from_url(self.url, **options)
        return redis.Redis.from_url(self.url, **options)


def validate(settings: Settings, fields: Sequence[DocumentField]) -> list[Problem]:
    """What is wrong with the declaration for documents of these fields; `check` prints it."""
    found = [
        Problem(f"{name}: {value:.0f} seconds are too long for Redis", hint="100 years at most", block=(name,))
        for name, value in (("expire", settings.expire or 0), ("tombstone", settings.tombstone))
        if value > _LONGEST
    ]
    return found + (nested_fields(fields) if settings.format == "hash" else [])


def tried(connection: Connection, settings: Settings, model: Compiled) -> list[Problem]:
    """See `sinks.SinkModule.tried`. Nothing is made for it."""
    servers = Servers(connection.client)
    try:
        where = f"Redis at {connection.url}"
        return trial.validate(servers, settings.key, settings.format == "hash", model.name, where)
    finally:
        servers.close()


def preflight(connection: Connection, settings: Sequence[Settings]) -> list[SyncerError]:
    """That it is away, is a replica, may evict, or does not let us run `INFO`."""
    servers, where = Servers(connection.client), f"Redis at {connection.url}"
    try:
        for node in servers.each():
            durability.life(node, where)
    except Fatal as error:
        return [error]
    except FAILURES as error:
        return [classify_error(error, "Redis cannot be used", where)]
    finally:
        servers.close()
    return []


def misread(connection: Connection, settings: Settings, generation: int) -> None:
    """Never: all generations share the keys."""


class RedisSink:
    """The `Sink` port over keys of one pattern. Safe to share between threads."""

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
        self._meta_key = f"syncer:meta:{settings.key}"
        expire = max(1, round(settings.expire)) if settings.expire else 0
        tombstone = max(1, round(settings.tombstone))
        # The version outlives its document, so that an expired document can be told from a lost one.
        keep = expire + tombstone if expire else 0
        self._constants = Constants(expire, keep, tombstone, "hash" if self._hash else "string", self._keys.owner)
        self._clustered = connection.cluster
        self._servers = Servers(connection.client)

    # -- the target ---------------------------------------------------------------------------------------

    def prepare(self, *, new: bool = True) -> None:
        """Check the server, and that the documents there, if any, are of this declaration and epoch. What was
        there and is gone is no obstacle: `memory` tells it, and all is rendered again."""
        try:
            for node in self._servers.each():
                durability.life(node, self.name)
            client, ours = self._servers.client(), orjson.dumps(self._target.meta())
            client.set(self._meta_key, ours, nx=True)
            raw: Any = client.get(self._meta_key)
            if self._accept(orjson.loads(raw)):
                client.set(self._meta_key, ours)
        except FAILURES as error:
            raise classify_error(error, "Redis cannot be used", self.name) from error

    def durability(self) -> DurabilityToken:
        try:
            return durability.durability(self._servers, self._keys.marks(self._clustered), self.name)
        except FAILURES as error:
            self._servers.refresh()
            raise classify_error(error, "cannot be asked what it remembers", self.name) from error

    def _accept(self, found: Mapping[str, Any]) -> bool:
        """Whether to record ours: for a later epoch or another generation."""
        if found["model"] != self._target.model:
            raise Fatal(
                f"the keys {self._pattern} belong to the read model {found['model']}",
                where=self.name,
                hint=f"choose another key; if that read model is no more: redis-cli DEL '{self._meta_key}'",
            )
        self._target.check_epoch(found["epoch"], "Redis")
        if found["generation"] >= self._target.generation:
            self._target.check_hash(found["hash"])
        return (self._target.epoch, self._target.generation) > (found["epoch"], found["generation"])

    def outgrown(self) -> list[str]:
        """A hash has no place for what is not one value; a JSON text holds anything."""
        return [problem.what for problem in nested_fields(self._model.fields)] if self._hash else []

    def activate(self) -> list[str]:
        """Generations share the keys: each document is read as soon as it is written."""
        return []

    # -- documents ----------------------------------------------------------------------------------------

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """As the port says. Once a part of the batch is settled, a failure of the rest is told in `again`."""
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
        """The answer of each call, or its error. Raises one of FAILURES when there is none."""
        commands = [command(version, self._constants, call, self._keys) for call in calls]
        answers = pipeline(node, commands)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # a server that was restarted; those calls have not run
            node.script_load(SCRIPT)
            for i, answer in zip(unknown, pipeline(node, [commands[i] for i in unknown]), strict=True):
                answers[i] = answer
        return answers

    def _settle(self, call: Sequence[Write], answer: Any, version: int, out: Outcome) -> Retry | None:
        """Count the documents of a call. Returns the failure that its documents have to wait for."""
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
                reason = f"not ours: {result[1:].decode(errors='replace')}"
                out.rejected.append(Rejection(write.id, reason, "not ours"))
            else:
                self._target.stale(write.id, version, int(result), out)
        return None

    def ids(self, since: str = "") -> Iterator[str]:
        """Every id; one may come twice (SCAN). Keys that only look like ours are left out."""
        kind = "hash" if self._hash else "string"
        try:
            for node in self._servers.each():
                keys = node.scan_iter(match=self._keys.glob, count=2000, _type=kind)
                found = (id for key in keys if (id := self._keys.id(key)) is not None)
                while page := list(islice(found, _PAGE)):
                    yield from self._ours(node, page)
        except FAILURES as error:
            self._servers.refresh()
            raise classify_error(error, "cannot list the keys", self.name) from error

    def _ours(self, node: redis.Redis, ids: Sequence[str]) -> Iterator[str]:
        """Those whose version key says that we wrote them. It expires with its document or later."""
        versions = [["GET", self._keys.version(self._keys.document(id))] for id in ids]
        for id, mark in zip(ids, values(pipeline(node, versions)), strict=True):
            if mark is not None and self._keys.ours(mark):
                yield id

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The documents as JSON text: as written, or for a hash as `stored` makes it."""
        out: dict[str, bytes] = {}
        fit = [id for id in ids if id]
        for start in range(0, len(fit), _PAGE):
            try:
                for node, groups in self._servers.owners(fit[start : start + _PAGE], self._keys.document):
                    out |= self._read(node, groups)
            except FAILURES as error:
                self._servers.refresh()
                raise classify_error(error, "cannot read", self.name) from error
        return out

    def _read(self, node: redis.Redis, groups: Sequence[Sequence[str]]) -> Iterator[tuple[str, bytes]]:
        """Documents of groups of ids of one slot each, from their server."""
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
        """By the time that the version keys have left. Where that key is gone, too, the document was written
        longer ago than both last, or never was: it counts as expired if a backfill began before that."""
        expire, keep, gone = self._constants.expire, self._constants.keep, set[str]()
        if not expire:
            return gone
        for start in range(0, len(ids), _PAGE):
            try:
                owners = self._servers.owners(ids[start : start + _PAGE], self._keys.document)
                for node, groups in owners:
                    some = [id for group in groups for id in group]
                    marks = [self._keys.version(self._keys.document(id)) for id in some]
                    left = values(pipeline(node, [["PTTL", mark] for mark in marks]))
                    texts = values(pipeline(node, [["GET", mark] for mark in marks]))
                    for id, ms, text in zip(some, left, texts, strict=True):
                        if text is None:
                            is_gone = rendered >= keep
                        else:  # -1: it was written before there was anything to expire
                            is_gone = self._keys.ours(text) and 0 <= ms <= 1000 * (keep - expire)
                        if is_gone:
                            gone.add(id)
            except FAILURES as error:
                self._servers.refresh()
                raise classify_error(error, "cannot read", self.name) from error
        return gone

    def normalize(self, body: bytes) -> bytes | None:
        if not self._hash:
            return body
        try:
            return flat_json(flat(body))
        except ValueError:  # refused, so absent
            return None

    def count(self) -> int:
        """Documents, counted one by one."""
        return sum(1 for _ in self.ids())

    def close(self) -> None:
        self._servers.close()


SINK = RedisSink
