"""Checks the promise in thousands of schedules, which differ in every run."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.simulation.choices import Choices, decisions
from tests.simulation.history import KINDS
from tests.simulation.rounds import (
    BOARDS,
    BOUND,
    COMBINED,
    DIVIDED,
    GROUPS,
    HOT,
    HOT_COMBINED,
    MEASURING,
    REFRESHING,
    REFUSING,
    RESUMING,
    SINKS,
    TOPIC,
    portion,
    replay,
)
from tests.simulation.schedule import run
from tests.simulation.shrink import shrink
from tests.simulation.weaker import WEAKER

_SCHEDULES = 5000
_REFUSING = 1000
_MEASURING = 2000
_REFRESHING = 2000
_TOPIC = 2000
_HOT = 2000
_SINKS = 1000
_RESUMING = 1000
_GROUPED = 500
_BOARDS = 400


def test_every_document_equals_the_database(echo: Callable[[str], None]) -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    echo(f"seed {seed}: python -m tests.simulation --seed {seed} --schedules {_SCHEDULES}")
    count, seen, failed = portion(seed, _SCHEDULES)
    assert failed is None, f"schedule {failed}:\n{replay(failed)}"
    assert count == _SCHEDULES
    assert not [kind for kind in KINDS if not seen[kind]], "the schedules did not have these events"


def test_refused_documents_are_written_after_the_mapping_is_fixed() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _REFUSING, REFUSING)
    assert failed is None, f"schedule {failed}:\n{replay(failed, REFUSING)}"
    assert count == _REFUSING
    assert seen["a breaker opened"] and seen["a breaker closed"] and seen["a dead letter"]


def test_refreshed_documents_show_the_transaction_of_the_token() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _REFRESHING, REFRESHING)
    assert failed is None, f"schedule {failed}:\n{replay(failed, REFRESHING)}"
    assert count == _REFRESHING
    assert seen["a refreshed document was compared"] > _REFRESHING / 10
    assert seen["a refresh waited for its transaction"]


def test_no_document_is_older_than_the_watermark() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _MEASURING, MEASURING)
    assert failed is None, f"schedule {failed}:\n{replay(failed, MEASURING)}"
    assert count == _MEASURING
    for kind in ("a slot was created again", "a row vanished without an event", "a resume was repaired"):
        assert seen[kind], f"the schedules did not have this: {kind}"
    assert seen["the watermark advanced"] > count // 2


def test_inserted_rows_that_the_connector_loses_are_rendered() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _RESUMING, RESUMING)
    assert failed is None, f"schedule {failed}:\n{replay(failed, RESUMING)}"
    assert count == _RESUMING
    assert seen["the connector lost rows when it resumed"] > count // 20
    assert seen["the documents of recent rows were rendered again"] > count // 20


def test_every_sink_has_every_document() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _SINKS, SINKS)
    assert failed is None, f"schedule {failed}:\n{replay(failed, SINKS)}"
    assert count == _SINKS
    for kind in ("a sink was busy with some documents", "a bulk failed before it was applied"):
        assert seen[kind], f"the schedules did not have this: {kind}"
    assert seen["the watermark advanced"] > count // 2


def test_delayed_roots_arrive_and_hold_back_the_watermark() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _HOT, HOT)
    assert failed is None, f"schedule {failed}:\n{replay(failed, HOT)}"
    assert count == _HOT
    assert seen["a root was delayed"] > count // 5 and seen["the watermark advanced"] > count // 2


def test_the_last_record_of_a_documents_topic_equals_the_database() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _TOPIC, TOPIC)
    assert failed is None, f"schedule {failed}:\n{replay(failed, TOPIC)}"
    assert count == _TOPIC
    assert seen["the order lane found an older version last"] and seen["a record was rejected for its age"]


def test_documents_that_are_combined_from_partials_equal_the_database() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _GROUPED, COMBINED)
    assert failed is None, f"schedule {failed}:\n{replay(failed, COMBINED)}"
    assert count == _GROUPED
    for kind in (
        "an item moved to another key",
        "the sink forgot partials",
        "the sink lost acknowledged writes",
        "partials were written and not answered",
        "a process was killed",
    ):
        assert seen[kind], f"the schedules did not have this: {kind}"


def test_delayed_partials_arrive() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _GROUPED, HOT_COMBINED)
    assert failed is None, f"schedule {failed}:\n{replay(failed, HOT_COMBINED)}"
    assert count == _GROUPED
    assert seen["a root was delayed"] > count // 5 and seen["the sink forgot partials"]


def test_documents_of_groups_equal_the_database() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _GROUPED, GROUPS)
    assert failed is None, f"schedule {failed}:\n{replay(failed, GROUPS)}"
    assert count == _GROUPED
    for kind in ("a write was refused: the sink had a newer version", "a truncate of the root made sweeps"):
        assert seen[kind], f"the schedules did not have this: {kind}"


def test_documents_of_groups_that_are_combined_from_partials_equal_the_database() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _GROUPED, DIVIDED)
    assert failed is None, f"schedule {failed}:\n{replay(failed, DIVIDED)}"
    assert count == _GROUPED
    for kind in ("the sink forgot partials", "a truncate of the root made sweeps", "a process was killed"):
        assert seen[kind], f"the schedules did not have this: {kind}"


def test_members_in_redis_match_their_documents() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _BOARDS, BOARDS)
    assert failed is None, f"schedule {failed}:\n{replay(failed, BOARDS)}"
    assert count == _BOARDS
    for kind in (
        "a script failed halfway",
        "a pipeline was cut off",
        "a write was refused: the sink had a newer version",
        "the sink lost acknowledged writes",
        "verify found a stray",
        "a process was killed",
    ):
        assert seen[kind], f"the schedules did not have this: {kind}"


def test_a_seed_always_gives_the_same_schedule() -> None:
    first, second = (run(decisions(77), lines=True) for _ in range(2))
    assert first == second
    assert first.lines


def test_a_failing_schedule_is_shortened() -> None:
    rule = WEAKER["no before-images"]
    _, _, failed = portion(0, BOUND, rule)
    assert failed is not None
    with rule.applied():
        whole = run(decisions(failed), lines=True)
    lines = replay(failed, rule).splitlines()
    assert len(lines) < len(whole.lines), "it is shorter"
    assert len(lines) < 25, "it is readable"
    assert lines[-2].startswith("→ order ")
    assert lines[-1].endswith(f"--replay {failed}")


def test_without_decisions_there_are_no_accidents() -> None:
    choices = Choices(b"\xff")
    assert (choices.of(4), choices.likely(1)) == (3, False)
    assert choices.used_up
    assert not run(b"").failure


def test_shrink_removes_decisions_that_do_not_matter() -> None:
    assert shrink(b"abcXdefYgh", lambda found: b"X" in found and b"Y" in found) == b"XY"
    assert shrink(b"abcdefgh", lambda found: found[5:6] == b"f") == b"\0\0\0\0\0f"
