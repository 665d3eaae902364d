"""Every record of the state store has one key, and is read as it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from syncer.checks import Reader
from syncer.clock import Identity
from syncer.ports import DurabilityToken
from syncer.registry import records
from syncer.registry.records import (
    Activated,
    BackfillRun,
    CanaryPosition,
    Generation,
    HighestClock,
    Key,
    Outgrown,
    Process,
    ProcessReport,
    Proved,
    Registration,
    Rerender,
    SlotReader,
    StateSlot,
    Stream,
    SwapAnnounced,
    Verification,
)
from syncer.registry.state import State

ORDERS = Generation("orders", 2)
REGISTRATION = Registration("orders", "4-a", 3, 2, {"shop.public.orders": {"0": 7}}, 99, 1, {"t": "id"}, "1:2:", 98)
REPORT = ProcessReport(Process("a1", "one.example", 7, 5), "waiting", 6, "busy", 8)


class Store:
    """`ports.StateStore` over a dictionary. Values are JSON texts, as in Kafka."""

    def prepare(self) -> None:
        pass

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}

    def load_since(self, moment: float) -> dict[str, dict[str, Any]]:
        return self.load()

    def load(self, max_age: float = 0.0) -> dict[str, dict[str, Any]]:
        return {key: orjson.loads(text) for key, text in self.texts.items()}

    def save(self, key: str, value: Mapping[str, Any] | None) -> None:
        self.texts.pop(key, None)
        if value is not None:
            self.texts[key] = orjson.dumps(dict(value))


@pytest.mark.parametrize(
    ("key", "record", "text", "value"),
    [
        (Registration.key(ORDERS), REGISTRATION, "orders/2/registration", None),
        (Activated.key(ORDERS), Activated(9), "orders/2/active", {"at_ms": 9}),
        (
            HighestClock.key(ORDERS),
            HighestClock(11, 1, 5),
            "orders/2/clock",
            {"system": 11, "timeline": 1, "clock": 5},
        ),
        (records.ClockRanBackwards.key(ORDERS), records.ClockRanBackwards("why"), "orders/2/backwards", {"why": "why"}),
        (records.BuiltSinks.key(ORDERS), records.BuiltSinks(), "orders/2/sinks", {"built": True}),
        (
            records.DurabilityTokens.key(ORDERS),
            records.DurabilityTokens({"redis:orders": DurabilityToken("a", "b", "c")}),
            "orders/2/memory",
            {"redis:orders": ["a", "b", "c"]},
        ),
        (
            records.OpenBreakers.key(ORDERS),
            records.OpenBreakers({"redis:orders": {"limit": 100, "trips": 1}}),
            "orders/2/breaker",
            {"redis:orders": {"limit": 100, "trips": 1}},
        ),
        (records.RenderBasis.key(ORDERS), records.RenderBasis({"form": 3}), "orders/2/shape", {"form": 3}),
        (records.WeakIdentity.key(ORDERS), records.WeakIdentity("17"), "orders/2/weak", {"token": "17"}),
        (
            Outgrown.key(ORDERS),
            Outgrown(["it has no field id"], ["id"]),
            "orders/2/outgrown",
            {"texts": ["it has no field id"], "columns": ["id"]},
        ),
        (
            SlotReader.key(ORDERS),
            SlotReader(Reader(100, None), None),
            "orders/2/reader",
            {"reader": {"pid": 100, "since": None}, "only_inserts": None, "proved": None},
        ),
        (
            SlotReader.key(ORDERS),
            SlotReader(None, True),
            "orders/2/reader",
            {"reader": None, "only_inserts": True, "proved": None},
        ),
        (
            Rerender.key(ORDERS),
            Rerender("altered", 9, {0: 3, 11: 4}),
            "orders/2/refresh",
            {"why": "altered", "at_ms": 9, "ends": {"0": 3, "11": 4}},
        ),
        (records.BuildReport.key(ORDERS), records.BuildReport(9), "orders/2/building", {"at_ms": 9}),
        (
            SwapAnnounced.key(ORDERS),
            SwapAnnounced(1, 9),
            "orders/2/swap",
            {"leaving": 1, "at_ms": 9},
        ),
        (
            BackfillRun.key(ORDERS),
            BackfillRun("r", True, 2, 1000, 1, {0: 3}, {0: 5}, letters=7),
            "orders/2/backfill",
            {
                "run": "r",
                "planned": True,
                "items": 2,
                "roots": 1000,
                "started_ms": 1,
                "begins": {"0": 3},
                "ends": {"0": 5},
                "finished_ms": 0,
                "complete": False,
                "letters": 7,
                "unit": "document",
            },
        ),
        (
            Verification.key(ORDERS),
            Verification(5, 100, 2),
            "orders/2/verified",
            {"started_ms": 5, "documents": 100, "differences": 2},
        ),
        (
            ProcessReport.key("orders", "a1"),
            REPORT,
            "orders/process/a1",
            {
                "process": {"id": "a1", "host": "one.example", "pid": 7, "started_ms": 5},
                "state": "waiting",
                "since_ms": 6,
                "reason": "busy",
                "at_ms": 8,
            },
        ),
        (
            Stream.key("shop"),
            Stream(1, "reset", 2, "s"),
            "~shop",
            {"number": 1, "why": "reset", "at_ms": 2, "slot": "s"},
        ),
        (
            CanaryPosition.key("shop"),
            CanaryPosition("ab", 3, 1, {0: 17}, 5),
            "~shop/canary",
            {"series": "ab", "number": 3, "stream": 1, "from": {"0": 17}, "since_ms": 5, "proved": []},
        ),
        (
            CanaryPosition.key("shop"),
            CanaryPosition("ab", 3, 1, {}, 0, (Proved(Reader(100, 17), 7, 1, 1 << 33),)),
            "~shop/canary",
            {
                "series": "ab",
                "number": 3,
                "stream": 1,
                "from": {},
                "since_ms": 0,
                "proved": [{"reader": {"pid": 100, "since": 17}, "system": 7, "timeline": 1, "xmin": 1 << 33}],
            },
        ),
    ],
)
def test_a_record_is_read_as_it_was_written(key: Key[Any], record: Any, text: str, value: Any) -> None:
    store = Store()
    state = State(store)
    assert state.load().get(key) is None
    state.save(key, record)
    assert list(store.texts) == [text] and state.load().get(key) == record
    if value is not None:
        assert store.load()[text] == value
    state.save(key, None)
    assert state.load().get(key) is None and store.texts == {}


def test_an_empty_object_is_no_record() -> None:
    store = Store()
    store.save("orders/2/registration", {})
    assert State(store).load().registration("orders", StateSlot.NEXT) is None


@pytest.mark.parametrize(
    ("known", "active", "following"),
    [
        ([], None, None),
        ([(1, True)], 1, None),
        ([(1, True), (2, False)], 1, 2),
        ([(1, True), (2, False), (3, False)], 1, 3),
        ([(1, True), (2, True)], 2, None),
        ([(1, True), (2, False), (3, True)], 3, None),
        ([(1, True), (9, True), (10, True), (11, False)], 10, 11),
        ([(1, False)], None, 1),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_the_latest_generation_counts_in_whatever_order_they_were_registered(
    known: Sequence[tuple[int, bool]], active: int | None, following: int | None, *, reverse: bool
) -> None:
    state = State(Store())
    for number, is_active in sorted(known, reverse=reverse):
        one = replace(REGISTRATION, generation=number)
        if is_active:
            state.save(Activated.key(one.id), Activated(9))
        state.save(Registration.key(one.id), one)
    found = [state.load().registration("orders", slot) for slot in (StateSlot.ACTIVE, StateSlot.NEXT)]
    assert [one and one.generation for one in found] == [active, following]


def test_the_latest_switch_to_a_later_generation_is_announced() -> None:
    state = State(Store())
    for number in (2, 4, 3):
        state.save(SwapAnnounced.key(Generation("orders", number)), SwapAnnounced(1, 9))
    state.save(SwapAnnounced.key(Generation("orders2", 5)), SwapAnnounced(1, 9))
    assert state.load().switch(Generation("orders", 1)) == (4, SwapAnnounced(1, 9))
    assert state.load().switch(Generation("orders", 4)) is None


def test_a_snapshot_finds_registered_models_and_their_reports() -> None:
    state = State(Store())
    for model in ("orders", "orders2"):
        state.save(Registration.key(Generation(model, 2)), replace(REGISTRATION, model=model))
        state.save(Activated.key(Generation(model, 2)), Activated(9))
        state.save(ProcessReport.key(model, "a1"), replace(REPORT, reason=model))
    state.save(Registration.key(Generation("new", 2)), replace(REGISTRATION, model="new"))
    state.save(HighestClock.key(ORDERS), HighestClock(11, 1, 5))
    state.save(Stream.key("shop"), Stream(1))
    values = state.load()
    assert values.models() == {"orders", "orders2"}
    assert [report.reason for report in values.reports("orders")] == ["orders"]
    assert values.reports("order") == []
    assert values.get(HighestClock.key(ORDERS)) == HighestClock(*Identity(11, 1), 5)


def test_a_resync_that_is_due_names_the_altered_columns_and_the_command() -> None:
    assert Outgrown(["a", "b"]).describe("orders") == "a; b → syncer resync orders"
    assert Outgrown(["a"], ["t.x: int, now text"]).describe("orders") == "t.x: int, now text: a → syncer resync orders"
