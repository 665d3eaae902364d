"""Finds the rows that recent transactions wrote, one range of pages after the other.

PostgreSQL keeps the id of the transaction (or sub-transaction) that wrote a row in its system column `xmin`. No index
covers it, so all pages of a table are read. `xmin` has 32 bits. `age` compares it with the next transaction id. So a
row that is older than 2^31 transactions may be found needlessly, and no recent row is missed.

A range of pages (`ctid`) takes less than a second. So each range can have a snapshot of its own, and locks are held
briefly. A row that moves to another page meanwhile was updated, and that update has an event. But VACUUM FULL moves
rows without an event: `PAGES` returns the files of the table, so that the caller can begin again if they change.
"""

from __future__ import annotations

from typing import LiteralString

from syncer.declaration.compile import Lookup
from syncer.declaration.names import quote
from syncer.declaration.parameters import PARAMETER, texts, with_placeholders
from syncer.events import TableName

PAGES: LiteralString = """
WITH RECURSIVE tree (oid) AS (
    SELECT c.oid
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = %s
    UNION
    SELECT inhrelid FROM tree JOIN pg_catalog.pg_inherits ON inhparent = tree.oid)
SELECT coalesce(string_agg(pg_catalog.pg_relation_filenode(oid)::text, ',' ORDER BY oid), ''), count(*)::bigint,
       coalesce(max(pg_catalog.pg_relation_size(oid)), 0) / pg_catalog.current_setting('block_size')::bigint + 1
  FROM tree
"""
"""Takes schema and name of a table. Returns the files of the table and its partitions, as text; their number; and the
number of pages of the largest one, plus one."""
_XID_SPAN = 1 << 32


def statement(table: TableName, lookup: Lookup) -> str:
    """Returns the statement that selects the link values of these rows, as text.

    It takes the result of `xid_text`, the first page of the range and the first page after it, each as `(page,0)`. Of a
    partitioned table, it reads these pages of every partition. For an array, each element is a result.
    """
    array = lookup.array
    values = ["element.v" if name == array else quote("r", name) for name in lookup.columns]
    rows = f"{quote(*table)} AS r"
    if array:
        rows += f" CROSS JOIN LATERAL pg_catalog.unnest({quote('r', array)}) AS element (v)"
    conditions = [
        f"pg_catalog.age(r.xmin) OPERATOR(pg_catalog.<=) pg_catalog.age({PARAMETER}::pg_catalog.xid)",
        f"r.ctid OPERATOR(pg_catalog.>=) {PARAMETER}::pg_catalog.tid",
        f"r.ctid OPERATOR(pg_catalog.<) {PARAMETER}::pg_catalog.tid",
    ]
    if not lookup.nulls:
        conditions += [f"{value} IS NOT NULL" for value in values]
    select = f"SELECT {texts(values)} FROM {rows} WHERE {' AND '.join(conditions)}"  # noqa: S608 - quoted names
    return with_placeholders(select)


def xid_text(xid: int) -> str:
    """Returns a 64-bit transaction id as the text of the type `xid`."""
    return str(xid % _XID_SPAN)
