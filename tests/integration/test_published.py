"""Published watermarks, and waits until searches show a commit, on real servers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import redis
import urllib3

from tests.harness.daemon import Daemon
from tests.harness.redis_servers import redis_cluster, redis_server
from tests.harness.system import System
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
ORDER = "INSERT INTO {schema}.orders (id, customer_id) VALUES (1, 1)"
NO_REFRESH = """
name: {orders}
root: {{table: {schema}.orders}}
document: {{status: status}}
sink:
  elasticsearch:
    index: {orders}
    settings: {{number_of_shards: 1, number_of_replicas: 0, refresh_interval: "-1"}}
"""


def in_elasticsearch(system: System, index: str = "") -> dict[str, Any] | None:
    """Returns the watermark of an index of the orders."""
    url = f"{system.stack.elasticsearch}/syncer-watermarks/_doc/{index or system.orders + '-000001'}"
    found: dict[str, Any] = urllib3.request("GET", url).json()
    return found.get("_source")


def in_redis(system: System) -> dict[str, str]:
    """Returns the watermark of the summaries."""
    with redis.Redis.from_url(system.redis, decode_responses=True) as client:
        found: Any = client.hgetall(f"syncer:watermark:{system.prefix}:summary:{{id}}")
    return dict(found)


def refreshes(system: System) -> int:
    """Returns how often the index of the orders was refreshed."""
    url = f"{system.stack.elasticsearch}/{system.orders}/_stats/refresh"
    return int(urllib3.request("GET", url).json()["_all"]["primaries"]["refresh"]["external_total"])


def hits(system: System) -> int:
    """Returns how many orders searches find, without a refresh."""
    url = f"{system.stack.elasticsearch}/{system.orders}/_search?size=0"
    return int(urllib3.request("GET", url).json()["hits"]["total"]["value"])


def wait(daemon: Daemon, model: str, token: str = "now", **options: Any) -> tuple[int, dict[str, Any]]:
    """Calls `/wait` on a connection of its own. Returns the status and the JSON of the response."""
    connection = send_wait(daemon, model, token, **options)
    return answer(connection)


def send_wait(daemon: Daemon, model: str, token: str = "now", **options: Any) -> HTTPConnection:
    query = "&".join(f"{name}={value}" for name, value in {"model": model, "token": token, **options}.items())
    connection = HTTPConnection(urlsplit(daemon.url).netloc, timeout=60)
    connection.request("GET", f"/wait?{query}")
    return connection


def answer(connection: HTTPConnection) -> tuple[int, dict[str, Any]]:
    response = connection.getresponse()
    found: dict[str, Any] = json.loads(response.read())
    connection.close()
    return response.status, found


def test_the_watermark_is_published_in_both_sinks_and_in_status(system: System) -> None:
    system.execute(CUSTOMERS, ORDER)
    assert system.status_of(system.orders)["staleness_seconds"] is None
    system.start()
    system.run("backfill")
    first = until(lambda: in_elasticsearch(system))
    assert (first["model"], first["generation"], first["dead_letters"]) == (system.orders, 1, 0)
    until(lambda: (in_elasticsearch(system) or first)["clock"] > first["clock"])
    until(lambda: in_redis(system).get("model") == system.summaries)
    for model in (system.orders, system.summaries):
        status = system.status_of(model)
        assert status["staleness_seconds"] < 10 and status["watermark"]["generation"] == 1
    assert "–" not in system.run("status").split("\n")[1]


def test_a_stopped_daemon_leaves_a_watermark_that_ages(system: System) -> None:
    system.execute(CUSTOMERS, ORDER)
    daemon = system.start()
    system.run("backfill")
    until(lambda: in_elasticsearch(system) and in_redis(system))
    daemon.kill()
    last = system.status_of(system.orders)
    until(lambda: system.status_of(system.orders)["staleness_seconds"] > last["staleness_seconds"] + 2)
    assert system.status_of(system.orders)["watermark"] == last["watermark"]


def test_one_of_two_daemons_publishes_and_the_other_takes_over(system: System) -> None:
    system.execute(CUSTOMERS, ORDER)
    system.environment["SYNCER_LOG__LEVEL"] = "debug"
    first = system.start(system.orders)
    system.run("backfill", system.orders)
    until(lambda: in_elasticsearch(system))
    second = system.start(system.orders)
    clock = (in_elasticsearch(system) or {})["clock"]
    until(lambda: (in_elasticsearch(system) or {})["clock"] > clock)
    first.kill()
    clock = (in_elasticsearch(system) or {})["clock"]
    until(lambda: (in_elasticsearch(system) or {})["clock"] > clock, second.log.read_text)


def test_a_cluster_has_a_watermark_on_each_primary(system: System) -> None:
    system.execute(CUSTOMERS)
    with redis_cluster() as url:
        system.redis = url
        system.environment |= {"SYNCER_REDIS__URL": url, "SYNCER_REDIS__CLUSTER": "true"}
        system.start(system.summaries)
        system.run("backfill", system.summaries)
        key = f"syncer:watermark:{system.prefix}:summary:{{id}}"
        with redis.RedisCluster.from_url(url, decode_responses=True) as client:
            cluster: Any = client
            keys = until(lambda: (cluster.hget(key, "keys") or "").split())
            assert len(keys) == 3 and keys[0] == key
            assert len({cluster.get_node_from_key(one).name for one in keys}) == 3
            until(lambda: len({cluster.hget(one, "model") for one in keys}) == 1)
            before = [int(cluster.hget(one, "clock")) for one in keys]
            until(lambda: all(int(cluster.hget(one, "clock")) > old for one, old in zip(keys, before, strict=True)))
        assert system.status_of(system.summaries)["staleness_seconds"] is not None
        for daemon in system.daemons:
            daemon.kill()


def test_a_sink_that_refuses_the_watermark_keeps_the_read_model_running(system: System) -> None:
    system.execute(CUSTOMERS)
    with redis_server() as url:
        with redis.Redis.from_url(url) as client:
            client.execute_command("ACL", "SETUSER", "writer", "on", ">secret", "~*", "+@all", "-eval")
        system.redis = url
        system.environment |= {
            "SYNCER_REDIS__URL": url,
            "SYNCER_REDIS__USERNAME": "writer",
            "SYNCER_REDIS__PASSWORD": "secret",
            "SYNCER_LOG__LEVEL": "debug",
        }
        daemon = system.start(system.summaries)
        system.run("backfill", system.summaries)
        refused = until(lambda: daemon.logged("watermark not published"), daemon.log.read_text)
        assert "eval" in refused[0]["error"]
        system.execute("UPDATE {schema}.customers SET name = 'Ada Lovelace' WHERE id = 1")
        system.until_in_sync(system.summaries)
        status = daemon.status(system.summaries)
        assert status["state"] == "running" and not status["last_error"] and status["staleness_seconds"] is not None
        assert system.status_of(system.summaries)["staleness_seconds"] is None
        daemon.kill()


def test_nothing_is_published_if_it_is_switched_off(system: System) -> None:
    system.execute(CUSTOMERS, ORDER)
    system.environment["SYNCER_FRESHNESS__PUBLISH_INTERVAL"] = "0"
    daemon = system.start(system.orders)
    system.run("backfill", system.orders)
    assert wait(daemon, system.orders, timeout=20)[0] == 200
    first = daemon.status(system.orders)["watermark"]["clock"]
    until(lambda: daemon.status(system.orders)["watermark"]["clock"] > first)
    assert in_elasticsearch(system) is None


def test_callers_share_the_refreshes_that_make_their_documents_searchable(system: System) -> None:
    system.declare("orders", NO_REFRESH)
    system.execute(CUSTOMERS)
    daemon = system.start(system.orders)
    system.run("backfill", system.orders)
    assert daemon.status(system.orders)["searchable"] is None
    with system.database.connect(autocommit=False) as connection:
        connection.execute(f"INSERT INTO {system.schema}.orders (id, customer_id) VALUES (1, 1)")
        row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row
        before = refreshes(system)
        options = {"timeout": 30, "searchable": "true"}
        waiting = [send_wait(daemon, system.orders, f"x:{row[0]}", **options) for _ in range(50)]
        assert daemon.status(system.orders)["searchable"] is None  # also: the daemon has read the requests
        connection.commit()
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(answer, waiting))
    assert [status for status, _ in answers] == [200] * 50, answers
    assert hits(system) == 1
    # Callers that a busy machine releases later join a later refresh: test_searchable.py counts them exactly.
    assert 1 <= refreshes(system) - before <= 10
    shown = daemon.status(system.orders)["searchable"]
    assert shown["clock"] >= min(found["searchable"]["clock"] for _, found in answers)
    until(lambda: (in_elasticsearch(system) or {}).get("searchable_clock") == shown["clock"])


def test_a_read_that_sees_every_write_at_once_needs_no_refresh(system: System) -> None:
    system.execute(CUSTOMERS)
    daemon = system.start(system.summaries)
    system.run("backfill", system.summaries)
    status, found = wait(daemon, system.summaries, timeout=20, searchable="true")
    assert status == 200 and found["searchable"]["clock"] >= found["watermark"]["clock"]


def test_without_searchable_nothing_is_refreshed(system: System) -> None:
    system.declare("orders", NO_REFRESH)
    system.execute(CUSTOMERS, ORDER)
    daemon = system.start(system.orders)
    system.run("backfill", system.orders)
    before = refreshes(system)
    assert wait(daemon, system.orders, timeout=20)[0] == 200
    assert (refreshes(system), hits(system)) == (before, 0)
    assert wait(daemon, system.orders, timeout=20, searchable="true")[0] == 200
    assert hits(system) == 1
