"""The order history of a user: pages of 20 orders, newest first, from a table; the latest orders from Redis.

A page is found by its last row (keyset pagination). `OFFSET` would read all rows before it, and skip or repeat orders
when a new one arrives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import orjson
import psycopg
import redis

from demo import place, screen
from demo.examples import Example, Servers, expect_equal
from demo.running import use_shop

PAGE = 20
_SHOWN = 3
EXPECTED = """
SELECT o.id, o.placed_at, o.status::text, sum(i.quantity * i.unit_price), count(*),
       (array_agg(p.name ORDER BY i.line))[1]
  FROM orders o JOIN order_items i ON i.order_id = o.id JOIN products p ON p.id = i.product_id
 WHERE o.customer_id = %s AND o.status <> 'draft'
 GROUP BY o.id ORDER BY o.placed_at DESC, o.id DESC"""
_BUSIEST = "SELECT customer_id FROM orders WHERE status <> 'draft' GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"
_COLUMNS = "order_id, placed_at, status, total, item_count, first_item_name"
FIRST = f"""
SELECT {_COLUMNS} FROM read.user_order_summaries
 WHERE user_id = %(user)s
 ORDER BY placed_at DESC, order_id DESC LIMIT {PAGE}"""
NEXT = f"""
SELECT {_COLUMNS} FROM read.user_order_summaries
 WHERE user_id = %(user)s AND (placed_at, order_id) < (%(placed_at)s, %(order_id)s)
 ORDER BY placed_at DESC, order_id DESC LIMIT {PAGE}"""


class Order(NamedTuple):
    """A row of the page."""

    order_id: int
    placed_at: datetime
    status: str
    total: Decimal | None
    item_count: int
    first_item_name: str | None


def page(connection: psycopg.Connection[Any], user: int, after: Order | None = None) -> list[Order]:
    """Returns the page after an order, or the first one. It is the last page if it has fewer than `PAGE` orders."""
    values = {"user": user} | (after._asdict() if after else {})
    return [Order(*row) for row in connection.execute((NEXT if after else FIRST).encode(), values)]


def pages(connection: psycopg.Connection[Any], user: int) -> Iterator[list[Order]]:
    """Yields all pages of a user."""
    found = page(connection, user)
    while found:
        yield found
        found = page(connection, user, found[-1])


def _show(servers: Servers) -> None:
    with (
        psycopg.connect(place.reads_dsn(servers.stack), autocommit=True) as application,
        psycopg.connect(servers.dsn, autocommit=True) as shop,
    ):
        [(user,)] = shop.execute(_BUSIEST).fetchall()
        screen.note(f"the first page of user {user}")
        screen.command(FIRST.strip())
        found = list(pages(application, user))
        screen.show(_json(found[0][:_SHOWN]))
        screen.note("the next page begins after the last row, so no new order shifts it")
        screen.command(NEXT.strip())
        screen.show(_json(found[1][:_SHOWN] if len(found) > 1 else []))
        expected = [Order(*row) for row in shop.execute(EXPECTED, [user])]
    orders = [order for page in found for order in page]
    expect_equal(f"all {len(expected)} orders on {len(found)} pages", _json(orders), _json(expected))
    _show_latest(servers.stack.redis, user, expected)


def _show_latest(url: str, user: int, expected: Sequence[Order]) -> None:
    screen.note("the start page shows the latest orders: one value in Redis")
    key = f"user:{user}:orders"
    screen.command(f"redis-cli -u {url} GET {key}")
    with redis.from_url(url) as client:
        latest = orjson.loads(client.get(key) or b'{"orders": []}')["orders"]
    screen.show(latest)
    found = [(order["order_id"], order["status"]) for order in latest]
    expect_equal("the latest orders", found, [(order.order_id, order.status) for order in expected[:5]])


def _json(orders: Sequence[Order]) -> list[dict[str, Any]]:
    """Returns orders as JSON: times and totals as texts."""
    return [order._asdict() | {"placed_at": order.placed_at.isoformat(), "total": str(order.total)} for order in orders]


EXAMPLE = Example(
    "order_history",
    "pages of a table in PostgreSQL, and the latest orders in Redis",
    use_shop,
    _show,
    stores=place.make_reads,
)
