"""How the monitor settles a candidate, and what it publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from syncer.clock import Identity, Snapshot
from syncer.errors import Fatal, Retry
from syncer.freshness.advancing import advance
from syncer.freshness.candidates import Basis, Candidate, Confirmation
from syncer.freshness.monitor import FreshnessMonitor
from syncer.freshness.report import Freshness
from syncer.freshness.tokens import Token, TokenKind
from syncer.freshness.watermark import Tracker, Watermark
from syncer.ports import Partition, ends_of
from syncer.postgres.fingerprint import Fingerprint

CHANGES, WORK = ("shop.public.orders", 0), ("work", 0)
CANDIDATE = Candidate(Identity(7, 1), Snapshot.parse("20:20:"), 0x10, 0x20, 1_700_000_000_000, 1, 1, {"orders": "t"})
NO_TABLES: Any = None


class Facts:
    """The facts about one read model. The sinks answer after the first question."""

    model = "orders"
    change_topics: tuple[str, ...] = ("shop.public.orders",)
    work_topics: tuple[str, ...] = ("work",)
    fingerprint: Fingerprint = NO_TABLES

    def __init__(self) -> None:
        self.positions: dict[Partition, int] = {}
        self.asked: list[dict[Partition, int]] = []
        self.answers = [None, Confirmation(1, None, "t", {})]

    def basis(self) -> Basis:
        return Basis(1, 1, "t", 1, True, {}, 0)

    def acknowledged(self, ends: Mapping[Partition, int]) -> Mapping[Partition, int]:
        self.asked.append(dict(ends))
        return self.positions

    def confirmation(self, read_tables: Callable[[Fingerprint], str]) -> Confirmation | None:
        return self.answers.pop(0)


def monitoring(ends: dict[Partition, int], *models: Facts) -> tuple[FreshnessMonitor, Any]:
    """Returns a monitor of these read models to which a candidate was proved, and the read models as it knows them."""
    config = SimpleNamespace(kafka=SimpleNamespace(topic_prefix="shop"))
    changes = SimpleNamespace(known_ends=lambda topics: {p: end for p, end in ends.items() if p[0] in topics})
    registry: Any = SimpleNamespace(config=config, changes=changes)
    monitor = FreshnessMonitor(registry)
    probe: Any = monitor.probe
    probe.proved = lambda connection: CANDIDATE._replace(tables=dict.fromkeys((one.model for one in models), "t"))
    server: Any = monitor
    server._session = lambda: None
    outlets: Any = None
    for one in models:
        monitor.attach(one, outlets)
    return monitor, dict(monitor._models)


def reading(model: str) -> Facts:
    """Returns the facts about a read model with a topic of its own."""
    facts = Facts()
    facts.model, facts.change_topics = model, (f"shop.public.{model}",)
    return facts


def test_a_candidate_is_lost_only_for_the_read_model_whose_topic_is_unknown() -> None:
    orders, customers = reading("orders"), reading("customers")
    monitor, models = monitoring({("shop.public.orders", 0): 5}, orders, customers)
    monitor._begin(models)
    assert models["orders"][1].pending and not models["customers"][1].pending
    assert "shop.public.customers" in monitor.freshness("customers").reason


def test_a_candidate_is_lost_only_for_the_read_model_whose_state_cannot_be_read() -> None:
    class Broken(Facts):
        model = "customers"

        def basis(self) -> Basis:
            raise Retry("the state topic cannot be read")

    orders = reading("orders")
    monitor, models = monitoring({("shop.public.orders", 0): 5}, Broken(), orders)
    monitor._begin(models)
    assert models["orders"][1].pending and not models["customers"][1].pending
    assert monitor.freshness("customers").reason == "the state topic cannot be read"


def test_ends_of_work_that_are_unknown_are_read_again_after_a_pause() -> None:
    facts, ends = reading("orders"), {("shop.public.orders", 0): 0}
    monitor, models = monitoring(ends, facts)
    facts.positions = {("shop.public.orders", 0): 0}
    tracker = models["orders"][1]
    monitor._begin(models)
    for _ in range(2):  # the changes are acknowledged, then the ends of the work are asked for
        monitor._advance(models)
    ends["work", 0] = 3
    facts.positions["work", 0] = 3
    assert tracker.needs_work_ends and "topic work" in tracker.reason
    monitor._advance(models)
    assert tracker.needs_work_ends, "Kafka is not asked again at once"
    monitor._read_ends_at.clear()
    for _ in range(2):
        monitor._advance(models)
    assert not tracker.needs_work_ends


def test_an_unknown_topic_delays_no_other_read_model_however_often_candidates_are_proved() -> None:
    """Its own retries are paused. A pause for all would never end while many callers wait."""
    orders, customers = reading("orders"), reading("customers")
    monitor, models = monitoring({("shop.public.orders", 0): 0, ("work", 0): 3}, orders, customers)
    orders.positions = {("shop.public.orders", 0): 0}
    tracker = models["orders"][1]
    for _ in range(2):
        monitor._begin(models)
        monitor._advance(models)
    assert tracker.waits_for.get(("work", 0)) == 3


def test_nobody_can_wait_while_a_resync_switches_readers() -> None:
    class Switching(Facts):
        switch: Retry | None = Retry("a resync is switching readers", hint="syncer resync orders")

        def basis(self) -> Basis:
            return super().basis()._replace(switch=self.switch)

    facts = Switching()
    monitor, models = monitoring({CHANGES: 5}, facts)
    caller = monitor.wait("orders", Token(TokenKind.NOW))
    monitor._begin(models)
    with pytest.raises(Retry, match="switching readers"):
        caller.future.result(0)
    with pytest.raises(Retry, match="switching readers") as error:
        monitor.wait("orders", Token(TokenKind.NOW))
    assert error.value.hint == "syncer resync orders"
    facts.switch = None
    monitor._begin(models)
    assert not monitor.wait("orders", Token(TokenKind.NOW)).future.done()


def test_waits_for_a_read_model_that_fails_end_with_its_reason() -> None:
    facts = Facts()
    monitor, _ = monitoring({}, facts)
    caller = monitor.wait("orders", Token(TokenKind.NOW))
    monitor.detach(facts)
    monitor.end_waits("orders", Fatal("a topic was deleted", hint="syncer resync orders"))
    monitor._end_waits()
    for call in (lambda: caller.future.result(0), lambda: monitor.wait("orders", Token(TokenKind.NOW))):
        with pytest.raises(Retry, match="a topic was deleted") as error:
            call()
        assert error.value.hint == "syncer resync orders"


def read_tables(fingerprint: Fingerprint) -> str:
    return "t"


def test_a_candidate_is_confirmed_step_by_step() -> None:
    facts, tracker = Facts(), Tracker("orders")
    tracker.add(CANDIDATE, facts.basis(), {CHANGES: 5})
    assert advance(facts, tracker, read_tables) is None
    facts.positions = {CHANGES: 5, WORK: 3}
    for _ in range(2):
        assert advance(facts, tracker, read_tables) is None
        assert tracker.needs_work_ends
        tracker.work_ends({WORK: 3})
    assert advance(facts, tracker, read_tables) is None, "the sinks have not answered"
    found = advance(facts, tracker, read_tables)
    assert found and found.clock == 20
    assert facts.asked == [{CHANGES: 5}, {CHANGES: 5}, {WORK: 3}, {WORK: 3}]
    assert facts.answers == []


def test_a_topic_that_a_broker_does_not_list_is_not_left_out() -> None:
    """A candidate that does not wait for a topic would pass while records of that topic are under way."""
    with pytest.raises(Retry, match=r"shop\.public\.lines"):
        ends_of(("shop.public.orders", "shop.public.lines"), {CHANGES: 5, WORK: 1})


def test_the_ends_of_other_topics_are_left_out() -> None:
    assert ends_of(("work",), {WORK: 3, CHANGES: 5}) == {WORK: 3}


def test_without_a_candidate_nothing_is_asked() -> None:
    facts = Facts()
    assert advance(facts, Tracker("orders"), read_tables) is None
    assert facts.asked == [] and len(facts.answers) == 2


def test_the_status_names_the_watermark_and_the_reason() -> None:
    watermark = Watermark(1, Identity(7, 1), Snapshot.parse("20:20:"), 0x10, 1_700_000_000_000)
    assert Freshness(watermark, 1.23456, "", None).status() == {
        "staleness_seconds": 1.235,
        "watermark": {"taken_at": "2023-11-14T22:13:20Z", "clock": 20, "generation": 1, "lsn": "0/10"},
        "searchable": None,
        "watermark_reason": "",
    }
    unknown = Freshness(None, None, "the first backfill has not finished", None).status()
    assert unknown["staleness_seconds"] is None and unknown["watermark"] is None
    assert unknown["watermark_reason"] == "the first backfill has not finished"
