"""Findings about a connector and its slot. Each problem has one fix."""

from __future__ import annotations

import pytest

from syncer.checks import Finding, Slot, Status, Task, check_running
from syncer.checks.running import APPLY, ASK_CONNECT, NoAnswer, cause_lines
from syncer.checks.source import RESET

TRACE = """org.apache.kafka.connect.errors.ConnectException: Unrecoverable exception from producer
\tat org.apache.kafka.connect.runtime.WorkerSourceTask.maybeThrow(WorkerSourceTask.java:300)
Caused by: org.apache.kafka.common.KafkaException: one between
\tat java.base/java.lang.Thread.run(Thread.java:840)
Caused by: org.apache.kafka.common.KafkaException: and another
\t... 2 more
Caused by: org.apache.kafka.common.KafkaException: and one more
Caused by: org.apache.kafka.common.errors.RecordTooLargeException: The message is 40000685 bytes
  when serialized which is larger than 16777216
\tat java.base/java.lang.Thread.run(Thread.java:840)
"""
HEALTHY = Slot("s", "pgoutput", "shop", True, "reserved", 0)
LOST = Slot("s", "pgoutput", "shop", False, "lost", None)
RUNNING = Status("c", "RUNNING", "", (Task(0, "RUNNING", ""),))


def failing(trace: str) -> Status:
    return Status("c", "RUNNING", "", (Task(0, "FAILED", cause_lines(trace)),))


def found(status: Status | NoAnswer | None, slot: Slot | NoAnswer | None) -> list[Finding]:
    return list(check_running("c", status, "s", slot))


def test_the_root_cause_is_reported_at_any_depth() -> None:
    cause = failing(TRACE).cause
    assert cause.startswith("task 0: org.apache.kafka.connect.errors.ConnectException: Unrecoverable")
    assert cause.endswith(
        "RecordTooLargeException: The message is 40000685 bytes when serialized which is larger than 16777216"
    )
    assert "\n" not in cause and "between" not in cause and "at java" not in cause
    assert "RecordTooLargeException" in failing(TRACE).failure
    assert failing("java.lang.NullPointerException").cause == "task 0: java.lang.NullPointerException"
    assert RUNNING.cause == ""


def test_a_running_connector_has_no_findings() -> None:
    assert found(RUNNING, HEALTHY) == found("unknown", "unknown") == found(RUNNING, "unknown") == []


@pytest.mark.parametrize(
    ("status", "slot", "fix"),
    [
        (None, HEALTHY, APPLY),
        (None, None, APPLY),
        (Status("c", "PAUSED", "", (Task(0, "PAUSED", ""),)), HEALTHY, APPLY),
        (Status("c", "STOPPED", "", ()), HEALTHY, APPLY),
        (Status("c", "STOPPED", "", ()), None, RESET),
        (Status("c", "UNASSIGNED", "", ()), HEALTHY, "syncer connectors status"),
        (failing("FATAL: password authentication failed"), HEALTHY, f"fix the cause, then: {APPLY}"),
        (failing("FATAL: password authentication failed"), LOST, RESET),
        (failing('ERROR: replication slot "s" does not exist'), "unknown", RESET),
        (failing("this is no longer available on the server"), HEALTHY, RESET),
        (RUNNING, None, RESET),
        (RUNNING, LOST, RESET),
        ("unknown", None, ASK_CONNECT + RESET),
    ],
)
def test_each_problem_has_one_fix(status: Status | NoAnswer | None, slot: Slot | NoAnswer | None, fix: str) -> None:
    assert {finding.fix for finding in found(status, slot)} == {fix}


def test_a_record_that_is_too_large_names_the_settings_to_raise() -> None:
    [one] = found(failing(TRACE), HEALTHY)
    for setting in (
        "producer.override.max.request.size",
        "producer.override.buffer.memory",
        "max.message.bytes",
    ):
        assert setting in one.fix
    assert one.fix.endswith(APPLY) and "RecordTooLargeException" in one.why


def test_an_idle_connector_or_slot_is_reported_by_its_state() -> None:
    assert found(Status("c", "PAUSED", "", (Task(0, "PAUSED", ""),)), HEALTHY)[0].what == "it is paused"
    assert found(Status("c", "RUNNING", "", ()), HEALTHY)[0].what == "it is without a task"
    [one] = found(RUNNING, Slot("s", "pgoutput", "shop", False, "reserved", 0))
    assert one.what == "no connector reads it" and one.fix.startswith(APPLY)
