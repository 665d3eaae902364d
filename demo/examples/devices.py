"""Devices: the hours of a device in Elasticsearch, totals and a ranking in Redis, and a dashboard.

`READINGS` is the number of readings at the beginning, `RATE` the readings that the devices send per second.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import psycopg
import redis

from demo import place, readings, screen, staleness
from demo.examples import ROOT, Example, Servers, expect_equal
from demo.fleet import app
from demo.fleet.views import DEVICES_PAGE, Fleet, day_before
from demo.staleness import Newest, ages, last, send
from demo.subscriber import Subscriber

_FOLDER = ROOT / "readmodels" / "devices"
DEVICES = 50
READINGS = int(os.environ.get("READINGS") or "100000")
RATE = int(os.environ.get("RATE") or "1000")
_WATCHED = [str(device) for device in range(1, 11)]
"""Devices whose totals are polled while readings arrive. The first one is the one that sends the most."""
_TIMES = ("hour", "last_taken_at")
_HOURS = """
SELECT r.device_id, date_trunc('hour', r.taken_at, 'UTC') AS hour, d.name AS device, d.site, count(*) AS readings,
       count(r.error) AS errors, min(r.temperature)::float8 AS lowest, max(r.temperature)::float8 AS highest,
       round(avg(r.temperature), 2)::float8 AS average, max(r.number) AS newest
  FROM readings r JOIN devices d ON d.id = r.device_id GROUP BY 1, 2, d.id ORDER BY 1, 2"""
_TOTALS = """
SELECT d.id AS device_id, d.name AS device, d.site, count(r.number) AS readings, count(r.error) AS errors,
       min(r.temperature) AS lowest, max(r.temperature) AS highest, avg(r.temperature) AS average,
       max(r.taken_at) AS last_taken_at, max(r.number) AS newest
  FROM devices d LEFT JOIN readings r ON r.device_id = d.id
 GROUP BY d.id ORDER BY errors DESC, d.id::text COLLATE "C" DESC"""


def _fill(connection: psycopg.Connection[Any]) -> None:
    text = (_FOLDER / "rows.sql").read_text("utf-8").format(devices=DEVICES, readings=READINGS, hours=30)
    for statement in text.split(";\n"):
        if statement.strip():
            connection.execute(statement.encode())


def _use(dsn: str, seconds: float) -> None:
    """Sends readings, while the dashboard is served, a subscriber follows the hours, and totals are polled."""
    hot = f"{readings.HOT_SHARE:.0%} of them from device {readings.HOT}, {readings.LATE_SHARE:.0%} of them hours late"
    screen.note(f"{RATE:,} readings a second from {DEVICES} devices for {seconds:g} s, {hot}")
    syncer = f"http://127.0.0.1:{os.environ['SYNCER_HTTP__PORT']}"
    fleet = Fleet(os.environ["SYNCER_ELASTICSEARCH__URL"], os.environ["SYNCER_REDIS__URL"])
    client = redis.Redis.from_url(os.environ["SYNCER_REDIS__URL"])
    totals = Newest(_WATCHED, staleness.totals(client))
    hours = Subscriber(f"{syncer}/models/device_hours/changes?documents=true")
    with app.serving(app.application(fleet, syncer), place.http_port(place.SHOP_PORT)) as url:
        screen.note(f"the dashboard, until the devices stop (LIVE_SECONDS=600 for 10 minutes): {url}/")
        with hours, totals:
            sent = send(dsn, DEVICES, RATE, seconds)
            newest = last(sent.commits)
            for key, id in newest.items():
                hours.wait(key, lambda document, id=id: document["newest"] >= id, 60)  # type: ignore[misc]
            totals.wait(last(sent.by_device()), 60)
    fleet.close()
    shown = {key: [(at, int(document["newest"])) for at, document in hours.seen(key)] for key in newest}
    screen.note(f"{sent.readings:,} readings in {sent.seconds:.1f} s; {sum(map(len, shown.values())):,} hours pushed")
    _print_ages("hours, pushed", ages(sent.commits, shown))
    _print_ages(f"totals of {len(_WATCHED)} devices in Redis", ages(sent.by_device(), totals.seen))


def _print_ages(what: str, found: Sequence[float]) -> None:
    p50, p99 = found[len(found) // 2], found[len(found) * 99 // 100]
    screen.note(f"{what}: a reading is visible {p50:.2f} s (p50), {p99:.2f} s (p99) after its commit")


def _show(servers: Servers) -> None:
    fleet = Fleet(servers.stack.elasticsearch, servers.stack.redis, asked=screen.command)
    now = datetime.now(UTC)
    screen.note(f"the last 24 hours of device {readings.HOT}, in pages of 12; the next page begins after the last hour")
    pages = list(fleet.last_day(readings.HOT, now))
    screen.show(pages[0][:2])
    screen.note("the devices with the most errors, and the next page")
    ranking = [fleet.most_errors(), fleet.most_errors(DEVICES_PAGE)]
    screen.show([{name: one[name] for name in ("device", "readings", "errors")} for one in ranking[0][:3]])
    screen.note("the totals of a device, combined from partials")
    screen.show(fleet.totals(readings.HOT))
    hours, totals = servers.rows(_HOURS), servers.rows(_TOTALS)
    day = [row for row in hours if row["device_id"] == readings.HOT and row["hour"] >= day_before(now)]
    shown = [hour for page in pages for hour in page]
    expect_equal(
        f"all {len(shown)} hours on {len(pages)} pages",
        [_same(hour) for hour in shown],
        [_same({name: row[name] for name in shown[0]}) for row in reversed(day)],
    )
    expect_equal(
        "both pages of the ranking",
        [one["device_id"] for page in ranking for one in page],
        [row["device_id"] for row in totals[: 2 * DEVICES_PAGE]],
    )
    fleet.close()
    _compare_all(servers, hours, totals)


def _compare_all(servers: Servers, hours: list[dict[str, Any]], totals: list[dict[str, Any]]) -> None:
    """Compares every document with SQL."""
    found: list[dict[str, Any]] = []
    with httpx.Client(base_url=servers.stack.elasticsearch, timeout=30) as search:
        query: dict[str, Any] = {"size": 1000, "sort": [{"device_id": "asc"}, {"hour": "asc"}]}
        while hits := search.post("device_hours/_search", json=query).raise_for_status().json()["hits"]["hits"]:
            found += [hit["_source"] for hit in hits]
            query["search_after"] = hits[-1]["sort"]
    expect_equal(f"all {len(hours):,} hours", [_same(hour) for hour in found], [_same(row) for row in hours])
    with redis.Redis.from_url(servers.stack.redis) as client:
        texts = client.mget([f"device:{row['device_id']}" for row in totals])
    expect_equal(
        f"the totals of all {len(totals)} devices",
        [_same(json.loads(text, parse_float=Decimal)) for text in texts if text],
        [_same(row) for row in totals],
    )


def _same(document: dict[str, Any]) -> dict[str, str]:
    """Returns a document with each value as text. Times are in UTC."""
    found = {}
    for name, value in document.items():
        time = datetime.fromisoformat(str(value)).astimezone(UTC) if name in _TIMES else None
        found[name] = str(time or value)
    return found


EXAMPLE = Example("devices", "pages of hours, a ranking and totals, in Elasticsearch and Redis", _use, _show, _fill)
