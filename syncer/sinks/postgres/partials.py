"""Stores the partials of documents in a second table, next to that of the documents. Each partial is one row.

    NAME_000001_partials    _id, _bucket, _version, _body (null: a remembered delete), _written_at

A writer commits its partials first. It reads all partials of the documents in a second transaction. Of two writers, one
commits its partials later. Under READ COMMITTED, each statement has a new snapshot, which contains everything that was
committed before. So the later writer reads the partials of both. If one transaction did both steps, two writers could
miss each other's partials.

The sink remembers the delete of a combined document for the time `tombstone` after the last write of this delete. Until
then, the sum of the versions must not fall. So the partials of a deleted root are kept for twice this time after the
root partial was written. But a late row can write the delete again. So if the root partial is older than half of
`tombstone`, a writer first renews it, and then reads the partials. It writes the delete at most `pipeline.max_age`
after this read. This is less than the other half of `tombstone`. The renewal is a transaction of its own: with the
locks on partials, it could cause a deadlock. Partials of a root that never existed are kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from syncer.clock import EPOCH_SHIFT, split_version
from syncer.declaration.names import quote
from syncer.declaration.partial_keys import ROOT
from syncer.ports import StoredPartial
from syncer.sinks.chunks import chunks, pages
from syncer.sinks.partials import Found, Given, separate
from syncer.sinks.postgres.columns import ID, VERSION
from syncer.sinks.postgres.server import Session
from syncer.sinks.postgres.sessions import Sessions
from syncer.sinks.postgres.statements import ARRIVED, Mark
from syncer.sinks.postgres.writer import id_problem
from syncer.sinks.target import Target

BUCKET = "_bucket"
KEY, NOT_NULL = (ID, BUCKET), (ID, BUCKET, VERSION)
_ID, _VERSION, _BUCKET = quote(ID), quote(VERSION), quote(BUCKET)
_PARTIALS = 1000
"""Partials of one statement, at most."""
_BYTES = 4 << 20
_DOCUMENTS = 200
"""Documents whose partials one statement reads."""
_PAGE = 5000
_PURGED = 200
"""Documents whose partials one call forgets, at most."""


class _Partial(NamedTuple):
    id: str
    bucket: int
    body: str | None


class Statements:
    """The statements for one table of partials. tombstone: seconds for which deletes of documents are remembered."""

    def __init__(self, table: str, tombstone: float) -> None:
        dead = f"{_BUCKET} = {ROOT} AND _body IS NULL"
        aging, old = f"{dead} AND {_older(tombstone / 2)}", _older(2 * tombstone)
        self.mark = Mark.of(table, {BUCKET: "0", "_written_at": "'infinity'"})
        # Ordered by the primary key, as in every writer. So writers cannot deadlock.
        self.write = f"""
INSERT INTO {table} AS t ({_ID}, {_BUCKET}, {_VERSION}, _body, _written_at)
SELECT d.id, d.bucket::bigint, %(version)s::bigint, d.body, {ARRIVED}
  FROM unnest(%(ids)b::text[], %(buckets)b::text[], %(bodies)b::text[]) AS d(id, bucket, body)
 ORDER BY d.id COLLATE "C", d.bucket::bigint
    ON CONFLICT ({_ID}, {_BUCKET}) DO UPDATE
   SET {_VERSION} = excluded.{_VERSION}, _body = excluded._body, _written_at = excluded._written_at
 WHERE t.{_VERSION} < excluded.{_VERSION}"""
        self.read = f"""
SELECT {_ID}, {_BUCKET}::text, {_VERSION}, _body, {aging}
  FROM {table} WHERE {_ID} = ANY(%b::text[]) AND {_VERSION} >= %s"""
        # In the order of the primary key, too. It waits for a purge, and then finds the rows that the purge has left.
        self.renew = f"""
UPDATE {table} SET _written_at = {ARRIVED} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE {_ID} = ANY(%b::text[]) AND {aging} ORDER BY {_ID} FOR UPDATE))"""
        self.ids = f"""
SELECT {_ID}, {_BUCKET} FROM {table}
 WHERE ({_ID}, {_BUCKET}) > (%s, %s) AND {_VERSION} >= %s ORDER BY {_ID}, {_BUCKET} LIMIT %s"""
        # The rows of the roots stay locked, so no writer can insert such a root again before this has ended. It waits
        # for no lock, so it cannot deadlock with a writer.
        self.purge = f"""
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE {old} AND {_ID} = ANY(ARRAY(
        SELECT {_ID} FROM {table} WHERE {dead} AND {old}
         LIMIT {_PURGED} FOR UPDATE SKIP LOCKED)) FOR UPDATE SKIP LOCKED))"""


def _older(seconds: float) -> str:
    return f"_written_at < {ARRIVED} - pg_catalog.make_interval(secs => {seconds})"


def create_table(table: str) -> list[str]:
    """Returns the statements that create a table of partials, with the index that finds partials to forget."""
    return [
        f"""CREATE TABLE {table} ({_ID} text COLLATE "C", {_BUCKET} bigint, {_VERSION} bigint NOT NULL, _body text,
            _written_at timestamp with time zone, PRIMARY KEY ({_ID}, {_BUCKET}))""",
        f"CREATE INDEX ON {table} (_written_at) WHERE {_BUCKET} = {ROOT} AND _body IS NULL",
    ]


class PostgresPartials:
    """The partials of one read model. Safe to share between threads."""

    def __init__(self, statements: Statements, target: Target, sessions: Sessions) -> None:
        self._statements, self._target, self._sessions = statements, target, sessions
        self._first = target.epoch << EPOCH_SHIFT
        """The lowest version of the epoch. Partials of earlier epochs were rendered from another declaration."""

    def write(self, version: int, partials: Given, timeout: float) -> Found:
        """See `ports.PartialSink.write_partials`.

        No row can have some ids, for example the empty one.
        """
        deadline = time.monotonic() + timeout
        possible, impossible = separate(version, partials, id_problem)
        for chunk in _chunks(possible, partials):
            left = self._left(deadline, timeout, len(partials))
            with self._sessions.session("cannot write partials", left) as session:
                values = {
                    "version": version,
                    "ids": [one.id for one in chunk],
                    "buckets": [str(one.bucket) for one in chunk],
                    "bodies": [one.body for one in chunk],
                }
                session.execute(self._statements.write, values)
        found, aging = self._read(possible, deadline, timeout)
        if aging:
            self._renew(aging, self._left(deadline, timeout, len(partials)))
            found |= self._read(aging, deadline, timeout)[0]  # a purge may have come between
        return found | impossible

    def _renew(self, ids: Sequence[str], timeout: float) -> None:
        """Delays the purge of these roots, unless they are no longer deleted."""
        with self._sessions.session("cannot renew partials of deleted documents", timeout) as session:
            session.execute(self._statements.renew, (list(ids),))

    def read(self, ids: Sequence[str]) -> Found:
        """See `ports.PartialSink.read_partials`."""
        found, _ = self._read([id for id in ids if not id_problem(id)])
        return {id: parts for id, parts in found.items() if parts}

    def _read(self, ids: Sequence[str], deadline: float | None = None, timeout: float = 0.0) -> tuple[Found, list[str]]:
        """Returns all partials, and the ids of the deleted roots that a writer has to renew."""
        found: Found = {id: {} for id in ids}
        aging: list[str] = []
        for page in pages(ids, _DOCUMENTS):
            left = None if deadline is None else self._left(deadline, timeout, len(ids))
            with self._sessions.session("cannot read partials", left) as session:
                rows = session.execute(self._statements.read, (page, self._first)).fetchall()
            for id, bucket, version, body, is_aging in rows:
                if (epoch := split_version(version)[0]) > self._target.epoch:
                    self._target.check_epoch(epoch, f"a partial of document {id!r}, version {version},")
                found[id][bucket] = StoredPartial(version, None if body is None else body.encode())
                if is_aging:
                    aging.append(id)
        return found, aging

    def _left(self, deadline: float, timeout: float, documents: int) -> float:
        """Returns the seconds until the deadline. Raises Retry if there are none."""
        if (left := deadline - time.monotonic()) <= 0:
            raise self._target.late(timeout, documents)
        return left

    def ids(self) -> Iterator[tuple[str, str]]:
        """See `ports.PartialSink.partial_ids`. Yields them page by page, in the order of the primary key."""
        last = ("", 0)  # the mark; no partial has an empty id
        while True:
            with self._sessions.session("cannot list the partials") as session:
                page = session.execute(self._statements.ids, (*last, self._first, _PAGE)).fetchall()
            yield from ((id, str(bucket)) for id, bucket in page)
            if len(page) < _PAGE:
                return
            last = page[-1]

    def purge(self, session: Session) -> None:
        """Forgets the partials of roots that were deleted long ago."""
        session.execute(self._statements.purge)


def _chunks(ids: Sequence[str], partials: Given) -> Iterator[list[_Partial]]:
    """Yields the partials in parts, sorted by id and bucket."""
    found = sorted(
        (_Partial(id, int(bucket), None if body is None else body.decode()))
        for id in ids
        for bucket, body in partials[id].items()
    )
    return chunks(found, lambda one: len(one.body or ""), max_size=lambda: _BYTES, max_items=_PARTIALS)
