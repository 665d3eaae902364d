"""Writes the statements that render partials and list their keys, in the form of `Compiled`."""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from collections.abc import Sequence

from syncer.declaration.binding import Node
from syncer.declaration.names import quote
from syncer.declaration.parameters import PARAMETER, arrays, document_id, row, texts, with_placeholders
from syncer.declaration.partial_keys import BUCKET, HIDDEN, HIGH, LOW, ROOT, buckets_of, division
from syncer.declaration.render_sql import Document
from syncer.declaration.sql_types import key_type


def statements(root: Node, node: Node, document: Document, bucket: str) -> dict[str, str]:
    """Returns the statements by their names in `Compiled`.

    node: the divided relation. document: of the root partial. bucket: SELECT of the state of one bucket.
    """
    return _Statements(root, node).all(document, bucket)


class _Statements:
    def __init__(self, root: Node, node: Node) -> None:
        self._root, self._node = root, node

    def all(self, document: Document, bucket: str) -> dict[str, str]:
        root, of = self._root, buckets_of(self._node)
        key = root.table.primary_key
        types = [key_type(c.type, c.base) for c in map(root.table.columns.__getitem__, key)] + ["pg_catalog.int8"]
        ks = [f"k{n}" for n in range(len(key))]
        asked = [*(f"k.{k}" for k in ks), "k.b"]
        names = ", ".join(f"v{n}" for n in range(len(types)))
        values = ", ".join(f"v{n}::{type} AS {k}" for n, (type, k) in enumerate(zip(types, [*ks, "b"], strict=True)))
        given = f"ROWS FROM ({arrays(len(types))})"
        found = " AND ".join(f"{document.row}.{quote(c)} = k.{k}" for c, k in zip(key, ks, strict=True))
        own = ", ".join(f"k.{k} AS {quote(c)}" for c, k in zip(key, ks, strict=True))
        low, high = of.low("k.b"), of.high("k.b")
        id, there = document_id(asked), f"{document.row}.{quote(key[0])} IS NOT NULL"
        both = (
            f"SELECT {id} AS asked, CASE WHEN {there} THEN {id} END AS id, "
            f"CASE WHEN {there} THEN coalesce(x.doc, '{HIDDEN}') END AS doc "
            f"FROM k LEFT JOIN {quote(*root.table.name)} {document.row} ON {found} "
            f"LEFT JOIN LATERAL ({document.sql}) x ON true WHERE k.b = {ROOT} "
            f"UNION ALL SELECT {document_id([f't0.{quote(c)}' for c in key] + [f't0.{BUCKET}'])} AS asked, "
            f"{document_id([f't0.{quote(c)}' for c in key] + [f't0.{BUCKET}'])} AS id, x.doc "
            f"FROM (SELECT {own}, k.b AS {BUCKET}, {low} AS {LOW}, {high} AS {HIGH} FROM k WHERE k.b <> {ROOT}) t0 "
            f"CROSS JOIN LATERAL ({bucket}) x"
        )
        listed = ", ".join([*ks, "b"])
        pairs = self._pairs("")
        high_pairs, both_pairs = self._within(types, low=False), self._within(types, low=True)
        numbered = f"{listed}, pg_catalog.row_number() OVER w AS n, pg_catalog.lead(b) OVER w IS NULL AS ends"
        written = ", ".join(f"v{n}::{type}::pg_catalog.text" for n, type in enumerate(types))
        statements = {
            "render": f"WITH k AS MATERIALIZED (SELECT {values} FROM {given} AS u({names})) {both}",
            "render_between": f"{both_pairs} {both}",
            "render_upto": f"{high_pairs} {both}",
            "boundaries": f"SELECT {texts([*ks, 'b'])} FROM (SELECT {numbered} FROM ({pairs}) p "
            f"WINDOW w AS (ORDER BY {listed})) k WHERE k.n % {PARAMETER}::pg_catalog.int8 = 0 OR k.ends "
            f"ORDER BY {', '.join(asked)}",
            "canonical_keys": f"SELECT {written} FROM {given} WITH ORDINALITY AS u({names}, n) ORDER BY u.n",
            "keys_between": f"{both_pairs} SELECT {texts(asked)} FROM k ORDER BY {', '.join(asked)}",
            "keys_upto": f"{high_pairs} SELECT {texts(asked)} FROM k ORDER BY {', '.join(asked)}",
            "first_keys": f"SELECT {texts(asked)} FROM ({pairs}) k ORDER BY {', '.join(asked)} "
            f"LIMIT {PARAMETER}::pg_catalog.int8",
        }
        return {name: with_placeholders(sql) for name, sql in statements.items()}

    def _pairs(self, condition: str) -> str:
        """Returns the keys of all partials that have rows in PostgreSQL, and of all root partials.

        condition: over the root row `r`.
        """
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

    def _within(self, types: Sequence[str], *, low: bool) -> str:
        """Returns WITH: the bounds, which are parameters, and the keys `k` within them."""
        ends = ["l", "h"] if low else ["h"]
        given = [f"{PARAMETER}::pg_catalog.text::{type} AS {end}{n}" for end in ends for n, type in enumerate(types)]
        last = len(types) - 1
        own = [f"r.{quote(c)}" for c in self._root.table.primary_key]

        def bound(end: str, count: int) -> str:
            return ", ".join(f"(SELECT {end}{n} FROM bounds)" for n in range(count))

        conditions = [f"{row(own)} <= ({bound('h', last)})"]
        listed = row([*(f"p.k{n}" for n in range(last)), "p.b"])
        exact = [f"{listed} <= ({bound('h', last + 1)})"]
        if low:
            conditions.append(f"{row(own)} >= ({bound('l', last)})")
            exact.append(f"{listed} > ({bound('l', last + 1)})")
        return (
            f"WITH bounds AS MATERIALIZED (SELECT {', '.join(given)}), k AS MATERIALIZED "
            f"(SELECT p.* FROM ({self._pairs(' AND '.join(conditions))}) p WHERE {' AND '.join(exact)})"
        )
