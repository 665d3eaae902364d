"""Writes the statements that render partials and list their keys, in the form of `Compiled`."""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from syncer.declaration.binding import Node
from syncer.declaration.group_sql import beyond
from syncer.declaration.groups import Grouping
from syncer.declaration.names import quote
from syncer.declaration.parameters import PARAMETER, arrays, document_id, row, texts, with_placeholders
from syncer.declaration.partial_keys import BUCKET, HIDDEN, HIGH, LOW, ROOT, buckets_of, division
from syncer.declaration.render_sql import Document
from syncer.declaration.sql_types import key_type


class Statements(ABC):
    """Writes statements over the FROM item `k`: the keys of partials, with the columns k0, k1, … and b, the bucket.

    node: of the divided rows. document: of the root partial. bucket: SELECT of the states of one bucket.
    types: of the document's key.
    """

    def __init__(self, root: Node, node: Node, document: Document, bucket: str, types: Sequence[str]) -> None:
        self._root, self._node, self._document, self._bucket = root, node, document, bucket
        self._keys = [f"k{n}" for n in range(len(types))]
        self._types = [*types, "pg_catalog.int8"]

    def all(self) -> dict[str, str]:
        """Returns the statements by their names in `Compiled`."""
        ks, types = [*self._keys, "b"], self._types
        asked, listed = ", ".join(f"k.{k}" for k in ks), ", ".join(ks)
        names = ", ".join(f"v{n}" for n in range(len(types)))
        values = ", ".join(f"v{n}::{type} AS {k}" for n, (type, k) in enumerate(zip(types, ks, strict=True)))
        given = f"ROWS FROM ({arrays(len(types))})"
        rendered, pairs = self._rendered(), self._pairs("")
        upto, between = self._within(low=False), self._within(low=True)
        numbered = f"{listed}, pg_catalog.row_number() OVER w AS n, pg_catalog.lead(b) OVER w IS NULL AS ends"
        written = ", ".join(f"v{n}::{type}::pg_catalog.text" for n, type in enumerate(types))
        shown = f"SELECT {texts(f'k.{k}' for k in ks)} FROM"
        statements = {
            "render": f"WITH k AS MATERIALIZED (SELECT {values} FROM {given} AS u({names})) {rendered}",
            "render_between": f"{between} {rendered}",
            "render_upto": f"{upto} {rendered}",
            "boundaries": f"{shown} (SELECT {numbered} FROM ({pairs}) p WINDOW w AS (ORDER BY {listed})) k"
            f" WHERE k.n % {PARAMETER}::pg_catalog.int8 = 0 OR k.ends ORDER BY {asked}",
            "canonical_keys": f"SELECT {written} FROM {given} WITH ORDINALITY AS u({names}, n) ORDER BY u.n",
            "keys_between": f"{between} {shown} k ORDER BY {asked}",
            "keys_upto": f"{upto} {shown} k ORDER BY {asked}",
            "first_keys": f"{shown} ({pairs}) k ORDER BY {asked} LIMIT {PARAMETER}::pg_catalog.int8",
        }
        return {name: with_placeholders(sql) for name, sql in statements.items()}

    @abstractmethod
    def _rendered(self) -> str:
        """Returns the SELECT that renders the partials `k`."""

    @abstractmethod
    def _pairs(self, condition: str) -> str:
        """Returns the keys of all partials that have rows in PostgreSQL, and of the root partials.

        condition: over the row `r` that has the key.
        """

    @abstractmethod
    def _beyond(self, values: Sequence[str], comparison: str) -> list[str]:
        """Returns the conditions that compare the key of the row `r` with a key. comparison: `>=` or `<=`."""

    def _within(self, *, low: bool) -> str:
        """Returns WITH: the bounds, which are parameters, and the keys `k` within them."""
        ends = ["l", "h"] if low else ["h"]
        given = [
            f"{PARAMETER}::pg_catalog.text::{type} AS {end}{n}" for end in ends for n, type in enumerate(self._types)
        ]

        def bound(end: str) -> list[str]:
            return [f"(SELECT {end}{n} FROM bounds)" for n in range(len(self._types))]

        listed = row(f"p.{k}" for k in (*self._keys, "b"))
        conditions, exact = self._beyond(bound("h")[:-1], "<="), [f"{listed} <= {row(bound('h'))}"]
        if low:
            conditions += self._beyond(bound("l")[:-1], ">=")
            exact.append(f"{listed} > {row(bound('l'))}")
        return (
            f"WITH bounds AS MATERIALIZED (SELECT {', '.join(given)}), k AS MATERIALIZED "
            f"(SELECT p.* FROM ({self._pairs(' AND '.join(conditions))}) p WHERE {' AND '.join(exact)})"
        )

    def _bounds(self) -> str:
        """Returns the lowest and the highest value of the bucket, as columns."""
        of = buckets_of(self._node)
        return f"{of.low('k.b')} AS {LOW}, {of.high('k.b')} AS {HIGH}"


class RelationStatements(Statements):
    """Writes the statements of a read model with a divided relation."""

    def __init__(self, root: Node, node: Node, document: Document, bucket: str) -> None:
        columns = map(root.table.columns.__getitem__, root.table.primary_key)
        super().__init__(root, node, document, bucket, [key_type(c.type, c.base) for c in columns])

    def _rendered(self) -> str:
        root, document = self._root, self._document
        pairs = list(zip(root.table.primary_key, self._keys, strict=True))
        found = " AND ".join(f"{document.row}.{quote(c)} = k.{k}" for c, k in pairs)
        own = ", ".join(f"k.{k} AS {quote(c)}" for c, k in pairs)
        id = document_id([*(f"k.{k}" for k in self._keys), "k.b"])
        there = f"{document.row}.{quote(pairs[0][0])} IS NOT NULL"
        bucket = document_id([*(f"t0.{quote(c)}" for c, _ in pairs), f"t0.{BUCKET}"])
        return (
            f"SELECT {id} AS asked, CASE WHEN {there} THEN {id} END AS id, "
            f"CASE WHEN {there} THEN coalesce(x.doc, '{HIDDEN}') END AS doc "
            f"FROM k LEFT JOIN {quote(*root.table.name)} {document.row} ON {found} "
            f"LEFT JOIN LATERAL ({document.sql}) x ON true WHERE k.b = {ROOT} "
            f"UNION ALL SELECT {bucket} AS asked, {bucket} AS id, x.doc "
            f"FROM (SELECT {own}, k.b AS {BUCKET}, {self._bounds()} FROM k WHERE k.b <> {ROOT}) t0 "
            f"CROSS JOIN LATERAL ({self._bucket}) x"
        )

    def _pairs(self, condition: str) -> str:
        root, node = self._root, self._node
        key = [f"r.{quote(c)} AS k{n}" for n, c in enumerate(root.table.primary_key)]
        linked = " AND ".join(f"c.{quote(own)} = r.{quote(theirs)}" for own, theirs in node.on)
        by = buckets_of(node).number(f"c.{quote(division(node).by)}")
        buckets = f"(SELECT DISTINCT {by} AS b FROM {quote(*node.table.name)} c WHERE {linked}) d"
        where = f" WHERE {condition}" if condition else ""
        return (
            f"SELECT {', '.join(key)}, {ROOT}::pg_catalog.int8 AS b FROM {quote(*root.table.name)} r{where} UNION ALL "
            f"SELECT {', '.join(key)}, d.b FROM {quote(*root.table.name)} r CROSS JOIN LATERAL {buckets}{where}"
        )

    def _beyond(self, values: Sequence[str], comparison: str) -> list[str]:
        return [f"{row(f'r.{quote(c)}' for c in self._root.table.primary_key)} {comparison} {row(values)}"]


class GroupStatements(Statements):
    """Writes the statements of a grouped root whose groups are divided."""

    def __init__(self, root: Node, grouping: Grouping, document: Document, bucket: str) -> None:
        super().__init__(root, root, document, bucket, [key.type for key in grouping.keys])
        self._grouping = grouping

    def _rendered(self) -> str:
        id = document_id([*(f"k.{k}" for k in self._keys), "k.b"])
        return (
            f"SELECT {id} AS asked, CASE WHEN x.doc IS NOT NULL THEN {id} END AS id, x.doc "
            f"FROM k LEFT JOIN LATERAL ({self._document.sql}) x ON true WHERE k.b = {ROOT} "
            f"UNION ALL SELECT {id} AS asked, {id} AS id, x.doc "
            f"FROM (SELECT k.*, {self._bounds()} FROM k WHERE k.b <> {ROOT}) k CROSS JOIN LATERAL ({self._bucket}) x"
        )

    def _pairs(self, condition: str) -> str:
        listed = ", ".join(f"{sql} AS {k}" for sql, k in zip(self._grouping.sql("r"), self._keys, strict=True))
        number = buckets_of(self._node).number(f"r.{quote(division(self._node).by)}")
        where = " AND ".join(filter(None, (self._grouping.present("r"), condition)))
        keys = ", ".join(self._keys)
        return (
            f"WITH d AS MATERIALIZED (SELECT DISTINCT {listed}, {number} AS b FROM {quote(*self._root.table.name)} r "
            f"WHERE {where}) SELECT {keys}, b FROM d UNION ALL SELECT DISTINCT {keys}, {ROOT}::pg_catalog.int8 FROM d"
        )

    def _beyond(self, values: Sequence[str], comparison: str) -> list[str]:
        return beyond(self._grouping, values, comparison)
