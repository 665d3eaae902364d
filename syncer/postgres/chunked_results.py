"""A statement's answer in parts, so that one larger than expected is never in memory as a whole.

psycopg's `Cursor.stream` does this, too, but cannot prepare a statement, and planning one that renders
takes as long as a small batch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Sequence
from itertools import count
from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result

_ROWS = 100  # a part: few enough to be small, enough to cost nothing
_PART = (pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.SINGLE_TUPLE)
_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_PLACE = re.compile("%[%s]")


class Streamed:
    """Over one connection, on which nothing else is asked until an answer has been read to its end."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._prepared: dict[str, bytes] = {}

    def __call__(
        self, statement: str, parameters: Sequence[Any], *, prepare: bool
    ) -> Generator[pq.abc.PGresult, None, None]:
        """statement: with psycopg's placeholders. Closed before its end, the rest is cancelled, and with it
        whatever was done since the last savepoint. Raises psycopg.Error."""
        connection, pgconn = self.connection, self.connection.pgconn
        transformer = Transformer(connection)
        values = transformer.dump_sequence(parameters, [PyFormat.TEXT] * len(parameters))
        if prepare:
            name = self._prepare(statement)
            pgconn.send_query_prepared(name, values, transformer.formats)
        else:
            types = transformer.types or ()
            pgconn.send_query_params(numbered(statement), values, types, transformer.formats)
        pgconn.set_chunked_rows_mode(_ROWS)
        connection.wait(generators.send(pgconn))
        failed: psycopg.Error | None = None
        try:
            while (result := connection.wait(generators.fetch(pgconn))) is not None:
                if result.status in _PART:
                    yield result
                elif result.status not in _DONE:
                    failed = error_from_result(result, "utf-8")
        except GeneratorExit:
            with contextlib.suppress(psycopg.Error):  # then it goes on to its end
                connection.cancel_safe(timeout=5)
            while connection.wait(generators.fetch(pgconn)) is not None:
                pass
            raise
        if failed is not None:
            raise failed

    def run(self, command: bytes) -> None:
        """A command without an answer. Run by psycopg, a ROLLBACK deallocates every prepared statement."""
        result = self.connection.pgconn.exec_(command)
        if result.status not in _DONE:
            raise error_from_result(result, "utf-8")

    def _prepare(self, statement: str) -> bytes:
        name = self._prepared.get(statement)
        if name is None:
            name = f"syncer_{len(self._prepared)}".encode()
            result = self.connection.pgconn.prepare(name, numbered(statement))
            if result.status not in _DONE:
                raise error_from_result(result, "utf-8")
            self._prepared[statement] = name
        return name


def numbered(statement: str) -> bytes:
    """With PostgreSQL's placeholders, `$1`."""
    numbers = count(1)
    return _PLACE.sub(lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", statement).encode()
