"""Indexes of the Redis sink: what `check` refuses, foreign keys, strays, expiry, resyncs, failures, and a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

import pytest
import redis

from syncer import sinks
from syncer.clock import version
from syncer.declaration.compile import Field
from syncer.document import Batch, Outcome
from syncer.errors import Fatal, Retry, SyncerError
from syncer.operations.comparison import difference
from syncer.ports import IndexedSink, Sink
from syncer.sinks.redis import strays
from syncer.sinks.redis.calls import SCRIPT
from syncer.sinks.redis.checks import preflight, trial
from syncer.sinks.redis.claims import Claims
from syncer.sinks.redis.keys import Keys, slot
from syncer.sinks.redis.settings import Connection, Settings
from tests.contracts.sinks import compiled
from tests.harness.redis_script import cut, script
from tests.harness.redis_servers import moving_slot, owner_and_another, redis_cluster, redis_server
from tests.harness.waiting import until

FIELDS = (
    Field("game", "bigint", many=False),
    Field("points", "numeric", many=False),
    Field("name", "text", many=False),
    Field("at", "timestamp with time zone", many=False),
    Field("tags", "text", many=True),
    Field("friends", "object", many=True, fields=(Field("id", "bigint", many=False),)),
    Field("home", "object", many=False, fields=(Field("city", "text", many=False),)),
)
BOARD = {"sorted_set": {"key": "board:{game}", "score": "points"}}
TAGS = {"set": {"key": "tag:{tags}", "member": "player {id}"}}
TAGGED = {"sorted_set": {"key": "{{games}}:board:{game}", "score": "points"}}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with redis_cluster() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    with redis.Redis.from_url(server) as connected:
        connected.flushall()
    return server


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(url, decode_responses=True) as connected:
        yield connected


BUILT: list[Sink] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while BUILT:
        BUILT.pop().close()


def build(url: str, *indexes: Any, model: str = "players", hash: str = "a" * 16, **more: Any) -> Sink:
    cluster, epoch, generation = more.pop("cluster", False), more.pop("epoch", 1), more.pop("generation", 1)
    block = {"key": "player:{id}", "indexes": list(indexes), **more}
    sink = sinks.build(
        "redis",
        block,
        model=compiled(model, FIELDS, hash),
        connection={"url": url, "cluster": cluster},
        epoch=epoch,
        generation=generation,
    )
    BUILT.append(sink)
    return sink


def opened(url: str, *indexes: Any, **more: Any) -> Sink:
    sink = build(url, *indexes, **more)
    sink.prepare()
    return sink


def row(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def audit(sink: Sink, rows: Mapping[str, bytes]) -> dict[str, str]:
    """Returns id → difference, as `syncer verify` finds it."""
    assert isinstance(sink, IndexedSink)
    sink.find_strays()
    ids = [*rows, *sink.ids()]
    stored = sink.read(ids)
    found = {id: difference(sink, rows.get(id), stored.get(id)) for id in ids}
    absent = sink.expired([id for id, kind in found.items() if kind == "missing"], 0)
    return {id: "expired" if id in absent else kind for id, kind in found.items() if kind}


# -- what is written


def test_a_list_has_a_member_for_each_value_and_null_has_none(url: str, client: Any) -> None:
    sink = opened(url, BOARD, TAGS, {"set": {"key": "friend:{friends.id}"}}, {"set": {"key": "city:{home.city}"}})
    one = row(game=7, points=1.50, tags=["a", "b", "a"], friends=[{"id": 3}, {"id": 4}], home={"city": "Köln"})
    two = row(game=None, points=1, tags=[], friends=None, home=None)
    three = row(game=7, points=None, tags=["b", None], friends=[{"id": 3}])
    assert sink.write(Batch(1, {"1": one, "2": two, "3": three}, [])) == Outcome(written=3)
    assert client.zrange("board:7", 0, -1, withscores=True) == [("1", 1.5)]
    assert (client.smembers("tag:a"), client.smembers("tag:b")) == ({"player 1"}, {"player 1", "player 3"})
    assert (client.smembers("friend:3"), client.smembers("friend:4")) == ({"1", "3"}, {"1"})
    assert client.smembers("city:Köln") == {"1"}
    assert audit(sink, {"1": one, "2": two, "3": three}) == {}


SCORES = [
    ("9007199254740992", 2.0**53),
    ("-9007199254740992", -(2.0**53)),
    ("1e3", 1000.0),
    ("0.1", 0.1),
    ("9007199254740993", None),
    ("-9007199254740992.5", None),
    ("1e300", None),
    ('"NaN"', None),
    ('"12"', None),
    ("[1, 2]", None),
]


@pytest.mark.parametrize(("text", "score"), SCORES)
def test_a_score_that_redis_cannot_hold_exactly_is_rejected_alone(
    url: str, client: Any, text: str, score: float | None
) -> None:
    sink = opened(url, BOARD)
    body = f'{{"game":1,"points":{text}}}'.encode()
    out = sink.write(Batch(1, {"x": body, "y": row(game=1, points=5)}, ["z"]))
    assert (out.written, out.deleted, [one.id for one in out.rejected]) == (
        1 + (score is not None),
        1,
        ["x"][: not score],
    )
    assert client.zscore("board:1", "x") == score
    assert client.zscore("board:1", "y") == 5


def test_a_place_of_another_type_rejects_only_its_document(url: str, client: Any) -> None:
    sink = opened(url, BOARD, TAGS)
    client.set("board:1", "the application's")
    out = sink.write(Batch(1, {"1": row(game=1, points=1, tags=["a"]), "2": row(game=2, points=2)}, []))
    assert (out.written, [one.id for one in out.rejected]) == (1, ["1"])
    assert "board:1 (a string)" in out.rejected[0].reason
    assert client.exists("player:1", "tag:a") == 0
    client.delete("board:2")
    client.set("board:2", "the application's")
    assert sink.write(Batch(2, {}, ["2"])).deleted == 1
    assert client.get("board:2") == "the application's"


def test_a_resync_with_other_indexes_removes_the_members_of_the_earlier_ones(url: str, client: Any) -> None:
    rows = {"1": row(game=1, points=1, tags=["a"]), "2": row(game=1, points=2)}
    opened(url, BOARD, TAGS).write(Batch(version(1, 5), {**rows, "3": row(game=3, points=3)}, []))
    following = opened(url, {"set": {"key": "game:{game}"}}, hash="b" * 16, epoch=2, generation=2)
    following.write(Batch(version(2, 5), rows, []))
    assert set(following.ids()) == {"1", "2", "3"}, "the sweep deletes 3"
    following.write(Batch(version(2, 6), {}, ["3"]))
    assert client.smembers("game:1") == {"1", "2"}
    assert client.exists("board:1", "board:3", "tag:a") == 0
    assert set(client.hgetall("syncer:indexes")) == {"board:{game}", "tag:{tags}", "game:{game}"}, "until the sweep"
    following.activate()
    assert set(client.hgetall("syncer:indexes")) == {"game:{game}"}
    plain = opened(url, hash="c" * 16, epoch=3, generation=3)
    plain.write(Batch(version(3, 5), rows, []))
    assert client.exists("game:1") == 0
    assert set(plain.ids()) == {"1", "2"}


# -- what `verify` finds


def test_every_kind_of_damage_is_found_and_the_next_write_repairs_it(url: str, client: Any) -> None:
    sink = opened(url, BOARD, TAGS)
    rows = {str(n): row(game=1, points=n, tags=["a"]) for n in range(1, 8)}
    sink.write(Batch(1, rows, []))
    assert audit(sink, rows) == {}
    client.zrem("board:1", "1")  # missing
    client.zadd("board:1", {"2": 99})  # wrong score
    client.zadd("board:9", {"3": 3, "77": 5, "not a key": 1})  # where it must not be
    mark = "version:{player:4}"
    client.set(mark, client.get(mark).partition("\n")[0])  # the pointer lies
    client.sadd("tag:old", "player 5", "somebody else's")
    client.zincrby("board:1", 0, "6")  # no damage
    client.delete("version:{player:7}")
    found = {"1": "differing", "2": "differing", "3": "differing", "4": "differing", "5": "differing", "7": "differing"}
    strays = {"77": "orphaned", "not a key": "orphaned"}
    assert audit(sink, rows) == found | strays
    assert audit(sink, rows) == found | strays, "it is found again until it is repaired"
    sink.write(Batch(2, rows, [*strays]))
    assert audit(sink, rows) == {}
    assert client.smembers("tag:old") == {"somebody else's"}
    assert client.exists("board:9") == 0
    assert dict(client.zrange("board:1", 0, -1, withscores=True)) == {str(n): n for n in range(1, 8)}


def test_only_keys_that_are_recorded_for_the_declaration_are_searched_for_strays(url: str, client: Any) -> None:
    """After the file was changed, and before its resync, the keys may be those of the application."""
    sink = opened(url, BOARD)
    sink.write(Batch(1, {"1": row(game=1, points=1)}, []))
    client.sadd("tag:theirs", "player 1")
    client.sadd("tag:theirs", "player 9")
    changed = build(url, BOARD, TAGS, hash="b" * 16)
    assert isinstance(changed, IndexedSink)
    assert changed.find_strays() == 0
    unclaimed = build(url, BOARD, TAGS)
    assert isinstance(unclaimed, IndexedSink)
    assert unclaimed.find_strays() == 0
    sink.write(Batch(2, {"1": row(game=2, points=1)}, ["9"]))
    assert client.smembers("tag:theirs") == {"player 1", "player 9"}


def test_a_stray_member_of_a_moving_row_is_not_taken_for_a_place(url: str, client: Any) -> None:
    """The scan reads a member, and the row moves before the place is added to the pointer."""
    sink = opened(url, BOARD)
    sink.write(Batch(1, {"1": row(game=1, points=1)}, []))
    before = client.get("version:{player:1}")
    with redis.Redis.from_url(url) as raw:
        found = raw.eval(strays.SCRIPT, 2, "version:{player:1}", "board:2", "7.0", "zset", "1")
    assert found == 0
    assert client.get("version:{player:1}") == before


DAMAGED = [
    '[["zset",',
    "{}x",
    "7",
    '["a"]',
    '[["list","k","m"]]',
    '[["zset","k"]]',
    '[["zset",1,"m"]]',
    '{"a":"b"}',
    "null",
]


@pytest.mark.parametrize("pointer", DAMAGED)
def test_a_damaged_pointer_rejects_only_its_document(url: str, client: Any, pointer: str) -> None:
    sink = opened(url, BOARD)
    rows = {"1": row(game=1, points=1), "2": row(game=1, points=2)}
    sink.write(Batch(1, rows, []))
    mark = "version:{player:1}"
    client.set(mark, client.get(mark).partition("\n")[0] + "\n" + pointer)
    assert audit(sink, rows) == {"1": "differing"}
    assert audit(sink, {"2": rows["2"]}) == {"1": "orphaned"}
    moved = {id: row(game=2, points=1) for id in rows}
    out = sink.write(Batch(2, moved, []))
    assert (out.written, [one.id for one in out.rejected]) == (1, ["1"])
    assert f"redis-cli DEL '{mark}'; syncer verify players --repair" in out.rejected[0].reason
    client.delete(mark)
    assert audit(sink, moved) == {"1": "differing"}
    sink.write(Batch(3, moved, []))
    assert (audit(sink, moved), client.exists("board:1")) == ({}, 0)


def test_an_index_key_of_another_type_does_not_stop_the_search_for_strays(url: str, client: Any) -> None:
    """The key changes between the scan and the script."""
    opened(url, BOARD)
    client.set("board:1", "the application's")
    index = Settings.model_validate({"key": "player:{id}", "indexes": [BOARD]}).indexes[0]
    with redis.Redis.from_url(url) as raw:
        assert strays._adopt(raw, Keys("player:{id}"), index, [("version:{player:1}", "board:1", "1")]) == 0


def test_an_expired_document_keeps_its_members_and_is_not_missing(url: str, client: Any) -> None:
    sink = opened(url, BOARD, expire="1h", tombstone="30m")
    rows = {str(n): row(game=1, points=n) for n in range(1, 4)}
    sink.write(Batch(1, rows, []))
    assert 3590 < client.ttl("player:1") <= 3600
    assert client.ttl("version:{player:1}") == -1
    client.delete("player:1", "player:2")  # as if an hour had passed
    client.zrem("board:1", "2")
    assert audit(sink, rows) == {"1": "expired", "2": "differing"}
    sink.write(Batch(2, {}, ["1"]))
    assert client.zrange("board:1", 0, -1) == ["3"]
    assert 1790 < client.ttl("version:{player:1}") <= 1800


def test_a_stray_member_of_an_expired_document_is_found(url: str, client: Any) -> None:
    """It is a difference, although `expire` explains the missing document."""
    sink = opened(url, BOARD, expire="1h")
    rows = {"1": row(game=1, points=5), "2": row(game=1, points=5)}
    sink.write(Batch(1, rows, []))
    client.delete("player:1", "player:2")  # as if an hour had passed
    client.zadd("board:9", {"1": 5})
    assert audit(sink, rows) == {"1": "differing", "2": "expired"}
    sink.write(Batch(2, rows, []))
    assert (audit(sink, rows), client.exists("board:9")) == ({}, 0)
    mark = "version:{player:1}"
    client.set(mark, client.get(mark).replace("board:1", "old:1"))
    client.zadd("old:1", {"1": 5})
    client.delete("player:1")
    assert audit(sink, rows)["1"] == "differing", "a place of an earlier declaration"


# -- scripts that are cut short


def test_a_script_that_fails_anywhere_is_completed_by_the_same_version(url: str, client: Any) -> None:
    """Redis keeps the writes before an error. The next attempt may have the same version, on an idle database."""
    first, second = row(game=1, points=1, tags=["a"]), row(game=2, points=2, tags=["b"])
    for writes in range(9):
        client.flushall()
        sink = opened(url, BOARD, TAGS)
        sink.write(Batch(1, {"1": first}, []))
        try:
            with script(cut(SCRIPT, writes)):
                done = sink.write(Batch(2, {"1": second}, [])).written
        except SyncerError:
            done = 0
        assert done == (writes >= 7)
        assert (sink.write(Batch(2, {"1": second}, [])).written, audit(sink, {"1": second})) == (1 - done, {})
        assert client.exists("board:1", "tag:a") == 0


def test_a_script_ends_early_when_documents_have_many_places(url: str, client: Any) -> None:
    """One call has up to 500 documents, each with up to 1,000 places. Other clients would wait for all of them."""
    sink = opened(url, TAGS)
    tags = [str(n) for n in range(900)]
    rows = {str(n): row(tags=tags) for n in range(60)}
    assert sink.write(Batch(1, rows, [])) == Outcome(written=60)
    assert client.scard("tag:899") == 60
    client.config_resetstat()
    assert sink.write(Batch(2, {}, [*rows])) == Outcome(deleted=60)
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3
    assert not [*client.scan_iter("tag:*")]


def test_writes_are_retried_while_memory_is_full(url: str, client: Any) -> None:
    sink = opened(url, BOARD, TAGS)
    rows = {str(n): row(game=n % 7, points=n, tags=["a", "b"], name="x" * 500) for n in range(2000)}
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 800_000)
    try:
        sink.write(Batch(1, {id: body for id, body in rows.items() if int(id) % 10 == 0}, []))
        with pytest.raises(Retry):
            sink.write(Batch(2, rows, []))
    finally:
        client.config_set("maxmemory", "0")
    assert sink.write(Batch(5, rows, [])).written == 2000
    assert audit(sink, rows) == {}


def test_a_replica_that_becomes_the_primary_has_pointers_that_fit(url: str) -> None:
    """The effects of a script reach a replica together."""
    with redis_server("--repl-diskless-sync-delay", "0") as second, redis.Redis.from_url(second) as replica:
        sink, after = opened(url, BOARD), build(second, BOARD)
        sink.write(Batch(1, {"1": row(game=1, points=1)}, []))
        replica.replicaof("127.0.0.1", url.rpartition(":")[2].partition("/")[0])
        until(lambda: replica.info("replication").get("master_link_status") == "up")
        sink.write(Batch(2, {"1": row(game=2, points=2)}, []))
        until(lambda: replica.zscore("board:2", "1") == 2)
        replica.replicaof("NO", "ONE")
        sink.write(Batch(3, {"1": row(game=3, points=3)}, []))  # acknowledged, and lost
        after.prepare()
        assert after.write(Batch(4, {"1": row(game=4, points=4)}, [])).written == 1
        assert audit(after, {"1": row(game=4, points=4)}) == {}
        assert replica.exists("board:1", "board:2", "board:3") == 0


def test_a_switch_that_was_frozen_keeps_the_claims_of_a_later_generation(url: str, client: Any) -> None:
    frozen = opened(url, BOARD, epoch=2, generation=2)
    opened(url, BOARD, TAGS, hash="b" * 16, epoch=3, generation=3)
    claims = client.hgetall("syncer:indexes")
    assert len(claims) == 2
    with pytest.raises(Fatal):
        frozen.activate()
    assert client.hgetall("syncer:indexes") == claims


# -- what `check` refuses

REFUSED: list[tuple[Any, str, str]] = [
    ({"set": {"key": "tag:{tag}"}}, "no field tag", "did you mean tags?"),
    ({"set": {"key": "f:{friends}"}}, "friends is object", "use a field with a scalar value"),
    ({"set": {"key": "x:{tags}:{friends.id}"}}, "more than one of the fields is a list", "use only one list"),
    (
        {"sorted_set": {"key": "b:{game}", "score": "name"}},
        "name is text, but a score must be a number",
        "declare a field",
    ),
    ({"sorted_set": {"key": "b:{game}", "score": "at"}}, "at is timestamp", "extract(epoch from"),
    ({"sorted_set": {"key": "b:{game}", "score": "friends.id"}}, "friends.id is a list", "declare a field"),
    ({"sorted_set": {"key": "b:{game}", "score": "pionts"}}, "no field pionts", "did you mean points?"),
    ({"set": {"key": "player:{name}"}}, "can give the same key", "begin them with different texts"),
    ({"set": {"key": "board:{game}:{name}"}}, "can give the same key", "begin them with different texts"),
    ({"set": {"key": "{game}:board"}}, "must begin with fixed text", ""),
    ({"set": {"key": "version:{game}"}}, "reserved", ""),
    ({"set": {"key": "b:{game}", "member": "{name}"}}, "a member contains {id} exactly once", ""),
    ({"set": {"key": "b:{game"}}, "a literal brace is doubled", ""),
    ({"set": {"key": "b:{game}", "score": "points"}}, "indexes.1.set: unknown key 'score'", "one of: key, member"),
    (
        {"sorted_set": {"key": "b:{game}", "scor": "points"}},
        "indexes.1.sorted_set: unknown key 'scor'",
        "did you mean score?",
    ),
    ({}, "either a set or a sorted_set", ""),
]


@pytest.mark.parametrize(("index", "what", "hint"), REFUSED)
def test_mistakes_in_an_index_are_refused(index: Any, what: str, hint: str) -> None:
    with pytest.raises(Fatal) as caught:
        build("redis://127.0.0.1:1/0", BOARD, index)
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_a_mistake_is_shown_at_its_place_in_the_file() -> None:
    block = {"key": "player:{id}", "indexes": [BOARD, {"sorted_set": {"key": "b:{x}", "score": "name"}}]}
    found = sinks.check("redis", block, FIELDS)
    assert [one.block for one in found] == [("indexes", 1, "sorted_set", "key"), ("indexes", 1, "sorted_set", "score")]


def test_a_field_in_the_key_of_a_document_is_refused() -> None:
    with pytest.raises(Fatal) as caught:
        build("redis://127.0.0.1:1/0", key="player:{name}:{id}")
    assert "only {id} can be in the key of a document" in caught.value.what
    assert "set: {key: '…:{name}'}" in caught.value.what


def test_keys_that_may_be_those_of_another_read_model_are_refused(url: str) -> None:
    opened(url, BOARD)
    other = build(url, {"sorted_set": {"key": "board:{game}:weekly", "score": "points"}}, model="other", key="o:{id}")
    with pytest.raises(Fatal, match="read model players") as caught:
        other.prepare()
    assert "redis-cli HDEL syncer:indexes 'board:{game}'" in caught.value.hint
    settings = Settings.model_validate({"key": "o:{id}", "indexes": [BOARD]})
    [problem] = trial(Connection.model_validate({"url": url}), settings, compiled("other", FIELDS))
    assert problem.block == ("indexes", 0)
    own = Settings.model_validate({"key": "player:{id}", "indexes": [BOARD]})
    assert trial(Connection.model_validate({"url": url}), own, compiled("players", FIELDS)) == []


def test_two_read_models_that_start_together_cannot_claim_the_same_keys(url: str, client: Any) -> None:
    """Each checks before the other records. Only one of them may record."""
    first, second = build(url, BOARD), build(url, BOARD, model="other", key="o:{id}")
    read = Claims._read

    def read_and_lose(self: Claims) -> dict[str, bytes]:
        found = read(self)
        with patch.object(Claims, "_read", read):
            first.prepare()
        return found

    with patch.object(Claims, "_read", read_and_lose), pytest.raises(Fatal, match="read model players"):
        second.prepare()
    assert json.loads(client.hget("syncer:indexes", "board:{game}"))["model"] == "players"
    assert client.exists("syncer:meta:o:{id}") == 0


CHANGED: list[tuple[dict[str, Any], str, str]] = [
    ({"indexes": [{"set": {"key": "board:{game}"}}]}, "TYPE", "use another key"),
    ({"indexes": [{"sorted_set": {"key": "board:{name}", "score": "points", "member": "p{id}"}}]}, "member", "another"),
    ({"indexes": [BOARD], "key": "gamer:{id}"}, "have the key player:{id}", "give the indexes other keys as well"),
]


@pytest.mark.parametrize(("block", "why", "hint"), CHANGED)
def test_a_resync_cannot_reuse_keys_that_have_other_members(
    url: str, client: Any, block: dict[str, Any], why: str, hint: str
) -> None:
    opened(url, BOARD)
    before = client.get("syncer:meta:player:{id}")
    key = block.get("key", "player:{id}")
    following = build(url, *block["indexes"], key=key, hash="b" * 16, epoch=2, generation=2)
    with pytest.raises(Fatal, match="earlier declaration") as caught:
        following.prepare()
    assert why in caught.value.why and hint in caught.value.hint
    assert client.get("syncer:meta:player:{id}") == before, "the active generation goes on"
    settings = Settings.model_validate({"key": key, "indexes": block["indexes"]})
    [problem] = trial(Connection.model_validate({"url": url}), settings, compiled("players", FIELDS))
    assert (why in problem.why, problem.block) == (True, ("indexes", 0))


def test_the_keys_of_documents_with_another_key_stay_recorded(url: str, client: Any) -> None:
    opened(url, BOARD)
    other = {"sorted_set": {"key": "rank:{game}", "score": "points"}}
    opened(url, other, key="gamer:{id}", hash="b" * 16, epoch=2, generation=2).activate()
    assert set(client.hgetall("syncer:indexes")) == {"board:{game}", "rank:{game}"}


@pytest.mark.parametrize(("rights", "why"), [("~*", ""), ("~* -zrem", "zrem"), ("~o:* ~version:* ~syncer:*", "perm")])
def test_missing_permissions_for_an_index_are_reported(url: str, client: Any, rights: str, why: str) -> None:
    settings = Settings.model_validate({"key": "o:{id}", "indexes": [BOARD, TAGS]})
    client.execute_command("ACL", "SETUSER", "writer", "reset", "on", ">secret", "+@all", *rights.split())
    connection = Connection.model_validate({"url": url, "username": "writer", "password": "secret"})
    found = trial(connection, settings, compiled("other", FIELDS))
    assert [why in one.why for one in found] == ([True] if why else [])
    assert client.dbsize() == 0


# -- a cluster


def on_cluster(url: str, key: str, *indexes: Any) -> Fatal | None:
    settings = Settings.model_validate({"key": key, "indexes": list(indexes)})
    found = preflight(Connection.model_validate({"url": url, "cluster": True}), [settings])
    assert all(isinstance(error, Fatal) for error in found)
    return found[0] if found else None  # type: ignore[return-value]


def test_a_cluster_needs_one_hash_tag(cluster: str) -> None:
    assert on_cluster(cluster, "player:{id}") is None
    assert on_cluster(cluster, "{{games}}:player:{id}", TAGGED) is None
    assert on_cluster(cluster, "p:{{{id}}}", {"set": {"key": "tags:{{{id}}}:{tags}"}}) is None
    for key, index in [
        ("player:{id}", BOARD),
        ("{{games}}:player:{id}", BOARD),
        ("{{other}}:player:{id}", TAGGED),
        ("p:{{{id}}}", TAGGED),
        ("{{}}:player:{id}", {"set": {"key": "{{}}:x"}}),
    ]:
        error = on_cluster(cluster, key, index)
        assert error and "need the same hash tag" in error.what and "doubled braces" in error.hint
    error = on_cluster(cluster, "{{games}}:player:{id}", {"set": {"key": "b:{{{game}}}"}})
    assert error and "none" not in error.why
    with pytest.raises(Fatal, match="need the same hash tag"):
        opened(cluster, BOARD, cluster=True)


def test_a_value_with_a_brace_is_rejected_where_it_would_change_the_slot(cluster: str) -> None:
    sink = opened(cluster, {"set": {"key": "name:{name}:{{games}}"}}, key="{{games}}:braces:{id}", cluster=True)
    out = sink.write(Batch(1, {"1": row(name="{x}"), "2": row(name="x")}, []))
    assert (out.written, [one.id for one in out.rejected]) == (1, ["1"])
    assert "not in the slot" in out.rejected[0].reason
    rows = {"1": row(name="{x}"), "2": row(name="x")}
    assert audit(sink, rows) == {"1": "missing"}, "as a document that Elasticsearch refuses"
    late = opened(cluster, {"set": {"key": "named:{name}:{{games}}"}}, key="late:{id}:{{games}}", cluster=True)
    late.write(Batch(1, rows, []))
    assert audit(late, rows) == {"1": "missing"}


def test_a_slot_that_moves_cuts_a_script_short_and_loses_nothing(cluster: str) -> None:
    """While a slot moves, a script may find that an old place is on the other server already."""
    block: Any = {"key": "{{games}}:moving:{id}", "cluster": True}
    sink = opened(cluster, {"sorted_set": {"key": "{{games}}:move:{game}", "score": "points"}}, **block)
    rows = {str(n): row(game=1, points=n) for n in range(20)}
    assert sink.write(Batch(1, rows, [])).written == 20
    moved = {id: row(game=2, points=5) for id in rows}
    with redis.RedisCluster.from_url(cluster) as connected:
        source, target = owner_and_another(connected, "{games}")
        with moving_slot(connected, slot("{games}"), source, target, "{games}:move:1"), pytest.raises(Retry):
            sink.write(Batch(2, moved, []))
        until(lambda: written(sink, Batch(2, moved, [])), seconds=10)
        assert audit(sink, moved) == {}
        assert connected.exists("{games}:move:1") == 0
        assert connected.zcard("{games}:move:2") == 20


def written(sink: Sink, batch: Batch) -> bool:
    """Writes until the sink has the new layout of the cluster."""
    try:
        out = sink.write(batch)
    except Retry:
        return False
    return not out.retry
