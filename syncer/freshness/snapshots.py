"""Maps a token to a PostgreSQL snapshot that sees the token's commit. The snapshot's clock is the clock to reach.

    x:<xid8>    polls until PostgreSQL reports the transaction as committed, then takes a snapshot
    l:<lsn>     takes the next snapshot: the writer reads the position after its commit is visible
    now         takes the next snapshot

The status is read *before* the snapshot, in two statements. `pg_snapshot` does not list subtransactions, so a
snapshot seems to see the id of a running subtransaction. `pg_xact_status` knows subtransactions: it reports them as in
progress until their top-level transaction has ended. A later snapshot then sees the transaction.

PostgreSQL forgets the status of old transactions (`pg_xact_status` is NULL). Every new snapshot sees that they have
ended. It is not known any more whether such a transaction was aborted.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

import psycopg

from syncer.clock import Identity, Snapshot
from syncer.freshness.refused import Later, Refused
from syncer.freshness.tokens import Token, TokenKind, format_lsn
from syncer.pacing import Waiter
from syncer.postgres import head
from syncer.postgres.head import ABORTED, COMMITTED, FUTURE, IN_PROGRESS
from syncer.postgres.session import classify_error

_SNAPSHOT = f"SELECT {head.COLUMNS}"
_POLL = (0.001, 0.05)
"""Seconds between two polls: the first pause and the longest."""


class Observation(NamedTuple):
    """The facts that one poll read from PostgreSQL. The snapshot was taken after the status was read."""

    snapshot: Snapshot
    identity: Identity
    insert_lsn: int
    """The insert position of WAL, in bytes."""
    status: str = COMMITTED
    """Of the token's transaction. `committed` for tokens that name no transaction."""


def satisfies(token: Token, observed: Observation) -> bool:
    """Returns whether the snapshot sees the token's commit. False: the transaction is in progress, so poll again.

    Raises Refused for a token of another history (409), of an aborted transaction (409), or of a transaction or a
    position that this server has not reached (400).
    """
    token.require(observed.identity)
    if token.kind is TokenKind.NOW:
        return True
    if token.kind is TokenKind.POSITION:
        if token.value > observed.insert_lsn:
            raise _future(token, f"the insert position of WAL is {format_lsn(observed.insert_lsn)}")
        return True
    if observed.status == ABORTED:
        raise Refused(
            HTTPStatus.CONFLICT,
            "the transaction of the token was rolled back",
            where=f"token {token}",
            why=f"PostgreSQL reports transaction {token.value} as aborted",
            hint="no document will show it: write again",
        )
    if observed.status == FUTURE:
        raise _future(token, f"the next transaction id is {observed.snapshot.xmax} or a little higher")
    return observed.status != IN_PROGRESS and observed.snapshot.sees(token.value)


def observe(connection: psycopg.Connection[Any], token: Token) -> Observation:
    """Reads the facts about a token. The connection has to be in autocommit mode.

    Raises Retry when the server is unreachable or a standby.
    """
    status = COMMITTED
    try:
        if token.kind is TokenKind.TRANSACTION:
            status = head.status_of(connection, token.value)
        row: Any = connection.execute(_SNAPSHOT).fetchone()
    except psycopg.Error as error:
        raise classify_error(error, "cannot look for the token's commit", where=f"token {token}") from error
    return Observation(*head.read_head(row, f"token {token}"), status)


def await_snapshot(
    connection: psycopg.Connection[Any], token: Token, timeout: float, wait: Waiter | None = None
) -> Observation:
    """Polls until a snapshot sees the token's commit. Returns the facts of that poll.

    Every snapshot that is taken later on the same server sees the commit, too.
    timeout: seconds.
    wait: raises Stopped when the caller has to stop.
    Raises Refused as `satisfies` does, and Later (504) if the transaction is still in progress after the timeout.
    """
    wait = wait or Waiter()
    deadline, back_off = wait.time.monotonic() + timeout, wait.back_off(*_POLL)
    while not satisfies(token, observed := observe(connection, token)):
        if wait.time.monotonic() >= deadline:
            raise Later(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"the transaction of the token has not been committed within {timeout:g} s",
                where=f"token {token}",
                why=f"PostgreSQL reports transaction {token.value} as {observed.status}",
                hint="send the request after the commit; a synchronous standby that does not answer also delays it",
            )
        back_off()
    return observed


def _future(token: Token, why: str) -> Refused:
    return Refused(
        HTTPStatus.BAD_REQUEST,
        "the token names a commit that this PostgreSQL server has not reached",
        where=f"token {token}",
        why=why,
        hint="the token may be of another server: the daemon detects this if the token ends with"
        " @<system identifier>/<timeline>",
    )
