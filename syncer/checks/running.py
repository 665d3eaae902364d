"""Whether changes arrive: what keeps a connector or its slot from sending them, and the one thing to run.

The daemon, `check`, `status`, `connectors` and `resync` all tell what is said here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from syncer.checks.finding import Finding
from syncer.checks.source import RESET, Slot

APPLY = "syncer connectors apply"
ASK_CONNECT = "let Kafka Connect answer first (is it up? see connect.url), then: "
"""Begins the advice where the command needs Kafka Connect, and nobody knows whether it is there."""
NoAnswer = Literal["unknown"]
"""What a server does not answer."""
IDLE = ("PAUSED", "STOPPED")
"""States in which someone has put a connector."""

_LOST = re.compile(
    r"no longer available on the server|replication slot .* does not exist|requested WAL segment .* removed"
    r"|can no longer (get changes|be accessed)|slot .* has been invalidated",
)
_TOO_LARGE = (
    "raise producer.override.max.request.size and producer.override.buffer.memory in the connector's file,"
    f" and max.message.bytes of its topics; then: {APPLY}"
)


class Task(NamedTuple):
    id: int
    state: str
    """`RUNNING`, `FAILED`, `UNASSIGNED`, `PAUSED`, `RESTARTING`, `STOPPED`, `DESTROYED`."""
    trace: str
    """Of a failure: what was thrown and what caused it (`told_lines`)."""


@dataclass(frozen=True)
class Status:
    """Of a connector, as Kafka Connect tells it."""

    name: str
    state: str
    trace: str
    tasks: tuple[Task, ...]

    @property
    def running(self) -> bool:
        return self.state == "RUNNING" and bool(self.tasks) and all(t.state == "RUNNING" for t in self.tasks)

    @property
    def word(self) -> str:
        """The state of the whole, in lower case."""
        if self.failure:
            return "failed"
        if self.state == "RUNNING" and not self.tasks:
            return "without a task"
        return next((t.state for t in self.tasks if t.state != "RUNNING"), self.state).lower()

    @property
    def failure(self) -> str:
        """Why it failed, on several lines; empty if it did not."""
        if self.state == "FAILED":
            return self.trace or "the connector failed"
        return "\n".join(f"task {t.id}: {t.trace or 'failed'}" for t in self.tasks if t.state == "FAILED")

    @property
    def cause(self) -> str:
        """As `failure`, on one line: what was thrown, and the root of what caused it."""
        lines = self.failure.split("\n")
        at = _root(lines)
        root = " ".join(lines[at:]) if at else ""
        return f"{_short(lines[0])} {_short(root)}".strip()


def _root(lines: Sequence[str]) -> int:
    """Where the root cause begins; 0 if nothing but the first line tells one."""
    return max((at for at, line in enumerate(lines) if at and line.startswith("Caused by:")), default=0)


def _short(text: str) -> str:
    """What matters of a long message is at its ends: where, and why."""
    return text if len(text) <= 400 else f"{text[:150]} … {text[-250:]}"


def cause_lines(trace: str | None, most: int = 4) -> str:
    """Of a Java stack trace, without the stack: the first lines, and the root cause however deep it is."""
    lines = [line.strip() for line in (trace or "").splitlines()]
    told = [line for line in lines if line and not line.startswith(("at ", "... "))]
    if (at := _root(told)) >= most:
        return "\n".join(told[: most - 1] + told[at : at + most])
    return "\n".join(told[:most])


def remedy(failure: str) -> str:
    """What to do about it."""
    if _LOST.search(failure):
        return RESET
    return _TOO_LARGE if "RecordTooLargeException" in failure else f"mend the cause, then: {APPLY}"


def lost(slot: Slot | None) -> bool:
    """Whether nobody keeps what is committed."""
    return slot is None or slot.wal_status == "lost"


def check_running(
    connector: str, status: Status | NoAnswer | None, name: str, slot: Slot | NoAnswer | None
) -> Iterator[Finding]:
    """status: None if there is no such connector. name: of the slot. slot: None if it does not exist."""
    gone = slot != "unknown" and lost(slot)
    first = ASK_CONNECT if status == "unknown" else ""
    at, why, well = f"connector {connector}", "changes do not arrive", False
    if status is None:
        yield Finding("error", "connector", at, "it is not there", why, APPLY)
    elif status == "unknown" or status.running:
        well = True
    elif status.failure:
        fix = RESET if gone else remedy(status.failure)
        yield Finding("error", "connector", at, "it has failed", status.cause, fix)
    else:
        fix = RESET if gone else APPLY if status.state in IDLE else "syncer connectors status"
        yield Finding("error", "connector", at, f"it is {status.word}", why, fix)
    at = f"slot {name}"
    if gone:
        what = "the log that it needs is gone" if slot else "it does not exist"
        yield Finding("error", "slot-lost", at, what, why, APPLY if status is None else first + RESET)
    elif isinstance(slot, Slot) and not slot.active and well:
        why += "; PostgreSQL's log says why, if a reader comes and goes"
        fix = f"{first}{APPLY} (if the publication was dropped and created: {RESET.partition(' (')[0]})"
        yield Finding("error", "slot", at, "nobody reads it", why, fix)
