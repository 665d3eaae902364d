"""Order analytics: every version of the orders in a Delta table, and queries of an analyst in DuckDB."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from demo import screen
from demo.examples import ROOT, Example, Servers, expect_equal
from demo.lake import Lake
from demo.running import use_shop
from demo.screen import syncer

_VIEWS = (ROOT / "readmodels" / "order_analytics" / "views.sql").read_text("utf-8")

_REVENUE = """
    SELECT country, count(*) AS orders, CAST(sum(total) AS decimal(38, 2)) AS revenue
      FROM orders WHERE status NOT IN ('draft', 'cancelled')
     GROUP BY country ORDER BY country
"""
_REVENUE_IN_POSTGRESQL = """
    SELECT c.country, count(DISTINCT o.id) AS orders, sum(i.quantity * i.unit_price)::decimal(38, 2) AS revenue
      FROM orders o JOIN customers c ON c.id = o.customer_id LEFT JOIN order_items i ON i.order_id = o.id
     WHERE o.status NOT IN ('draft', 'cancelled')
     GROUP BY c.country ORDER BY c.country
"""
_PRODUCTS = """
    SELECT CAST(item ->> 'product_id' AS bigint) AS product_id,
           CAST(sum(CAST(item ->> 'quantity' AS bigint)) AS bigint) AS sold
      FROM (SELECT unnest(from_json(items, '["JSON"]')) AS item FROM orders) AS lines
     GROUP BY 1 ORDER BY sold DESC, product_id LIMIT 5
"""
_PRODUCTS_IN_POSTGRESQL = """
    SELECT product_id, sum(quantity)::bigint AS sold
      FROM order_items GROUP BY product_id ORDER BY sold DESC, product_id LIMIT 5
"""
_STEPS = """
    SELECT before AS status, now AS next, count(*) AS times
      FROM (SELECT _deleted, status, lag(status) OVER version AS before,
                   CASE WHEN _deleted THEN '(deleted)' ELSE status END AS now
              FROM order_changes WINDOW version AS (PARTITION BY _id ORDER BY _version)) AS steps
     WHERE before IS DISTINCT FROM now AND NOT (before IS NULL AND _deleted)
     GROUP BY ALL ORDER BY before NULLS FIRST, now
"""
_STATUSES_IN_POSTGRESQL = "SELECT status::text, count(*) AS orders FROM orders GROUP BY status ORDER BY status::text"


def _show(servers: Servers) -> None:
    with tempfile.TemporaryDirectory(prefix="syncer-lake-") as folder:
        syncer("export", "order_versions", "--to", folder, "--until-caught-up")
        lake = Lake(folder, _VIEWS)
        _query(lake, "the revenue by country, from the newest version of each order", _REVENUE, _plain)
        expect_equal("revenue", _plain(lake.rows(_REVENUE)), _plain(servers.rows(_REVENUE_IN_POSTGRESQL)))
        _query(lake, "the products that sold most: the items of an order are JSON text", _PRODUCTS, _plain)
        expect_equal("products", lake.rows(_PRODUCTS), servers.rows(_PRODUCTS_IN_POSTGRESQL))
        _query(lake, "how orders moved from status to status: the database has forgotten that", _STEPS, _plain)
        expect_equal("in minus out of each status", _balance(lake.rows(_STEPS)), servers.rows(_STATUSES_IN_POSTGRESQL))


def _query(lake: Lake, what: str, sql: str, shown: Callable[[list[dict[str, Any]]], Any]) -> None:
    screen.note(what)
    screen.command(f'duckdb -c "{" ".join(sql.split())}"')
    screen.show(shown(lake.rows(sql)))


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows with decimals as text, so that they can be shown as JSON."""
    return [{name: str(v) if isinstance(v, Decimal) else v for name, v in row.items()} for row in rows]


def _balance(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns how many orders entered each status, minus those that left it. It is exact if no step is missing."""
    counts: dict[str, int] = {}
    for row in steps:
        counts[row["next"]] = counts.get(row["next"], 0) + row["times"]
        if row["status"] is not None:
            counts[row["status"]] = counts.get(row["status"], 0) - row["times"]
    return [{"status": name, "orders": n} for name, n in sorted(counts.items()) if name != "(deleted)" and n]


EXAMPLE = Example("order_analytics", "revenue, products and history in DuckDB", use_shop, _show)
