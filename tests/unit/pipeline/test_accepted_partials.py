"""A document that every sink accepted resolves the dead letters of the partials that it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncer.clock import version
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Reject
from syncer.pipeline.accepted_partials import AcceptedPartials
from syncer.pipeline.combine import CombiningSink
from syncer.pipeline.rejections import Rejections
from syncer.ports import Observer, Sink
from tests.harness.engine import MemoryDeadLetters
from tests.harness.partials import Memory

PARTIALS: Any = SimpleNamespace(parts=SimpleNamespace(key=("id", "bucket")), fields=())
OBSERVER = cast(Observer, SimpleNamespace(rejected=lambda error: None))


class Refusing(Memory):
    """A sink that refuses all documents while `refuses` is true."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.refuses = name, False

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        if self.refuses:
            return Outcome(rejected=[Rejection(id, "no", "test") for id in batch.ids()])
        return super().write(batch, timeout)

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        return {id: self.documents[id][0] for id in ids if id in self.documents}


class World:
    """Two sinks, and the steps of a lane that concern dead letters."""

    def __init__(self) -> None:
        self.letters = MemoryDeadLetters()
        self.stores = [Refusing("first"), Refusing("second")]
        self.rejections = Rejections(self.letters, OBSERVER)
        self.accepted = AcceptedPartials([store.name for store in self.stores], 2)
        self.clock = 0
        self.write(ROOT_PARTIAL)

    def write(self, bucket: str, refusing: Sequence[int] = ()) -> None:
        """Writes a partial of document 7. refusing: the sinks that refuse the document."""
        self.clock += 1
        batch = Batch(version(1, self.clock), {f"7|{bucket}": b"{}" if bucket == ROOT_PARTIAL else b"[]"}, [])
        for n, store in enumerate(self.stores):
            store.refuses = n in refusing
            outcome = CombiningSink(cast(Sink, store), PARTIALS, "m").write(batch)
            for one in outcome.rejected:
                self.rejections.document(one.id, batch.version, Reject(one.reason))
            self.accepted.add(store.name, outcome.shown)
        self.rejections.acknowledged(batch, self.accepted.take())

    def cannot_render(self, bucket: str) -> None:
        """PostgreSQL cannot render a partial, so no sink has this state of it."""
        self.clock += 1
        self.rejections.document(f"7|{bucket}", version(1, self.clock), Reject("division by zero"))
        self.rejections.acknowledged(Batch(version(1, self.clock), {}, []), self.accepted.take())


def test_another_partial_resolves_the_letter() -> None:
    world = World()
    world.write("3", refusing=[0])
    assert world.letters.open == {"7|3": version(1, 2)}
    world.write("4")
    assert world.letters.open == {}


def test_every_sink_has_to_accept_the_document() -> None:
    world = World()
    world.write("3", refusing=[0])
    world.write("4", refusing=[1])
    assert world.letters.open.keys() == {"7|3", "7|4"}
    world.write("4")
    assert world.letters.open == {}


def test_a_partial_that_was_not_rendered_keeps_its_letter() -> None:
    world = World()
    world.write("3")
    world.cannot_render("3")
    world.write("4")
    assert world.letters.open.keys() == {"7|3"}, "the document shows an earlier state of the bucket"
    world.write("3")
    assert world.letters.open == {}


BUCKETS = st.sampled_from(["3", "4", ROOT_PARTIAL])
REFUSING = st.lists(st.integers(0, 1), unique=True).map(tuple)
Step = tuple[str, tuple[int, ...] | None]
FOUND: dict[str, list[Step]] = {
    "not rendered": [("3", ()), ("3", None), ("4", ())],
    "one sink": [("3", (0,)), ("4", (1,))],
    "refused again": [("3", (0,)), ("4", (0,))],
}


def wrong(steps: Sequence[Step]) -> str:
    """Returns what is wrong after the steps: a bucket, and the refusing sinks. None: it cannot be rendered."""
    world, failed, refused = World(), set[str](), set[str]()
    for bucket, refusing in steps:
        id = f"7|{bucket}"
        if refusing is None:
            world.cannot_render(bucket)
            failed.add(id)
        else:
            world.write(bucket, refusing)
            failed.discard(id)
            refused = refused | {id} if refusing else set()
        if world.letters.open.keys() != failed | refused:
            return f"letters of {sorted(world.letters.open)}, expected of {sorted(failed | refused)}"
    return ""


@given(st.lists(st.tuples(BUCKETS, st.none() | REFUSING), max_size=8))
@example(FOUND["not rendered"])
@example(FOUND["one sink"])
@example(FOUND["refused again"])
def test_a_letter_is_open_while_a_sink_lacks_the_state(steps: list[Step]) -> None:
    assert not wrong(steps)


def any_version(self: AcceptedPartials, found: Any) -> Any:
    return ((id, 1 << 62) for id, _ in IN_ALL(self, found))


def one_sink(self: AcceptedPartials, found: Any) -> Any:
    for sink in found:
        yield from IN_ALL(AcceptedPartials([sink], self._columns), found)


IN_ALL = AcceptedPartials._in_all


@pytest.mark.parametrize(
    ("example", "weaker"), [("not rendered", any_version), ("one sink", one_sink)], ids=["any version", "one sink"]
)
def test_a_weaker_rule_is_detected(example: str, weaker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AcceptedPartials, "_in_all", weaker)
    assert wrong(FOUND[example])


def test_a_refused_document_that_counts_as_accepted_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    write = CombiningSink._write_combined

    def weaker(self: CombiningSink, stored: Any, timeout: float) -> Outcome:
        out = write(self, stored, timeout)
        out.shown = {id: {bucket: part.version for bucket, part in parts.items()} for id, parts in stored.items()}
        return out

    monkeypatch.setattr(CombiningSink, "_write_combined", weaker)
    assert wrong(FOUND["refused again"])
