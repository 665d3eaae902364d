"""Reads `checks.table_state.TableState` from the system catalogs, with the query of `catalog_rows.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from syncer.checks.table_state import FORM, ColumnState, LeafState, RelationState, TableState, TypeState
from syncer.events import TableName
from syncer.postgres.catalog_rows import CatalogRow, rows_query

_FILLED: LiteralString = """
SELECT oid::text FROM unnest(%s::text[]::oid[]) AS leaf (oid) WHERE pg_catalog.pg_relation_size(oid) > 0
"""


class _Rows:
    """The rows of the query, by kind and relation."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows: dict[str, dict[int, list[CatalogRow]]] = defaultdict(lambda: defaultdict(list))
        for row in map(CatalogRow._make, rows):
            self._rows[row.kind][row.relation].append(row)

    def all(self, kind: str) -> Iterator[CatalogRow]:
        """Yields the rows of one kind."""
        yield from chain.from_iterable(self._rows[kind].values())

    def of(self, kind: str, relation: int) -> list[CatalogRow]:
        """Returns the rows of one kind and relation, ordered by id."""
        return sorted(self._rows[kind].get(relation, ()), key=lambda row: row.id)


def read(
    connection: psycopg.Connection[Any], used: Mapping[TableName, Collection[str]], publication: str
) -> TableState:
    """Returns the state of these tables, without missing tables and columns.

    used: the columns that the read model uses, by table.
    publication: its name; empty if it is not known.
    Raises psycopg.Error.
    """
    query = rows_query(schemas=connection.info.server_version >= 150000)
    names = sorted(used)
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = _Rows(cursor.execute(query, ([t.schema for t in names], [t.name for t in names], publication)))
    tables: dict[str, RelationState] = {}
    types: set[int] = set()
    for row in rows.all("table"):
        table = TableName(row.detail["schema"], row.detail["name"])
        columns = _columns(rows, row.relation, used[table])
        types |= {column["type"] for column in columns.values()}
        tables[str(table)] = {
            "oid": row.relation,
            "name_version": row.version,
            "file": row.detail["file"],
            "columns": columns,
            "publication": _publication(rows, row.relation),
            "identity": _versions(rows.of("identity", row.relation)),
            "leaves": _leaves(rows, row.relation),
        }
    return {"form": FORM, "tables": tables, "labels": _labels(rows, types)}


def filled(connection: psycopg.Connection[Any], state: TableState) -> set[str]:
    """Returns the oids of the partitions that have held a row since they were created or last truncated."""
    leaves = [leaf for table in state["tables"].values() for leaf in table["leaves"]]
    return {oid for (oid,) in connection.execute(_FILLED, (leaves,)).fetchall()}


def _columns(rows: _Rows, relation: int, used: Collection[str]) -> dict[str, ColumnState]:
    return {
        row.detail["name"]: {
            "number": row.id,
            "type": row.detail["type"],
            "modifier": row.detail["modifier"],
            "type_name": row.detail["type_name"],
            "version": row.version,
            "other": row.detail["other"],
        }
        for row in rows.of("column", relation)
        if row.detail["name"] in used
    }


def _publication(rows: _Rows, relation: int) -> str:
    members = [*rows.of("member", relation), *rows.of("schema member", relation)]
    published = [row for row in rows.all("publication") if members or row.detail["all_tables"]]
    return _versions([*published, *members])


def _versions(rows: Iterable[CatalogRow]) -> str:
    return " ".join(f"{row.id} {row.version}" for row in rows)


def _leaves(rows: _Rows, relation: int) -> dict[str, LeafState]:
    return {
        str(row.id): {
            "file": row.detail["file"],
            "links": row.version,
            "identity": _versions(rows.of("partition identity", row.id)),
        }
        for row in rows.of("partition", relation)
    }


def _labels(rows: _Rows, types: Iterable[int]) -> dict[str, TypeState]:
    """Returns the labels of enums and the attributes of composite types, of these types and the types inside them."""
    found: dict[str, TypeState] = {}
    seen: set[int] = set()
    left = list(types)
    while left:
        if (oid := left.pop()) in seen:
            continue
        seen.add(oid)
        attributes = rows.of("attribute", oid)
        left += [inner for row in rows.of("type", oid) for inner in row.detail["inner"]]
        left += [row.detail["type"] for row in attributes]
        for row in rows.of("label", oid):
            found[str(row.id)] = {"text": row.detail["text"], "version": row.version}
        if attributes:
            text = ",".join(row.detail["text"] for row in attributes)
            found[str(oid)] = {"text": text, "version": " ".join(row.version for row in attributes)}
    return found
