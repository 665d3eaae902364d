"""Generated histories of the Redis sink with indexes, compared with a plain model. Weaker scripts fail the same test.

In a history, rows change, and writers write what a snapshot showed: late, twice, in any order, with a lost reply, or
with a script that fails after some of its writes. As the syncer does, a writer renders a document again if the result
of a write is unknown. At the end, Redis has to hold exactly what the newest write of each row says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from syncer import sinks
from syncer.declaration.compile import Field
from syncer.document import Batch
from syncer.errors import SyncerError
from syncer.ports import Sink
from syncer.sinks.redis.calls import SCRIPT
from tests.contracts.sinks import compiled
from tests.harness.redis_script import WEAKER, cut, script
from tests.harness.redis_servers import redis_server, valkey_binary

FIELDS = (Field("game", "bigint", many=False), Field("points", "bigint", many=False), Field("tags", "text", many=True))
BLOCK = {
    "key": "player:{id}",
    "indexes": [
        {"sorted_set": {"key": "board:{game}", "member": "p{id}", "score": "points"}},
        {"sorted_set": {"key": "all", "score": "points"}},
        {"set": {"key": "tag:{tags}"}},
    ],
}
IDS = ("1", "2", "3")

rows = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "game": st.sampled_from([1, 2, 3, None]),
            "points": st.sampled_from([-5, 0, 1, 2.5, 7, None]),
            "tags": st.sampled_from([[], ["a"], ["b"], ["a", "b"], None]),
        }
    ),
)
ids = st.sampled_from(IDS)
some_ids = st.lists(ids, min_size=1, max_size=3, unique=True)
ages = st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.just("commit"), ids, rows),
    st.tuples(st.just("write"), some_ids, ages),
    st.tuples(st.just("lost reply"), some_ids, ages),
    st.tuples(st.just("cut"), some_ids, ages, st.integers(0, 9)),
)
OPENING = [*(("commit", id, {"game": 1, "points": 1, "tags": ["a"]}) for id in IDS), ("write", list(IDS), 0)]
histories = st.lists(steps, min_size=4, max_size=24).flatmap(lambda found: st.sampled_from([found, [*OPENING, *found]]))


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url(server: str) -> Iterator[str]:
    with redis_server(binary=valkey_binary() if server == "valkey" else "redis-server") as url:
        yield url


@pytest.fixture(scope="module")
def sink(url: str) -> Iterator[Sink]:
    opened = sinks.build("redis", BLOCK, model=compiled("players", FIELDS), connection={"url": url})
    opened.prepare()
    yield opened
    opened.close()


def play(sink: Sink, client: Any, history: list[Any], text: str) -> None:
    """Plays the history with this script, and compares the keys of the server with the model."""
    client.flushall()
    commits: list[dict[str, Any]] = [dict.fromkeys(IDS)]
    newest: dict[str, int] = {}
    """By id: the highest clock that was written for certain."""
    unknown: set[str] = set()

    def write(chosen: list[str], clock: int, used: str) -> bool:
        shown = commits[clock]
        upserts = {id: json.dumps(shown[id]).encode() for id in chosen if shown[id] is not None}
        try:
            with script(used):
                out = sink.write(Batch(clock + 1, upserts, [id for id in chosen if id not in upserts]))
        except SyncerError:
            return False
        assert not out.rejected and not out.retry
        return True

    for kind, *rest in history:
        if kind == "commit":
            commits.append({**commits[-1], rest[0]: rest[1]})
            continue
        chosen, clock = rest[0], max(0, len(commits) - 1 - rest[1])
        done = write(chosen, clock, cut(text, rest[2]) if kind == "cut" else text)
        if done:
            newest |= {id: max(clock, newest.get(id, 0)) for id in chosen}
        if not done or kind == "lost reply":
            unknown |= set(chosen)
        if not done:
            check_pointers(client)
    for id in sorted(unknown):  # rendered again, maybe in a snapshot of the same clock
        assert write([id], len(commits) - 1, text)
        newest[id] = len(commits) - 1
    assert keys_of(client) == expected({id: commits[clock][id] for id, clock in newest.items()})


def check_pointers(client: Any) -> None:
    """Asserts that the pointers list every member, and that they do not expire, after a script that was cut short."""
    found, listed = keys_of(client), set[tuple[str, str]]()
    for name, content in found.items():
        if name.startswith("version:"):
            listed |= {(key, member) for key, member in content}
    for name, content in found.items():
        if not name.startswith(("version:", "player:")):
            missing = {(name, member.decode()) for member in content} - listed
            assert not missing, "no pointer lists a member"


def keys_of(client: Any) -> dict[str, Any]:
    """Returns the content of all keys that applications read, and the places in the pointers."""
    found: dict[str, Any] = {}
    for key in client.scan_iter():
        name = key.decode()
        if name.startswith("version:"):
            _, _, pointer = client.get(key).partition(b"\n")
            found[name] = sorted(place[1:3] for place in json.loads(pointer or b"[]"))
            assert client.ttl(key) == -1 or not found[name], "a pointer expired"
        elif name.startswith("player:"):
            found[name] = json.loads(client.get(key))
        elif name == "all" or name.startswith("board:"):
            found[name] = dict(client.zrange(key, 0, -1, withscores=True))
        elif name.startswith("tag:"):
            found[name] = client.smembers(key)
    return found


def expected(rows: dict[str, Any]) -> dict[str, Any]:
    """Returns the same of a Redis that holds these rows."""
    found: dict[str, Any] = {f"version:{{player:{id}}}": [] for id in rows}
    for id, row in rows.items():
        if row is None:
            continue
        found[f"player:{id}"], places = row, []
        if row["points"] is not None:
            places.append(["all", id])
            if row["game"] is not None:
                places.append([f"board:{row['game']}", f"p{id}"])
        for key, member in places:
            found.setdefault(key, {})[member.encode()] = row["points"]
        for tag in row["tags"] or []:
            found.setdefault(f"tag:{tag}", set()).add(id.encode())
            places.append([f"tag:{tag}", id])
        found[f"version:{{player:{id}}}"] = sorted(places)
    return found


def search(sink: Sink, url: str, text: str, examples: int, *, expected_to_fail: bool = False) -> None:
    """Plays generated histories, the same ones each time. Raises AssertionError for the first that goes wrong."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=[Phase.generate] if expected_to_fail else [Phase.generate, Phase.shrink],
    )
    @given(histories)
    def run(history: list[Any]) -> None:
        play(sink, client, history, text)

    with redis.Redis.from_url(url) as client:
        run()


def test_redis_holds_what_the_newest_write_of_each_row_says(sink: Sink, url: str) -> None:
    search(sink, url, SCRIPT, 200)


@pytest.mark.parametrize("server", ["redis"], indirect=True, scope="module")
@pytest.mark.parametrize("rule", WEAKER)
def test_a_weaker_rule_is_detected(sink: Sink, url: str, rule: str) -> None:
    with redis.Redis.from_url(url) as client:  # without faults, the script works
        play(
            sink, client, [("commit", "1", {"game": 1, "points": 3, "tags": ["a"]}), ("write", ["1"], 0)], WEAKER[rule]
        )
    with pytest.raises(AssertionError):
        search(sink, url, WEAKER[rule], 2000, expected_to_fail=True)
