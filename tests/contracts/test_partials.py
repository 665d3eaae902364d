"""The contract of `ports.PartialSink`: partials and the documents that are combined from them, in real stores.

Whatever order several writers have, the last document shows every partial in its highest version.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest
import redis
import urllib3

from devstack import Stack
from syncer.clock import version
from syncer.declaration.compiled import CombinedField, Lookup, Partials
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.document import Batch, Outcome
from syncer.errors import Fatal, Retry
from syncer.events import TableName
from syncer.pipeline import combine
from syncer.pipeline.combine import CombiningSink
from syncer.ports import PartialSink, Sink, StoredPartial, StoredPartials
from syncer.sinks.elasticsearch import partials
from syncer.sinks.elasticsearch.partial_documents import Stored
from syncer.sinks.elasticsearch.partials import ElasticsearchPartials
from syncer.sinks.elasticsearch.sink import ElasticsearchSink
from syncer.sinks.postgres.durability import PURGED
from syncer.sinks.postgres.partials import PostgresPartials, Statements
from syncer.sinks.postgres.sink import PostgresSink
from tests.contracts.sinks import FIELDS, Elasticsearch, Harness
from tests.harness.fault_proxy import fault_proxy

ROOT = ROOT_PARTIAL
BODY = b'{"name":"root"}'
COMBINED = (
    CombinedField("n", "count", 0),
    CombinedField("exact", "sum", 1),
    CombinedField("name", "", 0),
    CombinedField("on", "bool_or", 2),
)
NOTHING = b'["0",null,null]'
"""The partial of a bucket without rows."""


@pytest.fixture(params=["postgres", "elasticsearch", "redis-json", "redis-cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def divided(target: Harness) -> Harness:
    """The target, for a read model with partials."""
    model = target.model
    parts = replace(model, key=("id", "bucket"), key_types=("text", "bigint"))
    every = Lookup(("id",), ("text",), "")
    table = TableName("public", "readings")
    target.model = replace(
        model, partials=Partials(parts, COMBINED, every, "readings", table, ("thing_id",), "id", 1000)
    )
    assert [field.name for field in COMBINED] == [field.name for field in FIELDS]
    return target


@pytest.fixture
def sink(divided: Harness) -> Iterator[Sink]:
    opened = divided.open()
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def stores(sink: Sink) -> PartialSink:
    assert isinstance(sink, PartialSink)
    return sink


def bucket(rows: int, *, on: bool = False) -> bytes:
    """Returns the partial of a bucket with this number of rows, which are the sum, too."""
    return json.dumps([str(rows), f"{rows}.5", str(on).lower()]).encode() if rows else NOTHING


def call(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    """Sends a request to Elasticsearch, and asserts that it succeeds."""
    answer = urllib3.request(method, stack.elasticsearch + path, json=body)
    assert answer.status == 200, answer.data
    return answer.json()


def put(stores: PartialSink, at: int, id: str, parts: Mapping[str, bytes | None]) -> dict[str, StoredPartial]:
    [(found, stored)] = stores.write_partials(at, {id: parts}, 30.0).items()
    assert found == id
    return dict(stored)


def test_each_partial_keeps_its_highest_version(stores: PartialSink) -> None:
    old, new, newest = (version(1, clock) for clock in (5, 1 << 40, (1 << 40) + 1))
    assert put(stores, new, "a", {"0": bucket(1), "-3": bucket(2)}) == {
        "0": StoredPartial(new, bucket(1)),
        "-3": StoredPartial(new, bucket(2)),
    }
    found = put(stores, old, "a", {"0": bucket(9), "7": bucket(3)})
    assert found["0"] == StoredPartial(new, bucket(1))
    assert found["7"] == StoredPartial(old, bucket(3))
    assert put(stores, new, "a", {"0": bucket(9)})["0"].body == bucket(1), "an equal version changes nothing"
    found = put(stores, newest, "a", {"0": bucket(4), ROOT: BODY})
    assert found == {
        "0": StoredPartial(newest, bucket(4)),
        "-3": StoredPartial(new, bucket(2)),
        "7": StoredPartial(old, bucket(3)),
        ROOT: StoredPartial(newest, BODY),
    }
    assert stores.read_partials(["a", "b"]) == {"a": found}


def test_a_delete_of_a_partial_is_remembered(stores: PartialSink) -> None:
    put(stores, version(1, 7), "a", {ROOT: None, "0": bucket(1)})
    assert put(stores, version(1, 6), "a", {ROOT: BODY})[ROOT] == StoredPartial(version(1, 7), None)
    assert put(stores, version(1, 8), "a", {ROOT: BODY})[ROOT] == StoredPartial(version(1, 8), BODY)


def test_partials_without_rows_stay(stores: PartialSink) -> None:
    put(stores, version(1, 5), "a", {ROOT: BODY, "0": bucket(1)})
    assert put(stores, version(1, 6), "a", {"0": NOTHING})["0"] == StoredPartial(version(1, 6), NOTHING)
    assert stores.read_partials(["a"])["a"]["0"].body == NOTHING


def test_other_processes_read_partials_at_once(stores: PartialSink, divided: Harness) -> None:
    """A search of Elasticsearch would not find them yet."""
    with closing(divided.open()) as other:
        other.prepare()
        assert isinstance(other, PartialSink)
        for clock in range(1, 20):
            put(stores, version(1, clock), "a", {str(clock): bucket(clock)})
            assert len(other.read_partials(["a"])["a"]) == clock
            assert len(put(other, version(1, 1), "a", {"1": NOTHING})) == clock


def test_partials_are_no_documents(stores: PartialSink, sink: Sink) -> None:
    put(stores, version(1, 5), "a", {ROOT: BODY, "0": bucket(1)})
    assert (list(sink.ids()), sink.count(), sink.read(["a"]), sink.versions(["a"])) == ([], 0, {}, {})


def test_ids_of_all_partials(stores: PartialSink) -> None:
    ids = ["a", "a|b", "я", "{x}", '"q"', " "]
    parts: dict[str, dict[str, bytes | None]] = {id: {str(n): bucket(n) for n in range(-2, 3)} for id in ids}
    parts["a"][ROOT], parts["я"][ROOT] = BODY, None
    found = stores.write_partials(version(1, 3), parts, 30.0)
    assert {id: dict(one) for id, one in found.items()} == {
        id: {name: StoredPartial(version(1, 3), body) for name, body in one.items()} for id, one in parts.items()
    }
    assert set(stores.partial_ids()) == {(id, name) for id, one in parts.items() for name in one}


def test_some_thousand_partials(stores: PartialSink) -> None:
    many = {str(n): bucket(n) for n in range(4000)} | {ROOT: b'{"name":"' + b"x" * 100_000 + b'"}'}
    assert len(put(stores, version(1, 3), "a", many)) == 4001
    assert len(put(stores, version(1, 4), "a", {"17": NOTHING})) == 4001
    others = {f"k{n}": {"0": bucket(n), ROOT: BODY} for n in range(1500)}
    assert {id: len(parts) for id, parts in stores.write_partials(version(1, 4), others, 30.0).items()} == (
        dict.fromkeys(others, 2)
    )
    assert len(list(stores.partial_ids())) >= 4001 + 3000


def test_a_later_epoch_drops_the_partials_of_earlier_ones(stores: PartialSink, divided: Harness) -> None:
    put(stores, version(1, 5), "a", {ROOT: BODY, "0": bucket(1)})
    put(stores, version(1, 5), "b", {"0": bucket(1)})
    with closing(divided.open(epoch=2)) as later:
        assert isinstance(later, PartialSink)
        assert later.read_partials(["a"]) == {}
        assert put(later, version(2, 1), "a", {"1": bucket(2)}) == {"1": StoredPartial(version(2, 1), bucket(2))}
        assert ("a", "0") not in set(later.partial_ids())
    with pytest.raises(Fatal, match="later epoch"):
        put(stores, version(1, 900), "a", {"0": bucket(5)})
    assert put(stores, version(1, 900), "b", {"0": bucket(5)})["0"].body == bucket(5)


def test_each_generation_has_its_own_partials(stores: PartialSink, sink: Sink, divided: Harness) -> None:
    put(stores, version(1, 5), "a", {ROOT: BODY})
    with closing(divided.open(epoch=2, generation=2, hash="fedcba9876543210")) as following:
        following.prepare()
        assert isinstance(following, PartialSink)
        assert following.read_partials(["a"]) == {}
        put(following, version(2, 1), "a", {ROOT: BODY})
        obsolete = following.activate()
        if not following.in_place:
            assert len(obsolete) == 2, "the documents and the partials of the first generation"
            assert stores.read_partials(["a"])["a"][ROOT].version == version(1, 5)


def test_processes_may_prepare_concurrently(divided: Harness) -> None:
    made = [divided.open() for _ in range(6)]
    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(lambda sink: sink.prepare(), made))
    stores = made[0]
    assert isinstance(stores, PartialSink)
    assert len(put(stores, version(1, 1), "a", {ROOT: BODY})) == 1
    for sink in made:
        sink.close()


# -- documents


class Held:
    """A sink whose documents are held back, so that a test chooses the order in which two daemons write them."""

    def __init__(self, sink: Sink, hide: bytes | None = None) -> None:
        assert isinstance(sink, PartialSink)
        self.name, self.in_place, self.batches = sink.name, sink.in_place, list[Batch]()
        self._sink, self._stores, self._hide = sink, sink, hide

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        self.batches.append(batch)
        return Outcome(written=len(batch.upserts), deleted=len(batch.deletes))

    def release(self) -> None:
        for batch in self.batches:
            out = self._sink.write(batch)
            assert not out.retry and not out.rejected, out
        self.batches.clear()

    def write_partials(
        self, version: int, partials: Mapping[str, Mapping[str, bytes | None]], timeout: float
    ) -> StoredPartials:
        found = self._stores.write_partials(version, partials, timeout)
        return {
            id: {n: one for n, one in of.items() if one.body != self._hide or not one.body} for id, of in found.items()
        }

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        return self._stores.read_partials(ids)

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        return self._stores.partial_ids()


class Daemon:
    """Renders batches of partials in their order. A batch takes two steps: the partials, and the documents."""

    def __init__(self, sink: Sink, divided: Harness, hide: bytes | None) -> None:
        assert divided.model.partials is not None
        self.held = Held(sink, hide)
        self.combining = CombiningSink(cast(Sink, self.held), divided.model.partials, "things")
        self.batches: list[Batch] = []
        self.weakened = hide is not None

    def step(self) -> bool:
        if self.held.batches:
            self.held.release()
            self.batches.pop(0)
        elif self.batches:
            out = self.combining.write(self.batches[0])
            assert (not out.retry or self.weakened) and not out.rejected, out
            if not self.held.batches:  # the root is not known yet
                self.batches.pop(0)
        return bool(self.batches)

    def crash(self) -> None:
        """Loses what was read. The batch is not acknowledged, so it is repeated."""
        self.held.batches.clear()


def lost_documents(divided: Harness, seed: int, hide: bytes | None = None, length: int = 8) -> list[str]:
    """Plays a generated history with two daemons. Returns a line for each document that is wrong in the end.

    hide: partials with this body are not read, as if the sink had removed them.
    """
    chosen = random.Random(seed)
    ids = [f"{seed}-{n}" for n in range(4)]
    truth: dict[str, dict[str, bytes | None]] = {id: {ROOT: BODY, "0": bucket(1), "1": NOTHING} for id in ids}
    sinks = [divided.open() for _ in range(2)]
    daemons = [Daemon(sink, divided, hide) for sink in sinks]
    for clock in range(2, 2 + length):
        daemon, part, rows = chosen.choice(daemons), chosen.choice(["0", "1", "2", ROOT]), chosen.choice([0, 0, 1, 2])
        upserts, deletes = dict[str, bytes](), list[str]()
        for id in ids if clock == 2 else chosen.sample(ids, 2):
            changed = truth[id] if clock == 2 else {part: bucket(rows)}
            if part == ROOT and clock > 2:
                changed = {ROOT: None if rows == 0 else b'{"name":"%d"}' % clock}
            truth[id] |= changed
            for name, body in changed.items():
                if body is None:
                    deletes.append(f"{id}|{name}")
                else:
                    upserts[f"{id}|{name}"] = body
        daemon.batches.append(Batch(version(1, clock), upserts, deletes))
    while any(daemon.batches for daemon in daemons):
        daemon = chosen.choice(daemons)
        if chosen.random() < 0.1:
            daemon.crash()
        daemon.step()
    expected = {id: parts for id, parts in truth.items() if parts[ROOT] is not None}
    shown = {id: json.loads(body) for id, body in sinks[0].read(ids).items()}
    for sink in sinks:
        sink.close()
    wrong = [f"{id}: {shown.get(id)}" for id in ids if (id in shown) != (id in expected)]
    for id in shown.keys() & expected.keys():
        parts = expected[id]
        rows = sum(int(json.loads(body)[0]) for name, body in parts.items() if name != ROOT and body)
        found: Any = shown[id]
        if (int(found["n"]), found["name"]) != (rows, json.loads(parts[ROOT] or b"")["name"]):
            wrong.append(f"{id}: {found} instead of {rows} rows, {parts}")
    return wrong


SEEDS = range(12)


@pytest.mark.usefixtures("sink")
def test_the_last_document_shows_all_partials(divided: Harness) -> None:
    assert [line for seed in SEEDS for line in lost_documents(divided, seed)] == []


@pytest.mark.usefixtures("sink")
def test_the_maximum_instead_of_the_sum_loses_an_update(divided: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "combined_version", lambda versions, model: max(versions))
    assert any(lost_documents(divided, seed) for seed in SEEDS)


@pytest.mark.usefixtures("sink")
def test_a_removed_partial_loses_an_update(divided: Harness) -> None:
    """A weakened rule: a partial without rows is removed. Then the sum of the versions falls."""
    assert any(lost_documents(divided, seed, hide=NOTHING) for seed in SEEDS)


def test_concurrent_writers_combine_every_partial(divided: Harness) -> None:
    """Eight daemons write one bucket each, ten times. None of them repeats a batch."""
    sinks = [divided.open() for _ in range(8)]
    for sink in sinks:
        sink.prepare()
    assert divided.model.partials is not None
    daemons = [CombiningSink(sink, divided.model.partials, "things") for sink in sinks]
    ids = ["a", "b"]
    assert daemons[0].write(Batch(version(1, 1), {f"{id}|{ROOT}": BODY for id in ids}, [])).written == 2

    def work(number: int) -> None:
        for turn in range(10):
            at = version(1, 10 + 8 * turn + number)
            out = daemons[number].write(Batch(at, {f"{id}|{number}": bucket(turn) for id in ids}, []))
            assert (out.written, out.retry, out.rejected) == (2, [], [])

    with ThreadPoolExecutor(len(sinks)) as pool:
        list(pool.map(work, range(8)))
    assert {id: int(json.loads(body)["n"]) for id, body in sinks[0].read(ids).items()} == {"a": 72, "b": 72}
    for sink in sinks:
        sink.close()


def test_partials_of_impossible_ids_do_not_stop_others(sink: Sink, divided: Harness, kind: str) -> None:
    """They occur: a row can link to ''. Its root can never be written."""
    assert divided.model.partials is not None
    combining = CombiningSink(sink, divided.model.partials, "things")
    upserts = {"|0": bucket(1), f"{'x' * 2001}|0": bucket(1), f"a|{ROOT}": BODY}
    assert combining.write(Batch(version(1, 5), upserts, [f"|{ROOT}"])) == Outcome(written=3, deleted=1)
    if kind.startswith("redis"):  # every text fits into a key
        return
    out = combining.write(Batch(version(1, 6), {f"{'x' * 2001}|{ROOT}": BODY, f"a|{ROOT}": BODY}, []))
    assert (out.written, [one.id for one in out.rejected]) == (1, [f"{'x' * 2001}|{ROOT}"])


def test_a_document_that_is_ahead_of_its_partials_is_rejected(sink: Sink, divided: Harness) -> None:
    """The sink lost partials, or the document was edited. Without the rejection, it would silently stay as it is."""
    assert divided.model.partials is not None
    combining = CombiningSink(sink, divided.model.partials, "things")
    combining.write(Batch(version(1, 5), {f"a|{ROOT}": BODY, f"b|{ROOT}": BODY, "a|0": bucket(2)}, []))
    sink.write(Batch(version(1, 100), {"a": b'{"name":"edited"}'}, []))
    out = combining.write(Batch(version(1, 6), {"a|0": bucket(3), "b|0": bucket(3)}, []))
    [rejection] = out.rejected
    assert (out.written, rejection.id) == (1, "a|0")
    assert f"version {version(1, 100)}, but the sum of its partials is {version(1, 11)}" in rejection.reason
    assert "syncer verify things --repair" in rejection.reason
    again = combining.write(Batch(version(1, 6), {"b|0": bucket(3)}, []))
    assert (again.written, again.rejected) == (1, []), "an equal version is no reason"
    assert combining.write(Batch(version(1, 60), {f"a|{ROOT}": BODY, "a|0": bucket(4)}, [])).written == 2
    assert int(json.loads(sink.read(["a"])["a"])["n"]) == 4


def test_a_deleted_root_hides_the_document(sink: Sink, divided: Harness) -> None:
    assert divided.model.partials is not None
    combining = CombiningSink(sink, divided.model.partials, "things")
    combining.write(Batch(version(1, 5), {f"a|{ROOT}": BODY, "a|0": bucket(2)}, []))
    assert json.loads(sink.read(["a"])["a"])["name"] == "root"
    combining.write(Batch(version(1, 6), {}, [f"a|{ROOT}"]))
    assert sink.read(["a"]) == {}
    combining.write(Batch(version(1, 7), {"a|0": bucket(3)}, []))
    assert sink.read(["a"]) == {}
    combining.write(Batch(version(1, 8), {f"a|{ROOT}": BODY}, []))
    assert int(json.loads(sink.read(["a"])["a"])["n"]) == 3


# -- weakened rules of one sink


@pytest.mark.parametrize("kind", ["postgres"])
@pytest.mark.parametrize("one_transaction", [False, True])
def test_two_writers_of_one_transaction_each_miss_each_other(
    divided: Harness, one_transaction: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write before one of them reads. In one transaction for both steps, none of the documents is complete."""
    both_have_written = threading.Barrier(2, timeout=20)

    def in_one_transaction(self: PostgresPartials, at: int, partials: Any, timeout: float) -> Any:
        statements = self._statements
        [(id, parts)] = partials.items()
        with self._sessions.session("cannot write") as session, session.transaction():
            values = {"version": at, "ids": [id] * len(parts), "buckets": list(parts), "bodies": texts(parts)}
            session.execute(statements.write, values)
            both_have_written.wait()
            rows = session.execute(statements.read, ([id], 0)).fetchall()
        return {id: {name: StoredPartial(found, body.encode()) for _, name, found, body, _ in rows}}

    def texts(parts: Mapping[str, bytes | None]) -> list[str | None]:
        return [None if body is None else body.decode() for body in parts.values()]

    read = PostgresPartials._read

    def read_after_both(self: PostgresPartials, *arguments: Any) -> Any:
        if arguments[1:]:  # after a write
            both_have_written.wait()
        return read(self, *arguments)

    sinks = [divided.open() for _ in range(2)]
    assert divided.model.partials is not None
    daemons = [CombiningSink(sink, divided.model.partials, "things") for sink in sinks]
    for sink in sinks:
        sink.prepare()
    daemons[0].write(Batch(version(1, 1), {f"a|{ROOT}": BODY}, []))
    if one_transaction:
        monkeypatch.setattr(PostgresPartials, "write", in_one_transaction)
    else:
        monkeypatch.setattr(PostgresPartials, "_read", read_after_both)
    with ThreadPoolExecutor(2) as pool:
        batches = [Batch(version(1, 5 + n), {f"a|{n}": bucket(1)}, []) for n in range(2)]
        outs = list(pool.map(lambda n: daemons[n].write(batches[n]), range(2)))
    assert [out.written for out in outs] == [1, 1]
    assert int(json.loads(sinks[0].read(["a"])["a"])["n"]) == (1 if one_transaction else 2)
    for sink in sinks:
        sink.close()


@pytest.mark.parametrize("kind", ["elasticsearch"])
def test_partials_that_are_searched_for_cannot_be_written(
    stores: PartialSink, divided: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weakened rule. A search does not see a write before the next refresh."""
    put(stores, version(1, 1), "a", {"0": NOTHING})

    def search(self: ElasticsearchPartials, ids: Sequence[str]) -> dict[str, Stored]:
        query = {"query": {"ids": {"values": ids}}, "size": 100, "seq_no_primary_term": True}
        hits = self._http.must("POST", f"/{self.index}/_search", query)["hits"]["hits"]
        return {hit["_id"]: Stored(hit["_source"], hit["_seq_no"], hit["_primary_term"]) for hit in hits}

    monkeypatch.setattr(ElasticsearchPartials, "_get", search)

    def write_often() -> None:
        for clock in range(2, 200):
            assert len(put(stores, version(1, clock), "a", {str(clock): NOTHING})) == clock

    with pytest.raises(Retry):  # the condition of the write fails until the next refresh
        write_often()


@pytest.mark.parametrize("kind", ["elasticsearch"])
@pytest.mark.parametrize("conditional", [True, False])
def test_writes_without_their_condition_lose_an_update(
    divided: Harness, conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both writers read before one of them writes. Without the condition, the second one removes the first partial."""
    both_have_read, get = threading.Barrier(2), ElasticsearchPartials._get
    first = threading.local()

    def get_together(self: ElasticsearchPartials, ids: Sequence[str]) -> dict[str, Stored]:
        found = get(self, ids)
        if not getattr(first, "done", False):
            first.done = True
            both_have_read.wait(20)
        return found

    sinks = [divided.open() for _ in range(2)]
    for sink in sinks:
        sink.prepare()
        assert isinstance(sink, PartialSink)
    put(cast(PartialSink, sinks[0]), version(1, 1), "a", {ROOT: BODY})
    monkeypatch.setattr(ElasticsearchPartials, "_get", get_together)
    if not conditional:
        monkeypatch.setattr(partials, "action", lambda id, known: b'{"index":{"_id":"%b"}}\n' % id.encode())
    with ThreadPoolExecutor(2) as pool:
        work = [(cast(PartialSink, sink), number) for number, sink in enumerate(sinks)]
        list(pool.map(lambda one: put(one[0], version(1, 5), "a", {str(one[1]): bucket(1)}), work))
    monkeypatch.setattr(ElasticsearchPartials, "_get", get)
    stored = cast(PartialSink, sinks[0]).read_partials(["a"])["a"]
    assert ({"0", "1"} <= stored.keys()) == conditional
    for sink in sinks:
        sink.close()


@pytest.mark.parametrize("kind", ["postgres"])
def test_postgres_forgets_the_partials_of_roots_that_were_deleted_long_ago(
    stores: PartialSink, sink: Sink, reads: str
) -> None:
    put(stores, version(1, 5), "live", {ROOT: BODY, "0": NOTHING})
    put(stores, version(1, 5), "gone", {ROOT: None, "0": bucket(1)})
    put(stores, version(1, 5), "unknown", {"0": bucket(1)})
    put(stores, version(1, 5), "lately", {ROOT: None, "0": bucket(1)})
    with psycopg.connect(reads, autocommit=True) as session:
        session.execute("UPDATE read.things_000001_partials SET _written_at = now() - interval '119 min'")
        sink.durability()
        assert len(list(stores.partial_ids())) == 7
        session.execute("UPDATE read.things_000001_partials SET _written_at = now() - interval '121 min'")
        put(stores, version(1, 6), "lately", {ROOT: None})
        # While another transaction has the row of a root, for example to insert the root again, it is not forgotten.
        with psycopg.connect(reads) as writer:
            writer.execute("SELECT 1 FROM read.things_000001_partials WHERE _id = 'gone' AND _body IS NULL FOR UPDATE")
            sink.durability()
            assert len(list(stores.partial_ids())) == 7
        sink.durability()
    assert {id for id, _ in stores.partial_ids()} == {"live", "unknown", "lately"}


@pytest.mark.parametrize("kind", ["postgres"])
@pytest.mark.parametrize("renews", [True, False])
def test_a_late_row_keeps_the_partials_of_a_deleted_root(
    sink: Sink, divided: Harness, reads: str, renews: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the delete of the document again. If the sum fell then, the returning document would be stale."""
    assert divided.model.partials is not None
    combining = CombiningSink(sink, divided.model.partials, "things")
    if not renews:
        monkeypatch.setattr(PostgresPartials, "_renew", lambda *_: None)
    combining.write(Batch(version(1, 5), {f"a|{n}": bucket(1) for n in range(10)}, [f"a|{ROOT}"]))
    for clock, minutes in enumerate((20, 90), 6):  # a root that is not old yet, and one that soon is
        pass_time(reads, minutes)
        sink.durability()
        assert combining.write(Batch(version(1, clock), {"a|10": bucket(1)}, [])).written == 1
    pass_time(reads, 15)
    sink.durability()
    returned = combining.write(Batch(version(1, 9), {f"a|{ROOT}": BODY, "a|10": bucket(1)}, []))
    assert [one.kind for one in returned.rejected] == ([] if renews else ["ahead of its partials"] * 2)
    assert sink.read(["a"]).keys() == ({"a"} if renews else set())
    combining.write(Batch(version(1, 10), {}, [f"a|{ROOT}"]))
    pass_time(reads, 121)
    sink.durability()
    assert cast(PartialSink, sink).read_partials(["a"]) == {}, "without late rows, the partials are forgotten"


@pytest.mark.parametrize("kind", ["postgres"])
@pytest.mark.parametrize("renews", [True, False])
def test_a_delete_that_is_written_late_does_not_hide_a_root_that_returned(
    sink: Sink, divided: Harness, reads: str, renews: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer reads the partials of a deleted root, then they are forgotten, and the root returns."""
    assert divided.model.partials is not None
    late, other = Daemon(sink, divided, None), CombiningSink(sink, divided.model.partials, "things")
    other.write(Batch(version(1, 5), {f"a|{n}": bucket(1) for n in range(10)}, [f"a|{ROOT}"]))
    if not renews:
        monkeypatch.setattr(PostgresPartials, "_renew", lambda *_: None)
    pass_time(reads, 121)
    late.combining.write(Batch(version(1, 6), {"a|10": bucket(1)}, []))
    sink.durability()
    assert other.write(Batch(version(1, 7), {f"a|{ROOT}": BODY, "a|10": bucket(1)}, [])).written == 2
    late.held.release()
    assert sink.read(["a"]).keys() == ({"a"} if renews else set())


@pytest.mark.parametrize("kind", ["postgres"])
def test_partials_are_not_forgotten_before_the_delete_of_their_document(
    stores: PartialSink, sink: Sink, reads: str
) -> None:
    """After a long pause, there may be more old deletes than one call forgets."""
    put(stores, version(1, 5), "a", {ROOT: None, "0": bucket(1)})
    with psycopg.connect(reads, autocommit=True) as session:
        deletes = f"SELECT 'd' || n, 5, now() FROM generate_series(1, {PURGED + 1}) n"
        session.execute(f"INSERT INTO read.things_000001 (_id, _version, _deleted_at) {deletes}".encode())
    pass_time(reads, 121)
    sink.durability()
    assert stores.read_partials(["a"])
    sink.durability()
    assert not stores.read_partials(["a"])


def pass_time(reads: str, minutes: int) -> None:
    with psycopg.connect(reads, autocommit=True) as session:
        earlier = f"- interval '{minutes} min' WHERE _id <> ''"
        session.execute(f"UPDATE read.things_000001_partials SET _written_at = _written_at {earlier}".encode())
        session.execute(f"UPDATE read.things_000001 SET _deleted_at = _deleted_at {earlier}".encode())


@pytest.mark.parametrize("kind", ["postgres"])
def test_renewals_and_purges_do_not_deadlock(sink: Sink, divided: Harness) -> None:
    """Every deleted root is renewed with each write, and forgotten as soon as no writer has it."""
    sinks = [sink, *(divided.open() for _ in range(3))]
    for one in sinks:
        assert isinstance(one, PostgresSink) and one._partials is not None
        name = one._settings.quoted(one._settings.partials_of(1))
        one._partials._statements = Statements(name, tombstone=0.0)
    ids = [f"k{n}" for n in range(40)]

    def work(number: int) -> None:
        chosen, stores = random.Random(number), cast(PartialSink, sinks[number])
        for turn in range(100):
            some = chosen.sample(ids, 30)
            parts: dict[str, dict[str, bytes | None]] = {id: {str(number): NOTHING} for id in some}
            for id in some[:5]:
                parts[id][ROOT] = None
            stores.write_partials(version(1, 1 + turn), parts, 30.0)
            if turn % 5 == number:
                sinks[number].durability()

    with ThreadPoolExecutor(len(sinks)) as pool:
        list(pool.map(work, range(len(sinks))))
    for one in sinks[1:]:
        one.close()


@pytest.mark.parametrize("kind", ["redis-json"])
def test_redis_forgets_the_partials_of_deleted_roots_only(stores: PartialSink, divided: Harness, stack: Stack) -> None:
    """Those of an unknown root stay: an interrupted backfill writes the root partial last, perhaps some hours later."""
    put(stores, version(1, 5), "unknown", {"0": bucket(1)})
    put(stores, version(1, 5), "live", {ROOT: BODY})
    put(stores, version(1, 5), "gone", {ROOT: None, "0": bucket(1)})
    put(stores, version(1, 5), "again", {ROOT: None})
    put(stores, version(1, 6), "again", {ROOT: BODY})
    with redis.Redis.from_url(stack.redis) as client:
        left = {id: client.ttl(f"partials:{{{divided.model.name}:{id}:doc}}") for id in KNOWN}
        known = [key for key in client.scan_iter("partials:*") if divided.model.name.encode() in key]
    assert len(known) == 4, known
    assert {id for id, seconds in left.items() if seconds == -1} == {"unknown", "live", "again"}, left
    assert left["gone"] > 7000


KNOWN = ("unknown", "live", "gone", "again")


@pytest.mark.parametrize("kind", ["elasticsearch"])
def test_elasticsearch_forgets_the_partials_of_roots_that_were_deleted_long_ago(
    stores: PartialSink, sink: Sink, divided: Harness, stack: Stack
) -> None:
    assert isinstance(sink, ElasticsearchSink) and sink._partials is not None
    index = f"{sink.index}-partials"
    put(stores, version(1, 5), "unknown", {"0": bucket(1)})
    put(stores, version(1, 5), "live", {ROOT: BODY, "0": NOTHING})
    for id, minutes in (("gone", 121), ("lately", 119), ("again", 121)):
        put(stores, version(1, 5), id, {ROOT: None, "0": bucket(1)})
        dead_at = round(time.time() * 1000) - minutes * 60_000
        call(stack, "POST", f"/{index}/_update/{id}", {"doc": {"dead_at": dead_at}})
    call(stack, "POST", f"/{index}/_refresh")
    put(stores, version(1, 6), "again", {ROOT: BODY})  # a search may still find the old document
    sink._partials.purge()  # not more often than once a minute
    assert {id for id, _ in stores.partial_ids()} == {*KNOWN, "lately"}
    sink._partials.purge(at_once=True)
    assert {id for id, _ in stores.partial_ids()} == {*KNOWN, "lately"} - {"gone"}


@pytest.mark.parametrize("kind", ["elasticsearch"])
def test_partials_above_the_limit_of_a_proxy_are_rejected(divided: Harness, stack: Stack) -> None:
    """Their document alone is at fault. The others of the batch are written, also those of the same request."""
    assert divided.model.partials is not None and isinstance(divided, Elasticsearch)
    with fault_proxy(stack.elasticsearch) as proxy:
        divided.url = proxy.url
        with closing(divided.open()) as sink:
            sink.prepare()
            combining = CombiningSink(sink, divided.model.partials, "things")
            upserts = {f"{id}|{n}": body for id in ("a", "b", "c") for n, body in (("0", bucket(1)), (ROOT, BODY))}
            assert combining.write(Batch(version(1, 5), upserts, [])).written == 6
            proxy.rule = lambda request: (413, b"<html>too large</html>") if len(request.body) > 1500 else "pass"
            changed = {f"{id}|{n}": bucket(2) for id, most in (("a", 1), ("b", 40), ("c", 1)) for n in range(most)}
            out = combining.write(Batch(version(1, 6), changed, []))
            assert (out.written, out.retry) == (2, [])
            assert {one.id for one in out.rejected} == {f"b|{n}" for n in range(40)}
            for hint in ("HTTP 413", "raise http.max_content_length", "a larger `size`", "syncer resync"):
                assert hint in out.rejected[0].reason
            found = {id: int(json.loads(body)["n"]) for id, body in sink.read(["a", "b", "c"]).items()}
            assert found == {"a": 2, "b": 1, "c": 2}
            proxy.rule = lambda request: "pass"
            assert combining.write(Batch(version(1, 7), changed, [])).written == 42
            assert int(json.loads(sink.read(["b"])["b"])["n"]) == 80


@pytest.mark.parametrize("kind", ["elasticsearch"])
def test_partials_above_the_limit_of_the_server_are_rejected(stores: PartialSink) -> None:
    """The request is not sent."""
    large = {"0": b'["' + b"x" * (101 << 20) + b'"]'}
    found = stores.write_partials(version(1, 5), {"large": large, "small": {"0": bucket(1)}}, 60.0)
    assert found["small"] == {"0": StoredPartial(version(1, 5), bucket(1))}
    assert "the server accepts 104,857,600 bytes" in found["large"]["0"].refused
    assert stores.read_partials(["large", "small"]).keys() == {"small"}


@pytest.mark.parametrize("kind", ["elasticsearch"])
def test_elasticsearch_hides_partials_and_reports_lost_ones(
    stores: PartialSink, sink: Sink, divided: Harness, stack: Stack
) -> None:
    assert isinstance(sink, ElasticsearchSink)
    index = f"{sink.index}-partials"
    put(stores, version(1, 5), "a", {ROOT: BODY})
    sink.write(Batch(version(1, 5), {"a": b'{"name":"document"}'}, []))
    call(stack, "POST", f"/{index}/_refresh")
    sink.make_searchable(30.0)
    for pattern in (sink.alias, f"{sink.alias}*", f"{sink.index}*", "*"):
        found = call(stack, "GET", f"/{pattern}/_search?q=name:root+OR+_id:a")["hits"]["hits"]
        assert {hit["_index"] for hit in found if hit["_index"].startswith(sink.alias)} == {sink.index}, pattern
    properties = call(stack, "GET", f"/{index}/_mapping")[index]["mappings"]["properties"]
    assert properties.keys() == {"parts", "epoch", "dead_at"}
    before = sink.durability().documents
    assert sink.durability().documents == before
    call(stack, "DELETE", f"/{index}")
    acts: list[Callable[[], object]] = [
        sink.durability,
        lambda: put(stores, version(1, 6), "a", {ROOT: BODY}),
        lambda: stores.read_partials(["a"]),
    ]
    for act in acts:
        with pytest.raises(Fatal, match="missing"):
            act()
    with closing(divided.open()) as other, pytest.raises(Fatal, match="-partials is missing"):
        other.prepare()


@pytest.mark.parametrize("kind", ["postgres"])
def test_postgres_reports_lost_partials(stores: PartialSink, sink: Sink, reads: str, divided: Harness) -> None:
    put(stores, version(1, 5), "a", {ROOT: BODY})
    before = sink.durability().documents
    assert sink.durability().documents == before
    with psycopg.connect(reads, autocommit=True) as session:
        session.execute("TRUNCATE read.things_000001_partials")
        assert sink.durability().documents != before
        session.execute("ALTER TABLE read.things_000001_partials SET UNLOGGED")
        with pytest.raises(Fatal, match="UNLOGGED"):
            sink.durability()
        with closing(divided.open()) as other, pytest.raises(Fatal, match="UNLOGGED"):
            other.prepare()
        session.execute("DROP TABLE read.things_000001_partials")
        with pytest.raises(Fatal, match="is missing"):
            sink.durability()
        with closing(divided.open()) as other, pytest.raises(Fatal, match='_partials" is missing'):
            other.prepare()
        session.execute("CREATE TABLE read.things_000002_partials ()")
        with (
            closing(divided.open(epoch=2, generation=2)) as other,
            pytest.raises(Fatal, match="exists, but the table of its documents does not"),
        ):
            other.prepare()
