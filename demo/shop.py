"""Implements the shop, an ordinary CRUD program. It knows PostgreSQL and its tables, and nothing of the syncer.

python -m demo.shop --dsn postgresql://… --seconds 20 --rate 200
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import click
import psycopg

Connection = psycopg.Connection[Any]

_SEED = """
INSERT INTO customers (name, email, country, created_at)
SELECT (ARRAY['Ada','Grace','Edsger','Barbara','Donald','Frances','Ken','Radia'])[1 + i % 8] || ' '
       || (ARRAY['Ng','Silva','Müller','Okafor','Rossi','Tanaka','Novák','Haddad','Larsen'])[1 + i % 9],
       'customer' || i || '@example.org',
       (ARRAY['DE','NG','BR','JP','IT','CZ','NO','LB'])[1 + i % 8],
       timestamptz '2024-01-01 00:00+00' + i * interval '7 minutes'
  FROM generate_series(1, {customers}) i;

INSERT INTO products (sku, name, price)
SELECT 'SKU-' || to_char(i, 'FM0000'),
       (ARRAY['Oak','Steel','Linen','Glass','Cork','Brass','Wool'])[1 + i % 7] || ' '
       || (ARRAY['Lamp','Chair','Kettle','Shelf','Clock','Bowl','Blanket','Desk'])[1 + i % 8],
       round((5 + (i * 7919 % 40000) / 100.0)::numeric, 2)
  FROM generate_series(1, {products}) i;

INSERT INTO orders (customer_id, status, placed_at, note)
SELECT 1 + (i::bigint * 7919) % {customers},
       (ARRAY['draft','placed','paid','shipped','delivered','cancelled'])[1 + i % 6]::order_status,
       timestamptz '2025-01-01 00:00+00' + i * interval '9 minutes',
       CASE WHEN i % 11 = 0 THEN 'leave at the door' END
  FROM generate_series(1, {orders}) i;

INSERT INTO order_items (order_id, line, product_id, quantity, unit_price)
SELECT o.id, line, p.id, 1 + (o.id + line) % 4, p.price
  FROM orders o
 CROSS JOIN LATERAL generate_series(1, 1 + (o.id % 5)::int) line
  JOIN products p ON p.id = 1 + (o.id * 31 + line * 17) % {products};
ANALYZE;
"""


def seed(connection: Connection, *, customers: int, products: int, orders: int) -> None:
    """Fills empty tables with a few years of data."""
    for statement in _SEED.format(customers=customers, products=products, orders=orders).split(";\n"):
        if statement.strip():
            connection.execute(statement.encode())


class Shop:
    """Implements the actions of users. Every method is one transaction."""

    def __init__(self, connection: Connection, random_: random.Random) -> None:
        self.connection, self.random = connection, random_
        self.customers, self.products = (self._count(table) for table in ("customers", "products"))

    def place_order(self) -> None:
        with self.connection.transaction():
            (order,) = self._one(
                "INSERT INTO orders (customer_id, status) VALUES (%s, 'placed') RETURNING id",
                self.random.randint(1, self.customers),
            )
            for line in range(1, self.random.randint(2, 5)):
                self.connection.execute(
                    "INSERT INTO order_items SELECT %s, %s, id, %s, price FROM products WHERE id = %s",
                    (order, line, self.random.randint(1, 4), self.random.randint(1, self.products)),
                )

    def advance_order(self) -> None:
        self._run(
            "UPDATE orders SET status = CASE status WHEN 'draft' THEN 'placed' WHEN 'placed' THEN 'paid'"
            " WHEN 'paid' THEN 'shipped' ELSE 'delivered' END::order_status WHERE id = %s",
            self._order(),
        )

    def withdraw_order(self) -> None:
        self._run("UPDATE orders SET status = 'draft' WHERE id = %s", self._order())

    def delete_order(self) -> None:
        self._run("DELETE FROM orders WHERE id = %s", self._order())

    def change_quantity(self) -> None:
        self._run("UPDATE order_items SET quantity = 1 + quantity %% 4 WHERE order_id = %s", self._order())

    def hand_over_order(self) -> None:
        """Assigns an order to another customer, so that the summaries of both change."""
        customer = self.random.randint(1, self.customers)
        self._run("UPDATE orders SET customer_id = %s WHERE id = %s", customer, self._order())

    def rename_customer(self) -> None:
        name = f"{self.random.choice(['Ida', 'Tim', 'Leslie', 'Shafi'])} {self.random.randint(1, 999)}"
        self._run("UPDATE customers SET name = %s WHERE id = %s", name, self.random.randint(1, self.customers))

    def rename_product(self) -> None:
        product = self.random.randint(1, self.products)
        self._run(
            "UPDATE products SET name = split_part(name, ' №', 1) || ' №' || %s WHERE id = %s",
            self.random.randint(2, 99),
            product,
        )

    def change_mind(self) -> None:
        """Rolls a transaction back. No document may show it."""
        with self.connection.transaction():
            self.connection.execute("UPDATE orders SET note = 'never' WHERE id = %s", (self._order(),))
            raise psycopg.Rollback

    def _order(self) -> int:
        (top,) = self._one("SELECT max(id) FROM orders")
        return self.random.randint(1, int(top))

    def _count(self, table: str) -> int:
        (count,) = self._one(f"SELECT count(*) FROM {table}")
        return int(count)

    def _run(self, statement: str, *values: Any) -> None:
        self.connection.execute(statement.encode(), values)

    def _one(self, statement: str, *values: Any) -> tuple[Any, ...]:
        row = self.connection.execute(statement.encode(), values).fetchone()
        assert row is not None
        return tuple(row)


# Share of each action in percent.
MIX: dict[Callable[[Shop], None], int] = {
    Shop.place_order: 40,
    Shop.advance_order: 30,
    Shop.change_quantity: 10,
    Shop.rename_customer: 6,
    Shop.hand_over_order: 4,
    Shop.delete_order: 4,
    Shop.withdraw_order: 3,
    Shop.change_mind: 2,
    Shop.rename_product: 1,
}


@click.command()
@click.option("--dsn", required=True, help="DSN of the shop's database.")
@click.option("--seconds", default=20.0, show_default=True, help="Run time in seconds.")
@click.option("--rate", default=200.0, show_default=True, help="Transactions per second.")
@click.option("--seed", "seed_", default=0, show_default=True, help="Seed of the random choices.")
def main(dsn: str, seconds: float, rate: float, seed_: int) -> None:
    """Run transactions in the shop at a constant rate."""
    random_ = random.Random(seed_)
    actions, weights = list(MIX), list(MIX.values())
    with psycopg.connect(dsn, autocommit=True) as connection:
        shop = Shop(connection, random_)
        began, done = time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds:
            random_.choices(actions, weights)[0](shop)
            done += 1
            time.sleep(max(0.0, began + done / rate - now))
    click.echo(f"{done:,} transactions in {seconds:g} s")


if __name__ == "__main__":
    main()
