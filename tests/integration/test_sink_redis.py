"""The Redis sink beyond the contract: the keys, their expiry, and the outcome of each server error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from devstack import Stack
from syncer import sinks
from syncer.declaration.compile import Field
from syncer.document import Batch
from syncer.errors import Fatal, Retry
from syncer.ports import DurabilityToken, PublishedWatermark, PublishingSink, Sink
from syncer.sinks.redis.checks import preflight, trial
from syncer.sinks.redis.keys import Keys, slot
from syncer.sinks.redis.settings import Connection, Settings
from syncer.sinks.redis.watermarks import publishing_problems
from tests.contracts.sinks import FIELDS, compiled, forget
from tests.harness import Names
from tests.harness.redis_servers import free_port, moving_slot, owner_and_another, redis_cluster, redis_server
from tests.harness.waiting import until

Make = Callable[..., Sink]


@pytest.fixture
def make(stack: Stack, names: Names) -> Iterator[Make]:
    """Returns a function that opens sinks over one key pattern. Keyword arguments override the defaults."""
    made: list[Sink] = []

    def build(
        url: str = stack.redis,
        *,
        fields: tuple[Field, ...] = FIELDS,
        prepare: bool = True,
        connection: dict[str, Any] | None = None,
        epoch: int = 1,
        generation: int = 1,
        hash: str = "0123456789abcdef",
        model: str = "things",
        key: str = "thing:{id}",
        **settings: Any,
    ) -> Sink:
        sink = sinks.build(
            "redis",
            {"key": names(key), **settings},
            model=compiled(names(model), fields, hash),
            connection={"url": url, **(connection or {})},
            epoch=epoch,
            generation=generation,
        )
        made.append(sink)
        if prepare:
            sink.prepare()
        return sink

    yield build
    for sink in made:
        sink.close()
    forget(stack.redis, names.prefix)


@pytest.fixture
def client(stack: Stack) -> Iterator[Any]:
    with redis.Redis.from_url(stack.redis) as connected:
        yield connected


@pytest.fixture
def own_server() -> Iterator[str]:
    """Starts a server whose settings the test may change, and yields its URL."""
    with redis_server() as url:
        yield url


def docs(*numbers: int, at: int = 1, pad: int = 0) -> Batch:
    return Batch(at, {str(n): json.dumps({"n": n, "name": "x" * pad}).encode() for n in numbers}, [])


# -- the keys


def test_json_is_the_text_of_the_document(make: Make, client: Any, names: Names) -> None:
    body = b'{"b": 1.50, "a": [1,  2]}'
    make().write(Batch(3, {"a": body}, []))
    key = names("thing:a")
    assert client.get(key) == body
    assert client.get(f"version:{{{key}}}") == b"00000000000000000003 %d.0" % len(names("thing:"))
    assert client.ttl(key) == client.ttl(f"version:{{{key}}}") == -1


def test_a_hash_has_exact_texts_and_no_nulls(make: Make, client: Any, names: Names) -> None:
    sink = make(format="hash")
    body = b'{"n":9007199254740993,"exact":1.50,"name":"x","on":true,"off":false,"none":null}'
    sink.write(Batch(1, {"a": body}, []))
    expected = {b"n": b"9007199254740993", b"exact": b"1.50", b"name": b"x", b"on": b"true", b"off": b"false"}
    assert client.hgetall(names("thing:a")) == expected
    sink.write(Batch(2, {"a": b'{"n":1}'}, []))
    assert client.hgetall(names("thing:a")) == {b"n": b"1"}


def test_a_hash_without_fields_is_absent_and_its_version_is_kept(make: Make, client: Any, names: Names) -> None:
    sink = make(format="hash")
    assert sink.write(Batch(5, {"a": b'{"n":null}'}, [])).written == 1
    assert sink.read(["a"]) == {}
    assert sink.normalize(b'{"n":null}') is None
    assert sink.write(Batch(4, {"a": b'{"n":1}'}, [])).stale == 1


def test_a_hash_may_have_many_fields(make: Make) -> None:
    body = json.dumps({f"f{i}": i for i in range(20_001)}).encode()
    sink = make(format="hash")
    assert sink.write(Batch(1, {"a": body, "b": b'{"n":1}'}, [])).written == 2
    assert sink.read(["a"])["a"] == sink.normalize(body)


def test_a_nested_value_is_rejected_for_a_hash(make: Make) -> None:
    out = make(format="hash").write(Batch(1, {"a": b'{"n":[1]}', "b": b"7", "c": b'{"n":1}'}, []))
    assert out.written == 1
    assert [rejection.id for rejection in out.rejected] == ["a", "b"]
    assert "use format json" in out.rejected[0].reason


@pytest.mark.parametrize("format", ["json", "hash"])
def test_documents_and_deletes_expire(make: Make, client: Any, names: Names, format: str) -> None:
    sink = make(format=format, expire="2h", tombstone="30m")
    sink.write(docs(1, 2))
    sink.write(Batch(2, {}, ["2"]))
    marks = [f"version:{{{names('thing:1')}}}", f"version:{{{names('thing:2')}}}"]
    assert 7190 < client.ttl(names("thing:1")) <= 7200
    assert 7190 < client.ttl(marks[0]) - 1800 <= 7200, "it outlives its document"
    assert 1790 < client.ttl(marks[1]) <= 1800
    sink.write(docs(2, at=3))
    assert client.ttl(marks[1]) > 7190


def test_hazard_27_a_delete_is_remembered_for_longer_than_any_write_can_take(
    make: Make, client: Any, names: Names
) -> None:
    with pytest.raises(Fatal, match=r"tombstone: must be at least 30m \(1,800 seconds\)"):
        make(tombstone="10m")
    sink = make(tombstone="30m")
    sink.write(Batch(5, {}, ["a"]))
    assert sink.write(Batch(4, {"a": b"{}"}, [])).stale == 1
    assert client.expire(f"version:{{{names('thing:a')}}}", 0)  # as if the time had passed
    assert sink.write(Batch(4, {"a": b"{}"}, [])).written == 1


def test_the_version_outlives_a_document_that_expires_early(make: Make, client: Any, names: Names) -> None:
    """So no older write can bring the document back."""
    make(expire="1s", tombstone="1h").write(docs(1))
    assert client.ttl(f"version:{{{names('thing:1')}}}") > 3500


def test_expired_documents_are_distinguished_from_lost_ones(make: Make, client: Any, names: Names) -> None:
    sink = make(expire="2h", tombstone="30m")
    sink.write(docs(1, 2, 3, 4, 5))
    sink.write(Batch(2, {}, ["5"]))
    for id in range(1, 5):
        client.delete(names(f"thing:{id}"))
    client.expire(f"version:{{{names('thing:1')}}}", 1790)  # as if two hours had passed
    client.expire(f"version:{{{names('thing:2')}}}", 1810)  # not quite
    client.delete(f"version:{{{names('thing:3')}}}")  # as if even the version had expired
    ids = ["1", "2", "3", "4", "5", "6"]
    assert sink.read(ids) == {}
    assert sink.expired(ids, rendered=0) == {"1"}
    assert sink.expired(ids, rendered=9000) == {"1", "3", "6"}, "a backfill wrote all documents long ago"
    assert make().expired(ids, rendered=9000) == set(), "nothing expires by itself"


@pytest.mark.parametrize(
    "pattern", ["thing:{id}", "{{shop}}:{id}", "{{shop:{id}}}", "a}}b:{id}", "v{id}", "{{{{{id}", "x{{}}{id}"]
)
def test_version_keys_share_the_slot_and_equal_no_document_key(pattern: str) -> None:
    keys = Keys(pattern)
    ids = ["1", "{", "}", "{}", "{a}", "a}b", "}{", "{1}", "a{b}c", "ü", "version:1", ":version", "{{", "}}"]
    documents = [keys.document(id) for id in ids]
    versions = [keys.version(key) for key in documents]
    assert [slot(key) for key in documents] == [slot(key) for key in versions]
    assert len({*documents, *versions}) == 2 * len(ids)
    assert [keys.id(key.encode()) for key in documents] == ids
    assert [keys.id(key.encode()) for key in versions] == [None] * len(ids)
    assert [keys.of_version(key.encode()) for key in versions] == ids
    assert [keys.of_version(key.encode()) for key in documents] == [None] * len(ids)


def test_ids_leaves_out_keys_of_others(make: Make, client: Any, names: Names) -> None:
    sink = make()
    sink.write(docs(*range(3000)))
    client.rpush(names("thing:list"), "x")
    client.set(names("other:1"), "x")
    client.set(f"{names('thing:')}".encode() + b"\xff", "x")
    assert set(sink.ids()) == {str(n) for n in range(3000)}


# -- keys of others


def test_matching_keys_of_others_are_neither_listed_nor_removed(make: Make, client: Any, names: Names) -> None:
    sink, summaries = make(), make(model="summaries", key="thing:{id}:summary")
    sink.write(docs(17))
    summaries.write(docs(17))
    client.set(names("thing:17:session"), "the application's")
    assert list(sink.ids()) == ["17"]
    for at in (5, 6):  # the second time, the tombstone exists
        out = sink.write(Batch(at, {}, ["17", "17:session", "17:summary"]))
        assert (out.deleted, [rejection.id for rejection in out.rejected]) == (2, ["17:summary"])
        assert list(sink.ids()) == []
    assert sink.write(Batch(4, {"17:session": b"{}"}, [])).stale == 1
    assert client.get(names("thing:17:session")) == b"the application's"
    assert list(summaries.ids()) == ["17"]
    assert summaries.read(["17"]) == docs(17).upserts


def test_a_document_of_another_pattern_is_not_overwritten(make: Make) -> None:
    sink, summaries = make(), make(model="summaries", key="thing:{id}:summary")
    summaries.write(docs(17))
    out = sink.write(Batch(2, {"17:summary": b"{}", "18": b"{}"}, []))
    assert (out.written, [rejection.id for rejection in out.rejected]) == (1, ["17:summary"])
    assert summaries.read(["17"]) == docs(17).upserts


def test_a_key_that_the_application_created_after_a_delete_stays(make: Make, client: Any, names: Names) -> None:
    sink = make()
    sink.write(docs(1, 2))
    sink.write(Batch(2, {}, ["1", "2"]))
    client.set(names("thing:1"), "theirs")
    client.rpush(names("thing:2"), "theirs")
    assert sink.write(Batch(3, {}, ["1", "2"])).deleted == 2
    assert client.exists(names("thing:1"), names("thing:2")) == 2
    assert [rejection.id for rejection in sink.write(docs(2, at=4)).rejected] == ["2"]


def test_a_pattern_belongs_to_one_read_model(make: Make, names: Names) -> None:
    make()
    other = make(model="others", prepare=False)
    for new in (True, False):
        with pytest.raises(Fatal, match=f"belong to the read model {names('things')}") as caught:
            other.prepare(new=new)
    assert f"redis-cli DEL 'syncer:meta:{names('thing:{id}')}'" in caught.value.hint
    make(key="theirs:{id}", hash="f" * 16, epoch=7)  # a read model of the same name in another installation
    make()


# -- durability


def test_hazard_27_every_loss_of_writes_changes_the_durability_token(make: Make) -> None:
    """A flush, a restart and an eviction change the durability token."""
    port = free_port()
    seen: list[DurabilityToken] = []
    with redis_server(port=port) as url:
        sink = make(url)
        sink.write(docs(1))
        seen += [sink.durability(), sink.durability()]
        with redis.Redis.from_url(url) as client:
            client.flushall()
            seen.append(sink.durability())
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("maxmemory", "3mb")
            for n in range(10):
                client.set(f"filler:{n}", b"x" * 300_000)
            with pytest.raises(Fatal, match="may evict") as caught:
                sink.durability()
            assert caught.value.hint == "redis-cli CONFIG SET maxmemory-policy noeviction"
            client.config_set("maxmemory-policy", "noeviction")
            seen.append(sink.durability())
    with pytest.raises(Retry):
        sink.durability()
    with redis_server(port=port):
        seen.append(sink.durability())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4


def test_hazard_27_failover_and_failback_change_the_durability_token(make: Make, names: Names) -> None:
    """The replica lacks the last write when it becomes the primary.

    Then the first server gets the data of the second and is the primary again, in the same process as before.
    """
    quick = ("--repl-diskless-sync-delay", "0")
    with (
        redis_server(*quick) as first,
        redis_server(*quick) as second,
        redis.Redis.from_url(first) as one,
        redis.Redis.from_url(second) as other,
    ):
        sink, after = make(first), make(second, prepare=False)
        sink.write(docs(1))
        replicate(other, first)
        with pytest.raises(Retry, match="replica"):
            after.durability()
        before = sink.durability()
        other.replicaof("NO", "ONE")
        assert sink.write(docs(2)).written == 1  # acknowledged, and lost
        assert after.read(["1", "2"]) == docs(1).upserts
        assert after.durability().documents != before.documents
        replicate(one, second)
        one.replicaof("NO", "ONE")
        assert sink.read(["1", "2"]) == docs(1).upserts
        assert sink.durability().documents != before.documents


def replicate(client: redis.Redis, url: str) -> None:
    """Makes the server a replica of `url` and waits until it has all data."""
    client.replicaof("127.0.0.1", url.rpartition(":")[2].partition("/")[0])
    until(lambda: client.info("replication").get("master_link_status") == "up")


def test_hazard_27_emptying_one_server_of_a_cluster_changes_the_durability_token(make: Make, names: Names) -> None:
    with redis_cluster() as url:
        sink = make(url, connection={"cluster": True})
        before = sink.durability()
        key = names("thing:7")
        with redis.RedisCluster.from_url(url) as cluster:
            owner, other = owner_and_another(cluster, key)
            sink.write(docs(7))
            with moving_slot(cluster, slot(key), owner, other):
                pass
            with pytest.raises(Retry):  # the sink detects that the slot has moved
                sink.write(docs(7, at=2))
            assert sink.durability() == before
            cluster.get_redis_connection(other).flushall()
        assert sink.durability().documents != before.documents


# -- server errors


def test_an_unreachable_server_is_retried(make: Make) -> None:
    sink = make(f"redis://127.0.0.1:{free_port()}/0", prepare=False)
    for act in (
        sink.prepare,
        lambda: sink.write(docs(1)),
        lambda: sink.read(["1"]),
        lambda: list(sink.ids()),
    ):
        with pytest.raises(Retry, match="refused"):
            act()


def test_a_request_that_times_out_is_retried(make: Make, own_server: str) -> None:
    sink = make(own_server, connection={"timeout": "200ms"})
    with redis.Redis.from_url(own_server) as connected:
        client: Any = connected
        client.execute_command("CLIENT", "PAUSE", 1500, "ALL")
    with pytest.raises(Retry, match=r"(?i)timeout"):
        sink.write(docs(1))


def test_a_restarted_server_is_written_to_again(make: Make) -> None:
    port = free_port()
    with redis_server(port=port) as url:
        sink = make(url)
        assert sink.write(docs(1)).written == 1
    with pytest.raises(Retry):
        sink.write(docs(2, at=2))
    with redis_server(port=port):  # with neither script nor documents
        assert sink.write(docs(1, 2, at=2)).written == 2


def test_a_flushed_script_is_loaded_again(make: Make, own_server: str) -> None:
    sink = make(own_server)
    sink.write(docs(1))
    with redis.Redis.from_url(own_server) as client:
        client.script_flush()
    assert sink.write(docs(*range(2000), at=2)).written == 2000


def test_wrong_credentials_are_fatal(make: Make) -> None:
    with redis_server("--requirepass", "right") as url:
        make(url, connection={"password": "right"}).write(docs(1))
        for connection in ({}, {"password": "wrong"}, {"username": "nobody", "password": "x"}):
            sink = make(url, prepare=False, connection=connection)
            with pytest.raises(Fatal) as caught:
                sink.prepare()
            assert "redis.username and password" in caught.value.hint
            with pytest.raises(Fatal):
                sink.write(docs(1))


def test_a_user_without_permissions_is_fatal(make: Make, own_server: str) -> None:
    with redis.Redis.from_url(own_server) as connected:
        client: Any = connected
        client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@connection")
    sink = make(own_server, prepare=False, connection={"username": "reader", "password": "secret"})
    for act in (sink.prepare, lambda: sink.write(docs(1))):
        with pytest.raises(Fatal, match="no permissions"):
            act()


def test_writes_are_retried_while_memory_is_full(make: Make, own_server: str) -> None:
    sink = make(own_server)
    sink.write(docs(1))
    with redis.Redis.from_url(own_server) as client:
        client.config_set("maxmemory", "1mb")
        with pytest.raises(Retry) as caught:
            sink.write(docs(*range(2000), at=2, pad=2000))
        assert "raise maxmemory" in caught.value.hint
        client.config_set("maxmemory", "0")
    assert sink.write(docs(*range(2000), at=2, pad=2000)).rejected == []
    assert len(list(sink.ids())) == 2000


def test_hazard_27_eviction_is_refused(make: Make, own_server: str) -> None:
    with redis.Redis.from_url(own_server) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        make(own_server)  # nothing is evicted without a limit
        client.config_set("maxmemory", "100mb")
        with pytest.raises(Fatal, match="allkeys-lru") as caught:
            make(own_server)
    assert caught.value.hint == "redis-cli CONFIG SET maxmemory-policy noeviction"


def test_preflight_reports_obstacles_and_changes_nothing(own_server: str) -> None:
    settings = [Settings.model_validate({"key": "thing:{id}"})]
    with redis.Redis.from_url(own_server) as connected:
        client: Any = connected
        assert preflight(Connection.model_validate({"url": own_server}), settings) == []
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "100mb")
        [found] = preflight(Connection.model_validate({"url": own_server}), settings)
        assert found.hint == "redis-cli CONFIG SET maxmemory-policy noeviction"
        client.execute_command("ACL", "SETUSER", "writer", "on", ">secret", "~*", "+@all", "-info")
        [found] = preflight(
            Connection.model_validate({"url": own_server, "username": "writer", "password": "secret"}), settings
        )
        assert isinstance(found, Fatal) and "redis.username and password" in found.hint
        assert client.dbsize() == 0
    [found] = preflight(Connection.model_validate({"url": "redis://127.0.0.1:1/0"}), settings)
    assert isinstance(found, Retry) and found.where == "Redis at redis://127.0.0.1:1/0"


RIGHTS: list[tuple[str, str, str]] = [
    ("json", "~*", ""),
    ("hash", "~thing:* ~version:* ~syncer:*", ""),
    ("json", "%R~thing:* ~version:* ~syncer:*", "permissions"),
    ("json", "~thing:* ~syncer:*", "permissions"),
    ("json", "~* -set", "set"),
    ("hash", "~* -hdel", "hdel"),
]


@pytest.mark.parametrize(("format", "rights", "why"), RIGHTS)
def test_missing_permissions_to_write_are_reported(own_server: str, format: str, rights: str, why: str) -> None:
    settings = Settings.model_validate({"key": "thing:{id}", "format": format})
    with redis.Redis.from_url(own_server) as connected:
        client: Any = connected
        client.execute_command("ACL", "SETUSER", "writer", "on", ">secret", "+@all", *rights.split())
        connection = Connection.model_validate({"url": own_server, "username": "writer", "password": "secret"})
        found = trial(connection, settings, compiled("things"))
        assert [problem.block for problem in found] == ([("key",)] if why else [])
        assert all(why in problem.why for problem in found)
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("rights", "why"), [("~*", ""), ("~* -eval", "eval"), ("~thing:* ~syncer:meta:*", "permissions")]
)
def test_missing_permissions_to_publish_watermarks_are_reported(own_server: str, rights: str, why: str) -> None:
    settings = [Settings.model_validate({"key": "thing:{id}"})]
    with redis.Redis.from_url(own_server) as connected:
        client: Any = connected
        client.execute_command("ACL", "SETUSER", "writer", "on", ">secret", "+@all", *rights.split())
        connection = Connection.model_validate({"url": own_server, "username": "writer", "password": "secret"})
        found = publishing_problems(connection, settings)
        assert [why in problem.why for problem in found] == ([True] if why else [])
        assert client.dbsize() == 0
    with pytest.raises(Retry):
        publishing_problems(Connection.model_validate({"url": "redis://127.0.0.1:1/0"}), settings)


def test_a_cluster_has_the_lowest_watermark_of_its_primaries(make: Make, names: Names) -> None:
    found = PublishedWatermark(names("things"), 1, 1, 5, "5:5:", 1000, "0/5", 0)
    with redis_cluster() as url:
        sink = make(url, connection={"cluster": True})
        assert isinstance(sink, PublishingSink)
        sink.publish(found)
        with redis.RedisCluster.from_url(url, decode_responses=True) as connected:
            cluster: Any = connected
            _, *others = cluster.hget(f"syncer:watermark:{names('thing:{id}')}", "keys").split()
            assert len(others) == 2
            cluster.delete(others[0])  # as a primary does that loses its writes
            assert sink.published() is None
            sink.publish(found._replace(clock=6, snapshot="6:6:"))
            assert sink.published() == found._replace(clock=6, snapshot="6:6:")
            cluster.hset(others[1], mapping={"clock": 5, "snapshot": "5:5:"})
            assert sink.published() == found
        sink.close()


def test_keys_of_another_read_model_are_reported(own_server: str) -> None:
    settings, connection = (
        Settings.model_validate({"key": "thing:{id}"}),
        Connection.model_validate({"url": own_server}),
    )
    with redis.Redis.from_url(own_server) as client:
        client.set("syncer:meta:thing:{id}", '{"model": "others"}')
    [found] = trial(connection, settings, compiled("things"))
    assert "belong to the read model others" in found.what
    assert trial(connection, settings, compiled("others")) == []


def test_writes_are_retried_while_the_server_is_a_replica(make: Make, own_server: str) -> None:
    sink = make(own_server)
    with redis.Redis.from_url(own_server) as connected:
        client: Any = connected
        client.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        with pytest.raises(Retry, match="read only replica"):
            sink.write(docs(1))
        client.execute_command("REPLICAOF", "NO", "ONE")
    assert sink.write(docs(1)).written == 1


def test_a_later_generation_takes_over_the_keys(make: Make) -> None:
    make(hash="a" * 16).write(docs(1))
    make(hash="b" * 16, generation=2, epoch=2)
    with pytest.raises(Fatal):
        make(hash="a" * 16)


# -- a cluster


def test_hazard_27_a_slot_that_moves(make: Make, names: Names) -> None:
    with redis_cluster() as url:
        sink = make(url, connection={"cluster": True})
        assert sink.write(docs(*range(300))).written == 300
        key = names("thing:7")
        with redis.RedisCluster.from_url(url) as cluster:
            owner, other = owner_and_another(cluster, key)
            with moving_slot(cluster, slot(key), owner, other):
                pass
        out = sink.write(docs(*range(300), at=2))
        assert "7" in out.retry
        assert out.written + len(out.retry) == 300
        assert sink.write(docs(*map(int, out.retry), at=3)).written == len(out.retry)
        assert len(set(sink.ids())) == 300
        assert len(sink.read([str(n) for n in range(300)])) == 300


def test_an_unreachable_cluster_is_retried(make: Make) -> None:
    with redis_cluster() as url:
        sink = make(url, connection={"cluster": True, "timeout": "2s"})
        sink.write(docs(1))
    with pytest.raises(Retry):
        sink.write(docs(1, at=2))
    with pytest.raises(Retry):
        make(url, connection={"cluster": True, "timeout": "2s"})
