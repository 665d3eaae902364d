"""Reads a result in chunks, so that an unexpectedly large one never fills memory.

psycopg's `Cursor.stream` does this too, but it cannot prepare a statement. To plan a render statement takes as long as
to render a small batch, so render statements are prepared.
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

_CHUNK_ROWS = 100
"""Rows in a chunk: few enough to need little memory, many enough to cost no throughput."""
_CHUNK = (pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.SINGLE_TUPLE)
_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_PLACEHOLDER = re.compile("%[%s]")


class ChunkedQuery:
    """Runs statements on one connection and yields their results in chunks.

    The caller must read a result to its end, or close the generator, before it runs another statement.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._prepared: dict[str, bytes] = {}

    def __call__(
        self, statement: str, parameters: Sequence[Any], *, prepare: bool
    ) -> Generator[pq.abc.PGresult, None, None]:
        """Yields the result in chunks. Closing the generator early cancels the statement; then the caller must roll
        back to a savepoint.

        statement: with psycopg's placeholders.
        prepare: whether to prepare the statement and use its plan again.
        Raises psycopg.Error.
        """
        connection, pgconn = self.connection, self.connection.pgconn
        transformer = Transformer(connection)
        values = transformer.dump_sequence(parameters, [PyFormat.TEXT] * len(parameters))
        if prepare:
            name = self._prepare(statement)
            pgconn.send_query_prepared(name, values, transformer.formats)
        else:
            types = transformer.types or ()
            pgconn.send_query_params(numbered(statement), values, types, transformer.formats)
        pgconn.set_chunked_rows_mode(_CHUNK_ROWS)
        connection.wait(generators.send(pgconn))
        failed: psycopg.Error | None = None
        try:
            while (result := connection.wait(generators.fetch(pgconn))) is not None:
                if result.status in _CHUNK:
                    yield result
                elif result.status not in _DONE:
                    failed = error_from_result(result, "utf-8")
        except GeneratorExit:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=5)  # if this fails, the loop below reads the result to its end
            while connection.wait(generators.fetch(pgconn)) is not None:
                pass
            raise
        if failed is not None:
            raise failed

    def run(self, command: bytes) -> None:
        """Runs a command that returns no rows. psycopg itself would deallocate all prepared statements after a
        ROLLBACK."""
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
    """Replaces psycopg's placeholders with PostgreSQL's: `%s` becomes `$1`, `%%` becomes `%`."""
    numbers = count(1)
    return _PLACEHOLDER.sub(lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", statement).encode()
