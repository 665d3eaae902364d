"""Live odds: a market, the markets of an event by what was traded, and a subscriber that sees prices change.

The application changes 1,000 prices a second, half of them in one market.
"""

from __future__ import annotations

import os
import random
import time
from decimal import Decimal
from typing import Any

import psycopg
import redis

from demo import screen
from demo.examples import ROOT, Example, Servers, expect_equal
from demo.subscriber import Subscriber

_FOLDER = ROOT / "readmodels" / "live_odds"
RATE, PER_TRANSACTION = 1000, 10
"""Price changes per second, and in one transaction."""
HOT, MARKETS = 7, 100
_FIELDS = ("home", "draw", "away", "traded")
_CHANGE = """
UPDATE prices SET odds = %s, traded = traded + %s, changes = changes + 1 WHERE market_id = %s AND selection = %s"""
_MARKETS = """
SELECT m.id, e.name AS event, m.name AS market, m.event_id,
       max(p.odds) FILTER (WHERE p.selection = 'home') AS home, max(p.odds) FILTER (WHERE p.selection = 'draw') AS draw,
       max(p.odds) FILTER (WHERE p.selection = 'away') AS away, sum(p.traded) AS traded
  FROM markets m JOIN events e ON e.id = m.event_id JOIN prices p ON p.market_id = m.id
 GROUP BY m.id, e.name ORDER BY m.id"""


class Odds:
    """Reads the odds. client: of Redis, with `decode_responses=True`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def market(self, id: int | str) -> dict[str, str]:
        """Returns a market."""
        return dict(self._client.hgetall(f"market:{id}"))

    def busiest(self, event: int, first: int = 0, size: int = 3) -> list[dict[str, str]]:
        """Returns a page of an event's markets, those with the most trade first."""
        ids = self._client.zrange(f"event:{event}:traded", first, first + size - 1, desc=True)
        return [{"id": id} | self.market(id) for id in ids]


def _fill(connection: psycopg.Connection[Any]) -> None:
    connection.execute((_FOLDER / "rows.sql").read_bytes())


def _use(dsn: str, seconds: float) -> None:
    """Changes prices, while a subscriber follows the pushed changes."""
    screen.note(f"{RATE:,} price changes a second for {seconds:g} s, half of them in market {HOT}")
    url = f"http://127.0.0.1:{os.environ['SYNCER_HTTP__PORT']}/models/odds/changes?documents=true"
    screen.command(f"curl -N '{url}'")
    with Subscriber(url) as subscriber, psycopg.connect(dsn, autocommit=True) as connection:
        committed, began = _change_prices(connection, seconds), time.monotonic()
        count = len(committed) * PER_TRANSACTION
        subscriber.wait(
            str(HOT), lambda document: int(document["changes"]) == len(committed) * PER_TRANSACTION // 2, 60
        )
        screen.note(f"{time.monotonic() - began:.2f} s after the last commit, the subscriber has the last price")
        seen = [(at, int(document["changes"])) for at, document in subscriber.seen(str(HOT))]
        late = sorted(at - committed[changes * 2 // PER_TRANSACTION - 1] for at, changes in seen if changes)
        [(changes,)] = connection.execute("SELECT sum(changes) FROM prices WHERE market_id = %s", [HOT]).fetchall()
    screen.note(f"{count:,} price changes; {count // 2:,} of market {HOT}, pushed as {len(seen):,} documents")
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    screen.note(f"age of a pushed document, since its last change: p50 {p50:.2f} s, p99 {p99:.2f} s")
    expect_equal("the number of changes in the last pushed document", seen[-1][1], int(changes))


def _change_prices(connection: psycopg.Connection[Any], seconds: float) -> list[float]:
    """Changes prices at a constant rate. Returns when each transaction was committed, by the monotonic clock."""
    chosen, committed, began = random.Random(1), list[float](), time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        with connection.pipeline(), connection.transaction():
            for number in range(PER_TRANSACTION):
                market = HOT if number % 2 else chosen.choice([m for m in range(1, MARKETS + 1) if m != HOT])
                selection = chosen.choice(["away", "draw", "home"])
                odds, traded = Decimal(chosen.randint(101, 2000)) / 100, chosen.randint(1, 50)
                connection.execute(_CHANGE, (odds, traded, market, selection))
        committed.append(time.monotonic())
        time.sleep(max(0.0, began + len(committed) * PER_TRANSACTION / RATE - now))
    return committed


def _show(servers: Servers) -> None:
    with redis.Redis.from_url(servers.stack.redis, decode_responses=True) as client:
        odds = Odds(client)
        screen.note("one market")
        screen.command(f"redis-cli HGETALL market:{HOT}")
        screen.show(odds.market(HOT))
        expected = servers.rows(_MARKETS)
        event = next(row["event_id"] for row in expected if row["id"] == HOT)
        screen.note(f"the busiest markets of event {event}, and the next page")
        screen.command(f"redis-cli ZRANGE event:{event}:traded 0 2 REV")
        screen.show(odds.busiest(event))
        screen.command(f"redis-cli ZRANGE event:{event}:traded 3 5 REV")
        screen.show(odds.busiest(event, first=3))
        found = {row["id"]: odds.market(row["id"]) for row in expected}
        ranked = {id: client.zrange(f"event:{id}:traded", 0, -1, desc=True) for id in range(1, 21)}
    expect_equal("all markets", [_values(found[row["id"]]) for row in expected], [_values(row) for row in expected])
    boards = {id: [row for row in expected if row["event_id"] == id] for id in ranked}
    by_trade = {
        id: sorted(rows, key=lambda row: (row["traded"], str(row["id"])), reverse=True) for id, rows in boards.items()
    }
    expect_equal("all events", ranked, {id: [str(row["id"]) for row in rows] for id, rows in by_trade.items()})


def _values(market: dict[str, Any]) -> list[str]:
    return [str(Decimal(market[field]).normalize()) for field in _FIELDS]


EXAMPLE = Example("live_odds", "a market, and an event's markets by what was traded, in Redis", _use, _show, _fill)
