"""Reads the token of a transaction, inside it: `x:<id>@<system>/<timeline>`."""

from collections.abc import Mapping
from typing import Any

TRANSACTION = "SELECT 'x:' || pg_current_xact_id()::text"
MAY_READ = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"  # a refusal would abort the transaction
IDENTITY = """SELECT '@' || system_identifier || '/' ||
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int FROM pg_control_system()"""


def read_token(source: Any) -> str:
    """Returns the token. source: a DB-API connection or cursor in the transaction that writes.

    The part after the @ is left out if the role may not read it. Then a failover is not recognized.
    """
    cursor = source.cursor() if hasattr(source, "cursor") else source

    def value(statement: str) -> Any:
        cursor.execute(statement)
        return _first(cursor.fetchone())

    return str(value(TRANSACTION) + (value(IDENTITY) if value(MAY_READ) else ""))


async def read_token_async(source: Any) -> str:
    """Does the same with an asynchronous connection or cursor of psycopg."""
    cursor = source.cursor() if hasattr(source, "cursor") else source

    async def value(statement: str) -> Any:
        await cursor.execute(statement)
        return _first(await cursor.fetchone())

    return str(await value(TRANSACTION) + (await value(IDENTITY) if await value(MAY_READ) else ""))


def _first(row: Any) -> Any:
    return next(iter(row.values())) if isinstance(row, Mapping) else row[0]
