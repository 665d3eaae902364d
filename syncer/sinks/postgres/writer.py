"""Writes a batch in few statements. If a statement fails because of a value, it is halved, down to one document."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Reject, Retry
from syncer.sinks.chunks import chunks
from syncer.sinks.postgres.server import Session
from syncer.sinks.postgres.sessions import Sessions
from syncer.sinks.postgres.statements import Statements
from syncer.sinks.target import Target

MAX_ID = 2000
"""Bytes. A longer text does not fit into an entry of the index."""
_MAX_DOCUMENTS = 1000
_MAX_BYTES = 4 << 20


class Write(NamedTuple):
    """A document, or a delete without a body."""

    id: str
    version: int
    body: str | None


def id_problem(id: str) -> str:
    """Returns why no row can have this id. Empty if one can."""
    if not id:
        return "the id is empty"
    if "\0" in id:
        return "the id contains the character U+0000"
    size = len(id.encode())
    return f"the id has {size} bytes, the limit is {MAX_ID}" if size > MAX_ID else ""


def chunks_of(batch: Batch, out: Outcome) -> Iterator[list[Write]]:
    """Yields the writes in parts, sorted by id. Impossible ids are counted in `out`: deletes of them succeed.

    All writers lock rows in this order, so they cannot deadlock.
    """
    found = []
    for id, body in batch.upserts.items():
        if why := id_problem(id):
            out.rejected.append(Rejection(id, why, "id"))
        else:
            found.append(Write(id, batch.version_of(id), body.decode()))
    for id in batch.deletes:
        if id_problem(id):
            out.deleted += 1
        else:
            found.append(Write(id, batch.version_of(id), None))
    yield from chunks(
        sorted(found), lambda write: len(write.body or ""), max_size=lambda: _MAX_BYTES, max_items=_MAX_DOCUMENTS
    )


class Writer:
    """Writes batches to one table. Safe to share between threads."""

    def __init__(self, statements: Statements, target: Target, sessions: Sessions) -> None:
        self._statements, self._target, self._sessions = statements, target, sessions

    def write(self, batch: Batch, timeout: float) -> Outcome:
        """See `ports.WritableSink.write`. Once a part is acknowledged, a failure of the rest is in `retry`."""
        out, deadline = Outcome(), time.monotonic() + timeout
        chunks = chunks_of(batch, out)
        parts: list[list[Write]] = []
        while part := parts.pop() if parts else next(chunks, None):
            answer = Outcome()
            try:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._target.late(timeout, len(batch))
                with self._sessions.session("cannot write", left) as session:
                    if time.monotonic() >= deadline:  # it took long to connect
                        raise self._target.late(timeout, len(batch))
                    self._send(session, part, answer)
                out.add(answer)  # only now: the session may turn out to belong to a server that was replaced
            except Reject as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                else:
                    out.rejected.append(Rejection(part[0].id, error.why, kind_of(error)))
            except Retry as error:
                if not (out.written or out.deleted or out.stale or out.rejected):
                    raise
                out.retry_reason = str(error)
                out.retry += [write.id for rest in (part, *parts, *chunks) for write in rest]
                parts.clear()
        return out

    def _send(self, session: Session, part: Sequence[Write], out: Outcome) -> None:
        ids, versions, bodies = map(list, zip(*part, strict=True))
        values = {"ids": ids, "versions": versions, "bodies": bodies}
        written = dict(session.execute(self._statements.write, values).fetchall())
        documents = sum(written.values())
        lost = {write.id: write.version for write in part if write.id not in written}
        newest = dict(session.execute(self._statements.versions, (list(lost),)).fetchall()) if lost else {}
        out.written += documents
        out.deleted += len(written) - documents
        for id, version in lost.items():
            found = newest.get(id)
            if found is None:  # a delete that was forgotten between the two statements
                out.retry.append(id)
                out.retry_reason = f"{self._target.name}: the row of document {id!r} is missing after the write"
            elif found < version:
                raise Fatal(
                    f"the table {self._statements.table} refused the row of document {id!r}",
                    where=self._target.name,
                    why=f"the write has version {version}, the table still has version {found}",
                    hint="syncer check",
                )
            else:
                self._target.stale(id, version, found, out)


def kind_of(error: Reject) -> str:
    """Returns the SQLSTATE of a rejection. All documents with the same fault have the same one."""
    return str(getattr(error.__cause__, "sqlstate", None) or "value")
