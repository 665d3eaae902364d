"""Tests the values of the page: samples, rates, and the next commands."""

from __future__ import annotations

from typing import Any

import pytest

from syncer.runtime.overview import commands, next_steps
from tests.harness.overview import DAY, ExampleOverview


def test_rates_are_those_since_the_last_sample() -> None:
    example = ExampleOverview(1000.0)
    example.work(0, 0)
    example.work(100, 30)
    example.work(3, 1)
    found = example.read()
    orders = found["history"]["models"]["orders"]
    assert found["history"]["at"] == [1002, 1004, 1006]
    assert orders == {
        "lag": [0.25] * 3,
        "staleness": [None] * 3,
        "records": [None, 50, 1.5],
        "writes": [None, 15, 0.5],
    }
    assert found["history"]["slot"] == [3 << 20] * 3
    assert (found["models"]["orders"]["records_per_second"], found["models"]["orders"]["writes_per_second"]) == (
        1.5,
        0.5,
    )
    assert found["models"]["summaries"]["records_per_second"] == 0


def test_an_update_has_only_new_samples() -> None:
    example = ExampleOverview(1000.0)
    for _ in range(5):
        example.work(1, 1)
    assert example.read(since=1008)["history"]["at"] == [1010]
    assert example.read(since=1010)["history"]["at"] == []


def test_samples_are_two_seconds_apart_although_the_daemon_calls_every_second() -> None:
    example = ExampleOverview(1000.0)
    for _ in range(10):
        example.now += 1
        example.overview.sample()
    assert example.read()["history"]["at"] == [1001, 1003, 1005, 1007, 1009]


def test_the_staleness_of_a_read_model_is_passed_on() -> None:
    example = ExampleOverview(1000.0)
    example.models["orders"].values |= {"staleness_seconds": 0.75, "watermark_reason": ""}
    example.work(0, 0)
    found = example.read()
    assert found["models"]["orders"]["staleness_seconds"] == 0.75
    assert "staleness_seconds" not in found["models"]["summaries"]
    assert found["history"]["models"]["orders"]["staleness"] == [0.75]


def test_a_failed_read_model_has_its_reason_and_the_commands_to_run() -> None:
    failed = ExampleOverview().read()["models"]["summaries"]
    assert failed["reason"] == "the read model was changed since its documents were rendered"
    assert (failed["hint"], failed["commands"]) == ("syncer resync summaries", ["syncer resync summaries"])
    assert failed["next_steps"] == [
        {"text": "2 documents or records are rejected.", "command": "syncer dlq list summaries"}
    ]


def test_findings_of_the_source_have_their_commands() -> None:
    example = ExampleOverview()
    example.source.values["findings"] = [{"reason": "it is paused", "hint": "syncer connectors apply"}]
    [finding] = example.read()["source"]["findings"]
    assert finding["commands"] == ["syncer connectors apply"]


@pytest.mark.parametrize(
    ("hint", "found"),
    [
        ("syncer check  (it prints the ALTER TABLE to run)", ["syncer check"]),
        ("syncer connectors reset, then: syncer resync orders", ["syncer connectors reset", "syncer resync orders"]),
        (
            "if documents were edited by hand: syncer verify orders --repair; if it failed over: syncer resync orders",
            ["syncer verify orders --repair", "syncer resync orders"],
        ),
        ("run syncer resync orders to build it again", ["syncer resync orders"]),
        ("a defect of the syncer: its log has the traceback", []),
        ("see docs/syncer run.md", []),
    ],
)
def test_commands_are_found_in_hints(hint: str, found: list[str]) -> None:
    assert commands(hint, "orders") == found


DONE = {"state": "done", "documents": 5, "at": 0}


@pytest.mark.parametrize(
    ("progress", "letters", "expected"),
    [
        ({}, 0, []),
        ({}, 1, ["syncer dlq list orders"]),
        ({"backfill": {"state": "never"}}, 0, ["syncer backfill orders"]),
        ({"backfill": {"state": "unfinished"}}, 0, []),
        ({"backfill": DONE, "verification": None}, 0, ["syncer verify orders"]),
        ({"backfill": DONE, "verification": {"state": "verified", "at": 0}}, 0, []),
        ({"backfill": DONE, "verification": {"state": "old", "at": 0}}, 0, ["syncer verify orders"]),
        ({"backfill": DONE, "verification": {"state": "different", "at": 0}}, 0, ["syncer verify orders --repair"]),
        (
            {"backfill": DONE, "resync": {"running": False}, "verification": {"state": "verified", "at": 0}},
            0,
            ["syncer resync orders"],
        ),
    ],
)
def test_next_steps(progress: dict[str, Any], letters: int, expected: list[str]) -> None:
    assert [command for _, command in next_steps("orders", letters, progress, 3 * DAY)] == expected
