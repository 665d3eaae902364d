"""The contract of `ports.Sink`. Every sink keeps the highest version of an id, in any order of writes and deletes."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from syncer.clock import version
from syncer.document import Batch, Outcome
from syncer.errors import Fatal
from syncer.ports import Sink
from tests.contracts.sinks import KINDS, SERVED, Harness, harness
from tests.harness.redis_servers import redis_cluster


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(kind: str, request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Starts servers only for the sinks that need the test stack."""
    prefix = request.getfixturevalue("names").prefix if kind in SERVED else f"t{uuid.uuid4().hex[:8]}"

    def url(server: str) -> str:
        if server == "redis-cluster":
            return str(request.getfixturevalue("cluster"))
        return str(getattr(request.getfixturevalue("stack"), server))

    with harness(kind, prefix, url) as made:
        yield made


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    with redis_cluster() as url:
        yield url


@pytest.fixture
def sink(target: Harness) -> Iterator[Sink]:
    opened = target.open()
    opened.prepare()
    yield opened
    opened.close()


NONE: Mapping[str, bytes] = {}


def doc(n: int, **more: object) -> bytes:
    return json.dumps({"n": n, **more}).encode()


def put(sink: Sink, at: int, upserts: Mapping[str, bytes] = NONE, deletes: Sequence[str] = ()) -> Outcome:
    """Writes, and asserts that every id of the batch is counted exactly once and none has to be retried."""
    batch = Batch(at, dict(upserts), list(deletes))
    out = sink.write(batch)
    assert out.written + out.deleted + out.stale + len(out.retry) + len(out.rejected) == len(batch)
    assert not out.retry, out.retry_reason
    return out


def holds(sink: Sink, expected: dict[str, bytes]) -> bool:
    """Returns whether the sink has exactly these documents."""
    stored = {id: sink.normalize(body) for id, body in expected.items()}
    return sink.read(list(expected)) == stored and set(sink.ids()) == set(expected)


VERSIONS = [
    pytest.param(1, 2, id="small"),
    pytest.param(2**53, 2**53 + 1, id="2^53"),
    pytest.param((1 << 48) + 999_999_999, (1 << 48) + 1_000_000_000, id="digits"),
    pytest.param((1 << 48) + 7, (3 << 48) + 1, id="epochs"),
]


@pytest.mark.parametrize(("old", "new"), VERSIONS)
def test_the_newer_version_wins_in_any_order(target: Harness, old: int, new: int) -> None:
    sink = target.open(epoch=33)  # 2^53 is a version of epoch 32
    sink.prepare()
    assert put(sink, old, {"a": doc(1), "b": doc(1)}).written == 2
    assert put(sink, new, {"a": doc(2)}).written == 1
    assert put(sink, old, {"a": doc(1)}).stale == 1
    assert put(sink, old, deletes=("a",)).stale == 1
    assert holds(sink, {"a": doc(2), "b": doc(1)})
    sink.close()


def test_an_equal_version_counts_as_stale(sink: Sink) -> None:
    assert put(sink, 5, {"a": doc(1)}).written == 1
    assert put(sink, 5, {"a": doc(2)}).stale == 1
    assert put(sink, 5, deletes=("a",)).stale == 1
    assert holds(sink, {"a": doc(1)})


def test_the_outcome_has_the_newest_version_of_the_target(sink: Sink) -> None:
    at = [version(1, (1 << 40) + n) for n in range(5)]
    put(sink, at[2], {"a": doc(1)}, deletes=("b",))
    put(sink, at[3], {"c": doc(1)})
    assert put(sink, at[1], {"a": doc(0), "b": doc(0), "new": doc(1)}).newest_version == at[2]
    total = put(sink, at[1], {"c": doc(0)}, deletes=("a",))
    assert total.newest_version == at[3]
    total.add(put(sink, at[2], {"a": doc(0)}, deletes=("b",)))  # an equal version is not newer
    assert (total.stale, total.newest_version) == (4, at[3])
    assert put(sink, at[3], {"c": doc(0)}) == Outcome(stale=1)
    assert put(sink, at[4], {"a": doc(2)}) == Outcome(written=1)


def test_a_delete_with_the_lowest_version_reports_the_newest_and_changes_nothing(sink: Sink) -> None:
    """The sink of Elasticsearch reads the versions of deletes in this way."""
    put(sink, version(1, 8), {"a": doc(1)}, deletes=("b",))
    assert put(sink, 1, deletes=("a", "b", "c")).newest_version == version(1, 8)
    assert holds(sink, {"a": doc(1)})
    assert put(sink, version(1, 9), {id: doc(2) for id in "abc"}).written == 3


def test_versions_are_those_of_documents_and_of_deletes(sink: Sink) -> None:
    put(sink, version(1, 1 << 40), {"a": doc(1), "b": doc(1)})
    put(sink, version(1, (1 << 40) + 7), {"b": doc(2)}, deletes=("a", "absent"))
    expected = {"a": version(1, (1 << 40) + 7), "b": version(1, (1 << 40) + 7), "absent": version(1, (1 << 40) + 7)}
    assert sink.versions(["a", "b", "absent", "never", "", "x" * 513]) == expected
    assert sink.versions(["b"]) == {"b": expected["b"]}
    assert sink.versions([]) == {}


def test_reading_versions_changes_nothing(sink: Sink) -> None:
    put(sink, version(1, 8), {"a": doc(1)}, deletes=("b",))
    for _ in range(2):
        assert sink.versions(["a", "b", "c"]) == {"a": version(1, 8), "b": version(1, 8)}
    assert holds(sink, {"a": doc(1)})
    assert put(sink, version(1, 7), {"a": doc(2), "b": doc(2)}).stale == 2
    assert put(sink, version(1, 1), {"c": doc(2)}).written == 1


def test_versions_of_a_later_epoch_are_returned(sink: Sink, target: Harness) -> None:
    later = target.open(epoch=2)
    put(later, version(2, 5), {"a": doc(1)}, deletes=("b",))
    later.close()
    assert sink.versions(["a", "b"]) == {"a": version(2, 5), "b": version(2, 5)}


def test_versions_of_many_ids(sink: Sink) -> None:
    ids = [f"k{i}" for i in range(2500)]
    put(sink, version(1, 3), {id: doc(1) for id in ids[:1500]}, deletes=tuple(ids[1500:2000]))
    assert sink.versions(ids) == dict.fromkeys(ids[:2000], version(1, 3))


def test_documents_are_counted(sink: Sink) -> None:
    assert sink.count() == 0
    put(sink, 3, {"a": doc(1), "b": doc(1)}, deletes=("c",))
    assert sink.count() == 2


def test_a_delete_is_not_undone_by_an_older_write(sink: Sink) -> None:
    put(sink, 5, {"a": doc(1)})
    assert put(sink, 7, deletes=("a",)).deleted == 1
    assert put(sink, 6, {"a": doc(2)}).stale == 1
    assert put(sink, 7, {"a": doc(2)}).stale == 1
    assert holds(sink, {})


def test_hazard_22_a_delete_of_an_absent_id_is_remembered(sink: Sink) -> None:
    assert put(sink, 7, deletes=("a",)).deleted == 1
    assert put(sink, 6, {"a": doc(1)}).stale == 1
    assert holds(sink, {})


def test_a_newer_write_replaces_a_delete(sink: Sink) -> None:
    put(sink, 7, deletes=("a",))
    assert put(sink, 8, {"a": doc(3)}).written == 1
    assert holds(sink, {"a": doc(3)})


def test_hazard_24_one_bad_document_leaves_the_others_alone(sink: Sink, target: Harness) -> None:
    upserts = {f"good{i}": doc(i) for i in range(20)}
    batch = dict(list(upserts.items())[:10]) | {"bad": target.bad("bad"), "": doc(0)} | upserts
    out = put(sink, 3, batch, deletes=("gone",))
    assert (out.written, out.deleted) == (20, 1)
    assert sorted(rejection.id for rejection in out.rejected) == ["", "bad"]
    assert all(rejection.reason for rejection in out.rejected)
    assert sink.read(list(upserts)) == {id: sink.normalize(body) for id, body in upserts.items()}


def test_deletes_of_impossible_ids_succeed(sink: Sink) -> None:
    """They occur: a child row can link to '', and a row whose document was rejected can be deleted."""
    put(sink, 3, {"a": doc(1)})
    assert put(sink, 4, deletes=("", "x" * 513, "a")) == Outcome(deleted=3)
    assert put(sink, 5, deletes=("",)) == Outcome(deleted=1)
    assert holds(sink, {})


def test_a_rejected_document_leaves_the_older_one(sink: Sink, target: Harness, kind: str) -> None:
    if kind.startswith("redis"):  # here Redis rejects a key of the application, so there is no older document
        assert put(sink, 3, {"x": target.bad("x")}).rejected
        assert sink.read(["x"]) == {}
        return
    put(sink, 3, {"x": doc(1)})
    assert put(sink, 4, {"x": target.bad("x")}).rejected
    assert holds(sink, {"x": doc(1)})


def test_a_large_batch_is_written_whole(sink: Sink) -> None:
    first = {f"k{i}": doc(i, name="x" * 300) for i in range(5000)}
    assert put(sink, 10, first) == Outcome(written=5000)
    second = {f"k{i}": doc(-i) for i in range(0, 5000, 2)}
    deletes = tuple(f"k{i}" for i in range(1, 5000, 4))
    assert put(sink, 11, second, deletes) == Outcome(written=2500, deleted=1250)
    expected = {id: body for id, body in (first | second).items() if id not in set(deletes)}
    assert holds(sink, expected)


def test_an_empty_batch_is_accepted(sink: Sink) -> None:
    assert put(sink, 1) == Outcome()


IDS = [
    "1",
    "a b",
    " ",
    "a/b",
    "..",
    "%2F",
    "ключ",
    "日本語",
    "🙂",
    "a|b",
    r"a\|b",
    "*",
    "a*?[x]^-",
    "version:1",
    "_id",
    "{a}",
    "a{b",
    "a}b",
    "}{",
    "{}",
    "a{}b",
    "{a}{b}",
    '"quoted"',
    "a\nb",
    "\t",
    "'",
    "&=+#;,",
    "x" * 500,
    "я" * 250,
]


def test_ids_may_have_any_characters(sink: Sink) -> None:
    expected = {id: doc(i) for i, id in enumerate(IDS)}
    assert put(sink, 10, expected).written == len(IDS)
    assert put(sink, 9, {id: doc(-1) for id in IDS}).stale == len(IDS)
    assert holds(sink, expected)
    assert put(sink, 11, deletes=tuple(IDS)).deleted == len(IDS)
    assert put(sink, 10, expected).stale == len(IDS)
    assert holds(sink, {})


def test_values_keep_every_digit(sink: Sink) -> None:
    text = '{"n":9223372036854775807,"exact":12345678901234567890.12345678901234567890,'
    text += '"name":"ü\\u0000\\n🙂","on":true}'
    put(sink, 1, {"a": text.encode()})
    body = sink.read(["a"])["a"]
    assert body == sink.normalize(text.encode())
    values: dict[str, Any] = json.loads(body, parse_float=Decimal)
    assert str(values["exact"]) == "12345678901234567890.12345678901234567890"
    assert int(values["n"]) == 9223372036854775807
    assert values["name"] == "ü\0\n🙂"


def test_hazard_24_a_line_break_in_a_document_does_not_affect_others(sink: Sink) -> None:
    assert put(sink, 1, {"a": b'{\n  "n": 1\n}', "b": doc(2)}).written == 2
    assert json.loads(sink.read(["a"])["a"])["n"] in (1, "1")


def test_absent_ids_are_left_out_when_read(sink: Sink) -> None:
    put(sink, 1, {"a": doc(1)})
    put(sink, 1, deletes=("b",))
    assert sink.read(["a", "b", "c", ""]) == {"a": sink.normalize(doc(1))}
    assert sink.read([]) == {}


def test_preparing_again_changes_nothing(sink: Sink, target: Harness) -> None:
    put(sink, 1, {"a": doc(1)})
    sink.prepare()
    other = target.open()
    other.prepare()
    assert holds(other, {"a": doc(1)})
    other.close()


def test_writes_do_not_change_the_durability_token(sink: Sink, target: Harness) -> None:
    put(sink, 1, {"c": doc(1)})
    before = sink.durability()
    put(sink, 1, {"a": doc(1), "b": doc(1)})
    put(sink, 2, deletes=("a",))
    other = target.open()
    other.prepare()
    assert sink.durability()[:2] == other.durability()[:2] == before[:2]
    assert {"b"} <= set(sink.ids(before.written)) <= {"b", "c"}
    other.close()


def test_the_first_generation_is_active_and_activating_it_changes_nothing(sink: Sink) -> None:
    put(sink, 1, {"a": doc(1)})
    assert sink.activate() == []
    assert sink.activate() == []
    assert holds(sink, {"a": doc(1)})


def test_processes_may_prepare_concurrently(target: Harness) -> None:
    made = [target.open() for _ in range(6)]
    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(lambda sink: sink.prepare(), made))
    put(made[0], 1, {"a": doc(1)})
    assert holds(made[1], {"a": doc(1)})
    for sink in made:
        sink.close()


def test_a_target_of_another_declaration_is_refused(sink: Sink, target: Harness) -> None:
    other = target.open(hash="fedcba9876543210")
    with pytest.raises(Fatal) as caught:
        other.prepare()
    assert caught.value.hint == f"syncer resync {target.model.name}"
    other.close()


def test_hazard_23_an_earlier_epoch_is_refused_and_a_later_one_recorded(sink: Sink, target: Harness) -> None:
    later, earlier = target.open(epoch=2), target.open(epoch=1)
    later.prepare()
    with pytest.raises(Fatal, match="later epoch"):
        earlier.prepare()
    for opened in (later, earlier):
        opened.close()


def test_hazard_23_a_document_of_a_later_epoch_stops_the_writer(sink: Sink, target: Harness) -> None:
    later = target.open(epoch=2)
    assert put(later, version(2, 5), {"a": doc(1)}).written == 1
    later.close()
    with pytest.raises(Fatal) as caught:
        sink.write(Batch(version(1, 900), {"a": doc(2)}, []))
    assert "'a'" in str(caught.value)
    assert caught.value.hint == f"syncer resync {target.model.name}"


def test_concurrent_writers_converge_to_the_highest_version(target: Harness) -> None:
    random.seed(20)
    ids = [f"k{i}" for i in range(40)]
    batches = []
    for number in random.sample(range(1, 10_000), 60):
        at = version(1, number)
        chosen = random.sample(ids, 25)
        batches.append(Batch(at, {id: doc(at, name=id) for id in chosen[:18]}, chosen[18:]))
    last: dict[str, Batch] = {}
    for batch in sorted(batches, key=lambda batch: batch.version):
        last |= dict.fromkeys([*batch.upserts, *batch.deletes], batch)
    writers = [target.open() for _ in range(6)]
    for writer in writers:
        writer.prepare()
    with ThreadPoolExecutor(len(writers)) as pool:
        outs = list(pool.map(lambda pair: writers[pair[0] % 6].write(pair[1]), enumerate(batches)))
    assert all(not out.retry and not out.rejected for out in outs)
    assert holds(writers[0], {id: batch.upserts[id] for id, batch in last.items() if id in batch.upserts})
    for writer in writers:
        writer.close()
