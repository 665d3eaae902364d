"""The partials of the Redis sink: what a writer remembers never hides what the server has.

The script runs in the simulated server (`tests/simulation/redis_server.py`), which has failovers and scripts that fail
halfway. After each write, the returned partials must be those of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import redis
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from syncer.clock import EPOCH_SHIFT
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.errors import LaterEpoch, SyncerError
from syncer.ports import StoredPartial
from syncer.sinks.redis import partials
from syncer.sinks.redis.cluster import Servers
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.partials import RedisPartials
from syncer.sinks.target import Target
from tests.harness.redis_script import digest
from tests.simulation.redis_client import Client
from tests.simulation.redis_server import RedisServer

TOMBSTONE = 10
KEYS = Keys("device:{id}")
SCRIPT = partials.SCRIPT


class Write(NamedTuple):
    """A writer writes partials of some documents.

    bodies: by document and bucket. fails_after: the number of writes after which the script fails.
    """

    writer: int
    age: int
    bodies: Mapping[str, Mapping[str, bytes | None]]
    fails_after: int | None


class FailOver(NamedTuple):
    lost: int


class Wait(NamedTuple):
    seconds: int


Step = Write | FailOver | Wait
BUCKETS = st.sampled_from(["0", "1", "2", ROOT_PARTIAL])
BODIES = st.dictionaries(BUCKETS, st.sampled_from([b"[1]", b"[2]", None]), min_size=1, max_size=2)
WRITES = st.builds(
    Write,
    st.integers(0, 2),
    st.integers(0, 3),
    st.dictionaries(st.sampled_from(["a", "b"]), BODIES, min_size=1, max_size=2),
    st.one_of(st.none(), st.none(), st.integers(0, 6)),
)
STEPS = st.one_of(
    WRITES, WRITES, WRITES, st.builds(FailOver, st.integers(1, 3)), st.builds(Wait, st.just(3 * TOMBSTONE))
)


class World:
    """One server, and writers that share nothing else. most_bytes: what a writer remembers."""

    def __init__(self, most_bytes: int = 1 << 20, epochs: Sequence[int] = (1, 1, 1)) -> None:
        self.clock = SimpleNamespace(now=0.0)
        self.server = RedisServer("redis", self.clock)  # type: ignore[arg-type]
        self.fails_after: int | None = None
        self.requests = 0
        client = Client(self, self.server)
        self.writers = [
            RedisPartials(
                Servers(lambda: client),  # type: ignore[arg-type, return-value]
                KEYS,
                Target("redis", "devices", "hash", epoch, 1),
                TOMBSTONE,
                most_bytes,
            )
            for epoch in epochs
        ]

    def send(self, server: RedisServer, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """`redis_client.Network`."""
        self.requests += 1
        answers: list[Any] = []
        for command in commands:
            try:
                answers.append(server.execute(*command, fails_after=self.fails_after))
            except redis.RedisError as error:
                answers.append(error)
        return answers

    def stored(self, id: str) -> dict[str, StoredPartial]:
        fields = self.server.hgetall(KEYS.partials(KEYS.document(id)))
        return partials._partials({name.encode(): str(value).encode() for name, value in fields.items()})

    def write(self, writer: int, version: int, bodies: Mapping[str, Mapping[str, bytes | None]]) -> None:
        found = self.writers[writer].write(version, bodies, 30.0)
        assert found == {id: self.stored(id) for id in bodies}


def version(number: int, epoch: int = 1) -> int:
    return (epoch << EPOCH_SHIFT) + number


def right(history: Sequence[Step], most_bytes: int = 1 << 20) -> bool:
    """Runs the history. Returns whether each write returned the partials that the server had then."""
    world = World(most_bytes)
    for number, step in enumerate(history):
        if isinstance(step, Wait):
            world.clock.now += step.seconds
        elif isinstance(step, FailOver):
            world.server.fail_over(step.lost)
        else:
            world.fails_after = step.fails_after
            try:
                world.write(step.writer, version(max(1, number + 4 - 2 * step.age)), step.bodies)
            except SyncerError:
                assert step.fails_after is not None
            except AssertionError:
                return False
    return True


HISTORIES = st.lists(STEPS, min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(history=HISTORIES, most_bytes=st.sampled_from([0, 700, 1500, 1 << 20]))
def test_a_write_returns_the_partials_of_the_server(history: Sequence[Step], most_bytes: int) -> None:
    assert right(history, most_bytes)


def test_partials_are_sent_once() -> None:
    world, answers = World(), list[Any]()
    for number in range(1, 4):
        world.write(0, version(number), {"a": {"0": b"[%d]" % number}})
    with patch.object(world.server, "hgetall", side_effect=AssertionError("the server sends the hash again")):
        answers.append(world.writers[0].write(version(9), {"a": {"1": b"[9]"}}, 30.0))
    assert answers == [{"a": {"0": StoredPartial(version(3), b"[3]"), "1": StoredPartial(version(9), b"[9]")}}]


def test_an_edited_hash_is_read_again() -> None:
    world, key = World(), KEYS.partials(KEYS.document("a"))
    world.write(0, version(1), {"a": {"0": b"[1]", "1": b"[1]"}})
    world.server.values[key].pop("0")  # type: ignore[union-attr, call-arg]
    world.write(0, version(2), {"a": {"1": b"[2]"}})
    world.server.hset(key, "1", f"{version(9):020d}[9]")
    world.write(0, version(3), {"a": {"1": b"[3]"}})


def test_partials_of_a_later_epoch_are_not_overwritten() -> None:
    world = World(epochs=(1, 2))
    world.write(0, version(1), {"a": {"0": b"[1]", "1": b"[1]"}})
    world.write(1, version(1, epoch=2), {"a": {"0": b"[2]"}})
    with pytest.raises(LaterEpoch):
        world.write(0, version(2), {"a": {"0": b"[3]"}})
    world.write(1, version(2, epoch=2), {"a": {"1": b"[4]"}})


CONTENT = RedisPartials._content


def believes(self: RedisPartials, *given: Any) -> Any:
    """Does not compare versions with those that it knows."""
    number, parts, answer, known = given
    if known is None or len(answer) != 2:
        return CONTENT(self, *given)
    return {**known.partials, **{name: StoredPartial(number, body or None) for name, body in parts.items()}}


def weaker(old: str, new: str) -> str:
    assert old in SCRIPT, old
    return SCRIPT.replace(old, new)


WEAKER_SCRIPTS = {
    "the etag changes after the partials": weaker("    redis.call('HSET', key, 'etag', etag)\n", "").replace(
        "    out[k] = known", "    redis.call('HSET', key, 'etag', etag)\n    out[k] = known"
    ),
    "the etag changes only once": weaker(
        "redis.call('HSET', key, 'etag', etag)",
        "if not redis.call('HGET', key, 'etag') then redis.call('HSET', key, 'etag', etag) end",
    ),
    "any etag is known": weaker("redis.call('HGET', key, 'etag') == known", "redis.call('HGET', key, 'etag') ~= false"),
    "a known etag is not compared": weaker("known ~= '' and redis.call('HGET', key, 'etag') == known", "known ~= ''"),
}
SMALL = settings(
    max_examples=3000, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def assert_found(wrong: Callable[[Sequence[Step]], bool]) -> None:
    try:
        find(HISTORIES, wrong, settings=SMALL)
    except NoSuchExample:
        pytest.fail("no history shows the weaker rule")


@pytest.mark.parametrize("rule", WEAKER_SCRIPTS)
def test_a_weaker_script_is_detected(rule: str) -> None:
    text = WEAKER_SCRIPTS[rule]
    with (
        patch.object(partials, "SCRIPT", text),
        patch.object(partials, "_SHA", digest(text)),
        patch.object(RedisPartials, "_content", trusts_the_count),
    ):
        assert_found(lambda history: not right(history))


def trusts_the_count(self: RedisPartials, *given: Any) -> Any:
    """Does not compare the numbers of the answer. The rules of the script must not need it."""
    number, parts, answer, known = given
    if known is None or len(answer) != 2:
        return CONTENT(self, *given)
    newer = {
        name: StoredPartial(number, body or None)
        for name, body in parts.items()
        if name not in known.partials or known.partials[name].version < number
    }
    return {**known.partials, **newer}


def test_histories_are_right_without_the_count_of_the_answer() -> None:
    @settings(max_examples=300, deadline=None)
    @given(history=HISTORIES)
    def check(history: Sequence[Step]) -> None:
        assert right(history)

    with patch.object(RedisPartials, "_content", trusts_the_count):
        check()


def test_a_writer_that_does_not_compare_versions_is_detected() -> None:
    with patch.object(RedisPartials, "_content", believes):
        assert_found(lambda history: not right(history))


def test_an_etag_that_is_used_twice_is_detected() -> None:
    with patch("secrets.token_hex", lambda _: "0"), patch.object(RedisPartials, "_content", trusts_the_count):
        assert_found(lambda history: not right(history))
