"""The steps from a proved candidate to the watermark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncer.clock import Identity, Snapshot
from syncer.errors import Retry
from syncer.freshness.candidates import ANY_READER, Acknowledged, Basis, Candidate, Confirmation
from syncer.freshness.watermark import MOST, Tracker, Watermark
from syncer.ports import DurabilityToken

CHANGES, WORK = ("shop.public.orders", 0), ("work", 0)
TOKENS = {"redis": DurabilityToken("run 1", "start 1")}
LOST = {"redis": DurabilityToken("run 1", "start 2")}
READER = ("pid 7", 1)


def candidate(number: int, *, stream: int = 1, tables: str = "t1", reader: object = READER) -> Candidate:
    snapshot = Snapshot.parse(f"{number}:{number}:")
    return Candidate(Identity(7, 1), snapshot, number, number, number, reader, stream, {"orders": tables})


def basis(generation: int = 1, **changes: Any) -> Basis:
    return Basis(generation, 1, "t1", READER, True, TOKENS, 0)._replace(**changes)


def confirmation(generation: int = 1, **changes: Any) -> Confirmation:
    return Confirmation(generation, None, "t1", TOKENS)._replace(**changes)


def acknowledged(tracker: Tracker) -> None:
    """Acknowledges the changes, and the work twice."""
    tracker.positions({CHANGES: 1000})
    for _ in range(2):
        assert tracker.needs_work_ends
        tracker.work_ends({WORK: 10})
        tracker.positions({WORK: 10})


def proved(tracker: Tracker, number: int, generation: int = 1, now: Confirmation | None = None) -> Watermark | None:
    """Takes a candidate through all steps."""
    tracker.add(candidate(number), basis(generation), {CHANGES: 5})
    acknowledged(tracker)
    tracker.ask()
    return tracker.confirm(now or confirmation(generation))


def test_a_candidate_becomes_the_watermark_after_all_steps() -> None:
    tracker = Tracker("orders")
    tracker.add(candidate(100), basis(), {CHANGES: 5})
    assert tracker.needs_positions and tracker.waits_for == {CHANGES: 5}
    tracker.positions({CHANGES: 4})
    assert "1 record is not in every sink yet" in tracker.reason and not tracker.needs_work_ends
    acknowledged(tracker)
    assert tracker.needs_confirmation
    tracker.ask()
    found = tracker.confirm(confirmation())
    assert found and tracker.watermark == found and found.clock == 100 and tracker.reason == ""
    assert not tracker.pending


def test_the_ends_of_the_work_are_read_twice() -> None:
    """A sweep hands over its keys as further items."""
    tracker = Tracker("orders")
    tracker.add(candidate(100), basis(), {CHANGES: 5})
    tracker.positions({CHANGES: 5})
    tracker.work_ends({WORK: 10})
    tracker.positions({WORK: 10})
    assert not tracker.needs_confirmation
    tracker.work_ends({WORK: 20})
    tracker.positions({WORK: 19})
    assert not tracker.needs_confirmation
    tracker.positions({WORK: 20})
    assert tracker.needs_confirmation


@pytest.mark.parametrize(
    ("refused", "changes", "reason"),
    [
        (candidate(1, stream=2), {}, "changes were lost"),
        (candidate(1), {"complete": False}, "the first backfill"),
        (candidate(1, tables="t2"), {}, "tables were altered"),
        (candidate(1), {"reader": ("pid 8", 2)}, "the connector resumed"),
        (candidate(1), {"reader": None}, "the connector resumed"),
    ],
)
def test_a_candidate_without_its_basis_is_refused_with_the_reason(
    refused: Candidate, changes: dict[str, Any], reason: str
) -> None:
    tracker = Tracker("orders")
    tracker.add(refused, basis(**changes), {CHANGES: 5})
    assert not tracker.pending and reason in tracker.reason


def test_any_reader_will_do_if_resumes_are_not_repaired() -> None:
    tracker = Tracker("orders")
    tracker.add(candidate(1), basis(reader=ANY_READER), {CHANGES: 5})
    assert tracker.pending


def test_an_alteration_while_a_candidate_was_under_way_keeps_the_old_watermark() -> None:
    tracker = Tracker("orders")
    first = proved(tracker, 100)
    assert first and proved(tracker, 200, now=confirmation(tables="t2")) is None
    assert tracker.watermark == first and "tables were altered" in tracker.reason


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (LOST, "redis may have lost writes"),
        ({"redis": TOKENS["redis"], "other": TOKENS["redis"]}, "other may have lost writes"),
    ],
)
def test_after_a_loss_there_is_no_watermark_until_the_repair(tokens: dict[str, DurabilityToken], reason: str) -> None:
    """The documents that a sink lost may have been written before the old watermark, too."""
    tracker = Tracker("orders")
    assert proved(tracker, 100)
    assert proved(tracker, 200, now=confirmation(tokens=tokens)) is None
    assert tracker.watermark is None and reason in tracker.reason
    tracker.add(candidate(300), basis(tokens=tokens), {CHANGES: 5})
    acknowledged(tracker)
    tracker.ask()
    found = tracker.confirm(confirmation(tokens=tokens))
    assert found and tracker.watermark == found


def test_a_sink_that_forgot_only_deletes_keeps_the_old_watermark() -> None:
    tracker, tokens = Tracker("orders"), {"redis": TOKENS["redis"]._replace(tombstones="run 2")}
    first = proved(tracker, 100)
    assert first and proved(tracker, 200, now=confirmation(tokens=tokens)) is None
    assert tracker.watermark == first and "redis may have lost writes" in tracker.reason


def test_facts_that_were_asked_for_earlier_confirm_no_later_candidate() -> None:
    """A sink may lose the writes of the later candidate after it gave its token, while another sink is slow."""
    tracker = Tracker("orders")
    tracker.add(candidate(100), basis(), {CHANGES: 5})
    acknowledged(tracker)
    tracker.ask()
    tracker.add(candidate(200), basis(), {CHANGES: 6})
    acknowledged(tracker)
    tracker.ask()
    found = tracker.confirm(confirmation())
    assert found and found.clock == 100 and tracker.needs_confirmation
    tracker.ask()
    assert tracker.confirm(confirmation(tokens=LOST)) is None


def test_facts_that_were_asked_for_are_taken_also_if_their_candidate_is_gone() -> None:
    tracker = Tracker("orders")
    tracker.add(candidate(100), basis(), {CHANGES: 5})
    acknowledged(tracker)
    tracker.ask()
    tracker.clear("changes were lost")
    assert tracker.needs_confirmation
    tracker.add(candidate(200), basis(), {CHANGES: 5})
    acknowledged(tracker)
    tracker.ask()
    assert tracker.confirm(confirmation()) is None, "these facts are older than the candidate"
    tracker.ask()
    found = tracker.confirm(confirmation())
    assert found and found.clock == 200


def test_a_high_watermark_of_writes_is_no_loss() -> None:
    tokens = {"redis": TOKENS["redis"]._replace(written="9")}
    assert proved(Tracker("orders"), 100, now=confirmation(tokens=tokens))


def test_when_readers_switch_there_is_no_watermark() -> None:
    tracker = Tracker("orders")
    assert proved(tracker, 100)
    assert proved(tracker, 200, now=confirmation(switch=Retry("a resync is switching readers"))) is None
    assert tracker.watermark is None and not tracker.pending


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("backlog", [10, 100, 400])
def test_the_watermark_advances_with_a_constant_backlog(levels: int, backlog: int) -> None:
    """Each second, a change arrives and a candidate is taken. Changes are acknowledged `backlog` seconds later."""
    model, reached, most = Looking(levels), list[int](), 0
    for second in range(1, 5 * (levels + 1) * backlog):
        model.prove(model.take(second), end=second)
        most = max(most, len(model.tracker._pending))
        acknowledge(model.tracker, second - backlog)
        if found := confirmed(model.tracker):
            reached.append(found)
    assert len(reached) >= 3 and reached == sorted(reached) and most < MOST
    last = 5 * (levels + 1) * backlog
    assert last - reached[-1] < 2 * (levels + 1) * backlog


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    model = Looking(levels=1)
    for number in (*range(10_000, 10_000 + 2 * MOST), *range(1, 1000)):
        model.prove(model.take(number), end=number)
        assert len(model.tracker._pending) <= MOST
    acknowledge(model.tracker, 20_000)
    assert confirmed(model.tracker) is None
    model.prove(model.take(2000), end=20_000)
    acknowledge(model.tracker, 20_000)
    assert confirmed(model.tracker)


def acknowledge(tracker: Tracker, end: int) -> None:
    """Acknowledges the changes up to an end, and all work, for every candidate."""
    tracker.positions({CHANGES: end, WORK: 10})
    for _ in range(2):
        tracker.work_ends({WORK: 10})
        tracker.positions({CHANGES: end, WORK: 10})


def confirmed(tracker: Tracker) -> int | None:
    """Confirms what is ready. Returns the clock of the watermark if it advanced."""
    tracker.ask()
    found = tracker.confirm(confirmation())
    return found.clock if found else None


class Looking:
    """A read model with look-ups. Its candidates are taken and proved one by one."""

    def __init__(self, levels: int) -> None:
        self.tracker, self.basis = Tracker("orders"), basis(lookup_levels=levels)

    def take(self, number: int) -> Candidate:
        return candidate(number)._replace(acknowledged={"orders": self.tracker.taken()})

    def prove(self, taken: Candidate, end: int) -> None:
        """end: of the change topic, after the proof."""
        self.tracker.add(taken, self.basis, {CHANGES: end})


def test_a_candidate_waits_for_a_later_one_if_look_ups_ran_after_it_was_taken() -> None:
    model = Looking(levels=1)
    model.prove(model.take(100), end=5)
    acknowledge(model.tracker, 5)
    assert confirmed(model.tracker) is None
    assert "a later snapshot" in model.tracker.reason
    busy, asks = [model.tracker.pending], [model.tracker.needs_candidate]
    second = model.take(200)
    asks.append(model.tracker.needs_candidate)
    model.prove(second, end=8)
    assert [*busy, model.tracker.pending] == [False, True]
    acknowledge(model.tracker, 7)
    assert confirmed(model.tracker) is None, "the move may be in record 7"
    acknowledge(model.tracker, 8)
    assert confirmed(model.tracker) == 100
    assert [*asks, model.tracker.needs_candidate] == [True, False, True]


def test_no_later_candidate_is_needed_if_all_look_ups_ran_before() -> None:
    model = Looking(levels=3)
    model.prove(model.take(100), end=5)
    acknowledge(model.tracker, 5)
    assert confirmed(model.tracker) is None
    model.prove(model.take(200), end=5)
    acknowledge(model.tracker, 5)
    assert confirmed(model.tracker) == 200
    assert not model.tracker.needs_candidate


def test_a_candidate_that_was_taken_before_the_look_ups_is_no_later_one() -> None:
    model = Looking(levels=1)
    first, second = model.take(100), model.take(200)
    model.prove(first, end=5)
    model.prove(second, end=6)
    acknowledge(model.tracker, 6)
    assert confirmed(model.tracker) is None and model.tracker.needs_candidate


def test_each_level_of_look_ups_needs_a_further_candidate() -> None:
    model = Looking(levels=2)
    reached = []
    for number in range(1, 5):
        model.prove(model.take(100 * number), end=5 * number)
        acknowledge(model.tracker, 5 * number)
        reached.append(confirmed(model.tracker))
    assert reached == [None, None, 100, 200]


def test_what_another_generation_has_acknowledged_does_not_count() -> None:
    tracker = Tracker("orders")
    before = {"orders": Acknowledged(1, {CHANGES: 5})}
    tracker.add(candidate(100)._replace(acknowledged=before), basis(generation=2, lookup_levels=1), {CHANGES: 5})
    acknowledge(tracker, 5)
    tracker.ask()
    assert tracker.confirm(confirmation(generation=2)) is None


@dataclass(slots=True)
class Model:
    """A read model whose generation grows, and the steps of its tracker in any order."""

    tracker: Tracker = field(default_factory=lambda: Tracker("orders"))
    generation: int = 1
    number: int = 100

    def do(self, step: str) -> None:
        if step == "resync":
            self.generation += 1
        elif step == "add":
            self.number += 1
            self.tracker.add(candidate(self.number), basis(self.generation), {CHANGES: 5})
        elif step == "positions":
            self.tracker.positions({CHANGES: 5, WORK: 5})
        elif step == "work":
            self.tracker.work_ends({WORK: 5})
        else:
            self.tracker.ask()
            self.tracker.confirm(confirmation(self.generation))
            self._check()
        if step == "add":
            self._check()

    def _check(self) -> None:
        """Once the tracker knows the generation, it shows no watermark of an old one."""
        found = self.tracker.watermark
        assert found is None or found.generation == self.generation


STEPS = st.lists(st.sampled_from(["resync", "add", "positions", "positions", "work", "work", "confirm"]), max_size=40)
ADVANCES = ["add", *["positions", "work"] * 3, "confirm"]


def run(steps: list[str]) -> None:
    model = Model()
    for step in steps:
        model.do(step)


@given(STEPS, STEPS)
def test_an_old_generations_watermark_is_never_shown_for_a_new_one(before: list[str], after: list[str]) -> None:
    run([*before, *ADVANCES, *after])


def test_without_the_generation_rule_an_old_watermark_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tracker, "_reset_unless", lambda self, generation: None)
    with pytest.raises(AssertionError):
        run([*ADVANCES, "resync", "add"])
    with pytest.raises(AssertionError):  # a candidate of the old generation, which is confirmed in the new one
        run([*ADVANCES[:-1], "resync", "confirm"])
