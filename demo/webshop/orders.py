"""The write side: places orders in PostgreSQL, and reads them there if the read models are behind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from syncer.client import read_token_async

_ORDER = """
SELECT o.id AS order_id, o.status::text, o.placed_at, o.note,
       json_build_object('id', c.id, 'name', c.name) AS customer,
       coalesce(sum(i.quantity * i.unit_price), 0)::float8 AS total,
       (array_agg(p.name ORDER BY i.line))[1] AS first_item_name,
       coalesce(json_agg(json_build_object('quantity', i.quantity, 'line_total', i.quantity * i.unit_price,
                'product', json_build_object('name', p.name)) ORDER BY i.line)
                FILTER (WHERE i.line IS NOT NULL), '[]') AS items
  FROM orders o
  JOIN customers c ON c.id = o.customer_id
  LEFT JOIN order_items i ON i.order_id = o.id
  LEFT JOIN products p ON p.id = i.product_id
 WHERE o.status <> 'draft' AND {condition}
 GROUP BY o.id, c.id
 ORDER BY o.placed_at DESC, o.id DESC
 LIMIT %(limit)s"""
_KEY = "o.id = %(id)s"
_CUSTOMER = "c.id = %(id)s"
_PAGE = "(date_trunc('milliseconds', o.placed_at), o.id) < (%(before)s, %(id)s)"


class Orders:
    """The shop's tables. dsn: of the shop's database."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def place(self, customer: int, products: Mapping[int, int], note: str) -> tuple[int, str]:
        """Places an order in one transaction. products: id → quantity. Returns the order's id and the token."""
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            cursor = await connection.execute(
                "INSERT INTO orders (customer_id, status, note) VALUES (%s, 'placed', %s) RETURNING id",
                (customer, note or None),
            )
            [order] = await cursor.fetchone() or (0,)
            for line, (product, quantity) in enumerate(products.items(), 1):
                await connection.execute(
                    "INSERT INTO order_items SELECT %s, %s, id, %s, price FROM products WHERE id = %s",
                    (order, line, quantity, product),
                )
            token = await read_token_async(connection)
        return order, token  # after the commit

    async def products(self) -> list[dict[str, Any]]:
        """Returns some products."""
        return await self._query("SELECT id, name, price::float8 FROM products ORDER BY id LIMIT 12")

    async def customer(self, customer: int) -> dict[str, Any] | None:
        """Returns a customer with the last orders, in the form of the summary, but without its totals."""
        found = await self._query("SELECT id, name FROM customers WHERE id = %(id)s", {"id": customer})
        recent = await self._query(_ORDER.format(condition=_CUSTOMER), {"id": customer, "limit": 20})
        return found[0] | {"recent_orders": recent} if found else None

    async def order(self, order: int) -> dict[str, Any] | None:
        """Returns an order in the form of its document: the query that the read model saves."""
        found = await self._query(_ORDER.format(condition=_KEY), {"id": order, "limit": 1})
        return found[0] if found else None

    async def page(self, before: datetime, order: int, size: int) -> list[dict[str, Any]]:
        """Returns the orders that follow this position, newest first."""
        values = {"before": before, "id": order, "limit": size}
        return await self._query(_ORDER.format(condition=_PAGE), values)

    async def _query(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        async with await psycopg.AsyncConnection.connect(self._dsn, options="-c timezone=UTC") as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return await (await cursor.execute(statement.encode(), values)).fetchall()
