"""Checks that a connector and its slot send changes now, and names the one command to run if they do not.

The daemon and the commands `check`, `status`, `connectors` and `resync` all report these findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from syncer.checks.finding import Finding
from syncer.checks.source import RESET, Slot

APPLY = "syncer connectors apply"
ASK_CONNECT = "make Kafka Connect reachable (check that it is up and connect.url is correct), then: "
"""Precedes a command that needs Kafka Connect, where it is not known whether Kafka Connect runs."""
NoAnswer = Literal["unknown"]
"""Stands for a state that could not be read, because the server did not answer."""
IDLE = ("PAUSED", "STOPPED")
"""States into which an operator puts a connector."""

_LOST = re.compile(
    r"no longer available on the server|replication slot .* does not exist|requested WAL segment .* removed"
    r"|can no longer (get changes|be accessed)|slot .* has been invalidated",
)
_TOO_LARGE = (
    "raise producer.override.max.request.size and producer.override.buffer.memory in the connector's file,"
    f" and max.message.bytes of its topics; then: {APPLY}"
)


class Task(NamedTuple):
    """A task of a connector, as Kafka Connect reports it."""

    id: int
    state: str
    """`RUNNING`, `FAILED`, `UNASSIGNED`, `PAUSED`, `RESTARTING`, `STOPPED`, `DESTROYED`."""
    trace: str
    """The exception and its causes if the task failed, as `cause_lines` shortens them."""


@dataclass(frozen=True)
class Status:
    """The state of a connector, as Kafka Connect reports it."""

    name: str
    state: str
    trace: str
    tasks: tuple[Task, ...]

    @property
    def running(self) -> bool:
        """Whether the connector and all of its tasks run; false for a connector without tasks."""
        return self.state == "RUNNING" and bool(self.tasks) and all(t.state == "RUNNING" for t in self.tasks)

    @property
    def word(self) -> str:
        """The state of the connector and its tasks in one phrase, in lower case."""
        if self.failure:
            return "failed"
        if self.state == "RUNNING" and not self.tasks:
            return "without a task"
        return next((t.state for t in self.tasks if t.state != "RUNNING"), self.state).lower()

    @property
    def failure(self) -> str:
        """Why the connector or its tasks failed, on several lines; empty if they did not."""
        if self.state == "FAILED":
            return self.trace or "the connector failed"
        return "\n".join(f"task {t.id}: {t.trace or 'failed'}" for t in self.tasks if t.state == "FAILED")

    @property
    def cause(self) -> str:
        """`failure` on one line: the exception and its root cause."""
        lines = self.failure.split("\n")
        at = _root(lines)
        root = " ".join(lines[at:]) if at else ""
        return f"{_short(lines[0])} {_short(root)}".strip()


def _root(lines: Sequence[str]) -> int:
    """Returns the index of the line where the root cause begins; 0 if only the first line names a cause."""
    return max((at for at, line in enumerate(lines) if at and line.startswith("Caused by:")), default=0)


def _short(text: str) -> str:
    """Cuts the middle out of a long message. Its start says where, its end says why."""
    return text if len(text) <= 400 else f"{text[:150]} … {text[-250:]}"


def cause_lines(trace: str | None, max_lines: int = 4) -> str:
    """Removes the stack frames from a Java stack trace. Returns the first lines and the root cause, however deep.

    max_lines: number of lines to keep.
    """
    lines = [line.strip() for line in (trace or "").splitlines()]
    messages = [line for line in lines if line and not line.startswith(("at ", "... "))]
    if (at := _root(messages)) >= max_lines:
        return "\n".join(messages[: max_lines - 1] + messages[at : at + max_lines])
    return "\n".join(messages[:max_lines])


def fix_for(failure: str) -> str:
    """Returns the fix for a failure of the connector."""
    if _LOST.search(failure):
        return RESET
    return _TOO_LARGE if "RecordTooLargeException" in failure else f"fix the cause, then: {APPLY}"


def lost(slot: Slot | None) -> bool:
    """Returns whether no slot retains the WAL of new commits."""
    return slot is None or slot.wal_status == "lost"


def check_running(
    connector: str, status: Status | NoAnswer | None, name: str, slot: Slot | NoAnswer | None
) -> Iterator[Finding]:
    """Finds a connector or a slot that does not deliver changes.

    status: None if the connector does not exist.
    name: of the slot.
    slot: None if the slot does not exist.
    """
    slot_lost = slot != "unknown" and lost(slot)
    first = ASK_CONNECT if status == "unknown" else ""
    at, why, healthy = f"connector {connector}", "changes do not arrive", False
    if status is None:
        yield Finding("error", "connector", at, "it does not exist", why, APPLY)
    elif status == "unknown" or status.running:
        healthy = True
    elif status.failure:
        fix = RESET if slot_lost else fix_for(status.failure)
        yield Finding("error", "connector", at, "it has failed", status.cause, fix)
    else:
        fix = RESET if slot_lost else APPLY if status.state in IDLE else "syncer connectors status"
        yield Finding("error", "connector", at, f"it is {status.word}", why, fix)
    at = f"slot {name}"
    if slot_lost:
        what = "PostgreSQL has removed WAL that the slot needs" if slot else "it does not exist"
        yield Finding("error", "slot-lost", at, what, why, APPLY if status is None else first + RESET)
    elif isinstance(slot, Slot) and not slot.active and healthy:
        why += "; if the connector connects and disconnects repeatedly, PostgreSQL's log says why"
        fix = f"{first}{APPLY} (if the publication was dropped and created: {RESET.partition(' (')[0]})"
        yield Finding("error", "slot", at, "no connector reads it", why, fix)
