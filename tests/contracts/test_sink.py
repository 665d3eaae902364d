"""The contract of `ports.Sink`. Every sink keeps the highest version of an id, in any order of writes and deletes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from syncer.clock import version
from syncer.document import Batch, Outcome
from syncer.errors import Fatal
from syncer.pipeline.log_order import PartitionOrder
from syncer.ports import Partition, PublishedWatermark, PublishingSink, ReorderingSink, SearchableSink, Sink
from syncer.sinks.postgres.sink import PostgresSink
from tests.contracts.sinks import KINDS, Harness
from tests.harness.waiting import until


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sink(target: Harness) -> Iterator[Sink]:
    opened = target.open()
    opened.prepare()
    yield opened
    opened.close()


def test_generations_share_documents_exactly_in_sinks_that_write_in_place(target: Harness, sink: Sink) -> None:
    sink.write(Batch(version(1, 5), {"1": doc(1)}, []))
    following = target.open(epoch=2, generation=2)
    following.prepare()
    assert (following.versions(["1"]) == {"1": version(1, 5)}) == following.in_place == sink.in_place
    following.close()


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


def reorder(sink: Sink, last: Mapping[str, Batch]) -> None:
    """Does the work of the order lane: writes the documents again of which an older version came last.

    last: by id, the batch with the highest version. It is written again with this version, as on an idle database.
    Does nothing unless the sink has to be helped in this way. The others must refuse every late write.
    """
    if not isinstance(sink, ReorderingSink):
        return
    group, now_ms = sink.name.partition(":")[2] + ".order", time.time_ns() // 1_000_000
    with closing(sink.document_log(group, max_age=30.0, since_ms=now_ms)) as log:
        orders: dict[Partition, PartitionOrder] = {}
        late = set[str]()

        def at_end() -> bool:
            for entry in log.poll(0.1, 1000):
                partition = entry.position.topic, entry.position.partition
                if partition not in orders:
                    orders[partition] = PartitionOrder(log.window, *log.starts()[partition])
                if orders[partition].check(entry):
                    late.add(entry.id)
            return bool(orders) and all(at == end for at, end in log.progress().values())

        until(at_end)
        assert not any(order.missed for order in orders.values())
    for id in sorted(late):
        body = last[id].upserts.get(id)
        put(sink, last[id].version, {id: body} if body is not None else {}, () if body is not None else (id,))


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
    if kind.startswith(("redis", "valkey")):  # it rejects a key of the application, so there is no older document
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


def test_values_keep_every_digit(sink: Sink, kind: str) -> None:
    largest = 2**53 if kind.endswith("-indexes") else 2**63 - 1  # the sinks with indexes have `n` as a score
    text = f'{{"n":{largest},"exact":12345678901234567890.12345678901234567890,'
    text += '"name":"ü\\n🙂","on":true}'
    put(sink, 1, {"a": text.encode()})
    body = sink.read(["a"])["a"]
    assert body == sink.normalize(text.encode())
    values: dict[str, Any] = json.loads(body, parse_float=Decimal)
    assert str(values["exact"]) == "12345678901234567890.12345678901234567890"
    assert int(values["n"]) == largest
    assert values["name"] == "ü\n🙂"


def test_each_document_of_a_batch_can_have_a_version_of_its_own(sink: Sink) -> None:
    """As documents that are combined from partials have."""
    first = {"a": version(1, 5), "b": version(1, 3), "c": version(1, 4)}
    assert sink.write(Batch(0, {"a": doc(1), "b": doc(1)}, ["c"], own_versions=first)).stale == 0
    assert sink.versions(["a", "b", "c"]) == first
    second = {"a": version(1, 4), "b": version(1, 4), "c": version(1, 4), "d": version(1, 4)}
    out = sink.write(Batch(0, {"a": doc(2), "b": doc(2), "c": doc(2)}, ["d"], own_versions=second))
    assert (out.written, out.stale) == (1, 2) and out.newest_version == version(1, 5)
    assert sink.versions(["a", "b", "c", "d"]) == {"a": version(1, 5), **{id: version(1, 4) for id in "bcd"}}
    assert sink.read(["a", "b", "c"]) == {"a": sink.normalize(doc(1)), "b": sink.normalize(doc(2))}


def test_a_null_character_is_kept_or_rejected(sink: Sink) -> None:
    """PostgreSQL has no such texts, but a json column can hold the escape sequence."""
    body = b'{"n":1,"name":"a\\u0000b"}'
    if put(sink, 1, {"a": body, "b": doc(1)}).rejected:
        assert sink.normalize(body) is None
        assert holds(sink, {"b": doc(1)})
    else:
        assert json.loads(sink.read(["a"])["a"])["name"] == "a\0b"


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
    reorder(writers[0], last)
    assert holds(writers[0], {id: batch.upserts[id] for id, batch in last.items() if id in batch.upserts})
    for writer in writers:
        writer.close()


# -- weakened rules


@pytest.mark.parametrize("kind", ["postgres"])
@pytest.mark.parametrize(
    "broken_by",
    [
        test_an_equal_version_counts_as_stale,
        test_a_delete_is_not_undone_by_an_older_write,
        test_hazard_22_a_delete_of_an_absent_id_is_remembered,
    ],
)
def test_an_upsert_without_the_version_condition_breaks_the_contract(
    sink: Sink, broken_by: Callable[[Sink], None]
) -> None:
    assert isinstance(sink, PostgresSink)
    insert, condition, rest = sink._statements.write.partition('WHERE t."_version" < excluded."_version"')
    assert condition
    sink._statements.write = insert + rest
    with pytest.raises(AssertionError):
        broken_by(sink)


# -- optional capabilities


@pytest.fixture
def publishing(sink: Sink) -> PublishingSink:
    if not isinstance(sink, PublishingSink):
        pytest.skip("the sink does not keep watermarks")
    return sink


def watermark(target: Harness, clock: int, *, epoch: int = 1, searchable: int | None = None) -> PublishedWatermark:
    return PublishedWatermark(
        target.model.name,
        1,
        epoch,
        clock,
        f"{clock}:{clock + 2}:{clock + 1}",
        1_700_000_000_000 + clock,
        "16/B374D848",
        3,
        searchable,
        1_700_000_000_000 + searchable if searchable else None,
    )


def test_there_is_no_watermark_before_the_first_is_published(publishing: PublishingSink) -> None:
    assert publishing.published() is None


def test_a_published_watermark_is_read_by_other_processes(target: Harness, publishing: PublishingSink) -> None:
    other = target.open()
    assert isinstance(other, PublishingSink)
    for found in (watermark(target, 5), watermark(target, 1 << 40, searchable=7), watermark(target, (1 << 40) + 1)):
        publishing.publish(found)
        assert other.published() == publishing.published() == found
    other.close()


def test_an_older_watermark_never_replaces_a_newer_one(target: Harness, publishing: PublishingSink) -> None:
    newest = watermark(target, 5, epoch=3)
    publishing.publish(newest)
    for older in (watermark(target, 4, epoch=3), watermark(target, 1 << 47, epoch=2), newest._replace(dead_letters=9)):
        publishing.publish(older)
        assert publishing.published() == newest


def test_concurrent_writers_leave_the_newest_watermark(target: Harness, publishing: PublishingSink) -> None:
    clocks = list(range(1, 60))
    random.Random(4).shuffle(clocks)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda clock: publishing.publish(watermark(target, clock)), clocks))
    assert publishing.published() == watermark(target, 59)


def test_a_later_generation_does_not_have_the_watermark_of_the_earlier_one(
    target: Harness, publishing: PublishingSink
) -> None:
    """A generation that is built in place withdraws it: it may overwrite documents with older ones for a while."""
    publishing.publish(watermark(target, 5))
    following = target.open(epoch=2, generation=2)
    following.prepare()
    assert isinstance(following, PublishingSink)
    assert following.published() is None
    publishing.publish(watermark(target, 6))
    assert following.published() is None
    assert (publishing.published() is None) == following.in_place
    following.publish(watermark(target, 1, epoch=2)._replace(generation=2))
    assert following.published() == watermark(target, 1, epoch=2)._replace(generation=2)
    following.close()


def test_watermarks_are_no_documents(target: Harness, publishing: PublishingSink, sink: Sink) -> None:
    put(sink, 5, {"a": doc(1)})
    publishing.publish(watermark(target, 5))
    assert holds(sink, {"a": doc(1)}) and sink.count() == 1


def test_searches_show_the_documents_that_were_written_before(sink: Sink) -> None:
    if not isinstance(sink, SearchableSink):
        pytest.skip("reads of the sink see every write at once")
    put(sink, 5, {"a": doc(1)})
    sink.make_searchable(10.0)
    assert sink.count() == 1
