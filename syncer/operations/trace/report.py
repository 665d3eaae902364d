"""Defines the result of a trace as values, and says what follows from them. Pure. `look.py` makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from syncer.clock import Identity, Snapshot, split_version
from syncer.errors import SyncerError
from syncer.events import Key
from syncer.operations.trace.changes import FoundChange
from syncer.ports import DeadLetter
from syncer.quantities import counted

Progress = Literal["acknowledged", "waiting", "earlier", "ignored"]
"""`acknowledged`: its offset is committed. `waiting`: it is not yet. `earlier`: it was committed before the read model
began, so the backfill covers it. `ignored`: it changes no column that the document uses."""
State = Literal["equal", "absent", "missing", "differing", "orphaned", "failing", "expired", "unknown"]
"""`absent`: neither the sink nor PostgreSQL has the document. `unknown`: PostgreSQL or the sink did not answer. The
others as in `verify.Report`."""


@dataclass(frozen=True, slots=True)
class TracedChange:
    """A change that reached the root, and how far the pipeline has processed it."""

    found: FoundChange
    progress: Progress
    visible: bool | None = None
    """Whether the snapshot of `Rendered` sees its transaction. The gate holds a change back until a snapshot does. None
    if this is unknown."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The document as PostgreSQL has it now, in one snapshot."""

    row: bool
    """Whether the root has a row."""
    body: bytes | None
    """The document; None if there is none, or if it cannot be rendered."""
    error: str
    """Why it cannot be rendered; empty if it can."""
    snapshot: Snapshot
    identity: Identity
    at_ms: int
    rows: Mapping[str, Sequence[Key]]
    """Path of a table use → primary keys of the rows that are linked to the root (`TracedUse.rows`)."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The document in one sink."""

    sink: str
    state: State
    body: bytes | None = None
    """The stored document."""
    wanted: bytes | None = None
    """The rendered document, as the sink would store it."""
    version: int = 0
    """Of the document or of a remembered delete; 0 if the sink has none."""

    @property
    def in_sync(self) -> bool:
        return self.state in ("equal", "absent", "expired")

    @property
    def epoch(self) -> int:
        return split_version(self.version)[0]

    @property
    def clock(self) -> int:
        """The clock of the snapshot, or the sum of those of its partials: see `Report.partials`."""
        return split_version(self.version)[1]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is known about one document now."""

    model: str
    id: str
    epoch: int = 0
    generation: int = 0
    since_ms: int = 0
    """Changes that arrived in Kafka from this time on were read."""
    shortened: bool = False
    """Whether fewer changes were read than asked for, because there are too many."""
    changes: Sequence[TracedChange] = ()
    omitted: int = 0
    """Older changes of this document that are left out."""
    unreadable: int = 0
    """Records that are no change events, or that lack a column."""
    behind: int = 0
    """Records that arrived before `since_ms` and are not acknowledged. Some may concern the document."""
    rendered: Rendered | None = None
    same_history: bool = True
    """Whether clocks of the sinks can be compared with that of PostgreSQL."""
    partials: bool = False
    """Whether the read model has partials. The version of a document is then a sum of clocks, and not a clock."""
    stores: Sequence[Stored] = ()
    letters: Sequence[DeadLetter] = ()
    work: Sequence[str] = ()
    """Work items that will render the document, or may. One sentence each."""
    state: str = ""
    """Of the read model, as its daemons report it. Empty if no daemon is alive."""
    reasons: Sequence[str] = ()
    """Why the daemons wait or fail."""
    missing: Mapping[str, SyncerError] = field(default_factory=dict)
    """Part of the report that is missing → the error."""

    @property
    def in_sync(self) -> bool:
        """Whether every sink has the document that PostgreSQL renders. False if a part is missing."""
        return not self.missing and all(store.in_sync for store in self.stores)

    @property
    def known(self) -> bool:
        """Whether the document, its row or a trace of them was found anywhere."""
        rows = self.rendered is not None and self.rendered.row
        stored = any(store.body is not None or store.version for store in self.stores)
        return bool(rows or stored or self.changes or self.letters or self.work)

    @property
    def under_way(self) -> list[str]:
        """Returns the work that may still change the sinks. One sentence each."""
        waiting = [change for change in self.changes if change.progress == "waiting"]
        found = []
        if waiting:
            found.append(f"not acknowledged yet: {counted(len(waiting), 'change')} of this document")
        if self.behind:
            older = counted(self.behind, "older record")
            found.append(f"not acknowledged yet: {older} of its tables; a longer --since reads them")
        return [*found, *self.work]

    @property
    def differs(self) -> bool:
        """Whether a sink is known to differ although nothing is under way."""
        wrong = any(not store.in_sync and store.state != "unknown" for store in self.stores)
        return wrong and not self.under_way


def relation(store: Stored, report: Report) -> str:
    """Returns what the version of a stored document proves.

    A version counts completed transactions and does not name them. So it proves something only if its clock equals
    that of the snapshot, which was taken later. The version of a document with partials is a sum of such clocks, and
    proves nothing. The proof that a change was written is its committed offset.
    """
    rendered = report.rendered
    if not store.version:
        return "the sink has no version of it"
    if store.epoch != report.epoch:
        return f"of epoch {store.epoch}, the current epoch is {report.epoch}"
    if report.partials:
        return "the sum of the clocks of its partials, so it cannot be compared with PostgreSQL's clock"
    if rendered is None:
        return ""
    if not report.same_history:
        return "PostgreSQL has another history now, so the clocks cannot be compared"
    distance = rendered.snapshot.clock - store.clock
    if distance == 0 and store.state == "differing":
        return "rendered from the rows that PostgreSQL shows now, and changed since: edited by hand?"
    if distance == 0:
        return "rendered from the rows that PostgreSQL shows now"
    if distance < 0:
        return "PostgreSQL has not reached this clock: the document was edited by hand, or the server was restored"
    return f"PostgreSQL's clock is {rendered.snapshot.clock}: {counted(distance, 'transaction')} completed since"


class News(NamedTuple):
    """One difference between two reports."""

    kind: Literal["change", "acknowledged", "sink", "dead letter", "resolved", "missing", "daemon"]
    subject: TracedChange | Stored | DeadLetter | tuple[str, str]
    """For `missing`: the part and its error, which is empty once the part is back. For `daemon`: state and reasons."""
    before: bytes | None = None
    """The stored document before, for `sink`."""


def news(before: Report, now: Report) -> Iterator[News]:
    """Yields the differences between two reports about one document, in the order of the pipeline."""
    known = {change.found.position: change for change in before.changes}
    for change in now.changes:
        earlier = known.get(change.found.position)
        if earlier is None:
            yield News("change", change)
        elif earlier.progress == "waiting" and change.progress == "acknowledged":
            yield News("acknowledged", change)
    stores = {store.sink: store for store in before.stores}
    for store in now.stores:
        last = stores.get(store.sink, Stored(store.sink, "unknown"))
        if store.state != "unknown" and (store.version, store.body) != (last.version, last.body):
            yield News("sink", store, last.body)
    if "Kafka" not in now.missing:
        letters = {letter.position for letter in before.letters}, {letter.position for letter in now.letters}
        yield from (News("dead letter", letter) for letter in now.letters if letter.position not in letters[0])
        yield from (News("resolved", letter) for letter in before.letters if letter.position not in letters[1])
    for part in sorted({*before.missing, *now.missing}):
        if (part in before.missing) != (part in now.missing):
            yield News("missing", (part, str(now.missing.get(part, ""))))
    if (before.state, before.reasons) != (now.state, now.reasons):
        yield News("daemon", (now.state, "; ".join(now.reasons)))
