"""Formats the result of a trace: for people as a timeline, and for programs as JSON values."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Iterator
from typing import Any

from syncer.cli import output
from syncer.document import document_id
from syncer.errors import split_hint
from syncer.operations.trace.changes import FoundChange, Reach
from syncer.operations.trace.report import News, Report, Stored, TracedChange, relation
from syncer.ports import DeadLetter

NOT_RECORDED = (
    "Not recorded: when past changes were rendered, how long they waited at the gate, and what the sinks answered.",
    "Totals are in GET /metrics: syncer_gate_wait_seconds, syncer_documents_total.",
)
_OPERATIONS = {"c": "INSERT", "u": "UPDATE", "d": "DELETE", "r": "READ", "t": "TRUNCATE"}
_PROGRESS = {
    "acknowledged": "acknowledged",
    "waiting": "not acknowledged yet",
    "earlier": "before the read model began",
    "ignored": "no column of the document",
}
_VALUES = 40
"""Longest text of changed columns in the timeline, in characters. `--json` has the row images."""


def utc(ms: int) -> str:
    """Returns a time with its date, in UTC."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ms / 1000))}.{ms % 1000:03}Z"


def clock_time(ms: int) -> str:
    """Returns a time without its date, in UTC."""
    return utc(ms)[11:-1]


def head(report: Report) -> Iterator[str]:
    """Yields lines about the document in PostgreSQL."""
    if rendered := report.rendered:
        what = "has no row" if not rendered.row else "has a row, excluded by `where`"
        if rendered.error:
            what = f"cannot render it: {' '.join(rendered.error.split())}"
        elif rendered.body is not None:
            what = "renders a document"
        snapshot = rendered.snapshot
        text = f"{snapshot.xmin}:{snapshot.xmax}:{','.join(map(str, sorted(snapshot.xip)))}"
        yield f"PostgreSQL {what}; snapshot {text}, clock {snapshot.clock}, taken {utc(rendered.at_ms)}"
        for path, keys in rendered.rows.items():
            shown = ", ".join(map(document_id, keys))
            if path and keys:
                yield f"linked rows of {path}: {shown}"
            elif shown not in ("", report.id):
                yield f"rows of the group: {shown}"
    if report.generation:
        reasons = f": {' '.join('; '.join(report.reasons).split())}" if report.reasons else ""
        yield f"read model: {report.state or 'no daemon is alive'}{reasons}"


def timeline(report: Report) -> list[tuple[str, ...]]:
    """Returns a row for each change and each dead letter, the oldest first."""
    days = {utc(change.found.at_ms)[:10] for change in report.changes}
    shown = clock_time if len(days) < 2 else utc
    rows = [(change.found.at_ms, _cells(change)) for change in report.changes]
    rows += [(letter.since_ms, _letter_cells(letter)) for letter in report.letters]
    return [(shown(at), *cells) for at, cells in sorted(rows, key=lambda row: row[0])]


TIMELINE = ("time (UTC)", "row", "change", "transaction", "through", "state")


def _cells(change: TracedChange) -> tuple[str, ...]:
    found = change.found
    what = " ".join(filter(None, (_OPERATIONS[found.change.op], _changed(found))))
    through = ", ".join(_through(reach, found) for reach in found.reaches)
    return (
        f"{found.change.table.name} {document_id(found.key)}",
        what,
        str(found.change.txid or ""),
        through,
        _state(change),
    )


def _letter_cells(letter: DeadLetter) -> tuple[str, ...]:
    return f"dead letter {letter.subject.handle}", split_hint(" ".join(letter.reason.split()))[0], "", "", "open"


def _changed(found: FoundChange) -> str:
    """Returns the columns of an update that have other values than before."""
    before, after = found.change.before, found.change.after
    if before is None or after is None:
        return ""
    text = ", ".join(f"{c} {_value(before.get(c))} → {_value(new)}" for c, new in after.items() if before.get(c) != new)
    return text if len(text) <= _VALUES else text[: _VALUES - 1] + "…"


def _value(value: Any) -> str:
    return "NULL" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _through(reach: Reach, found: FoundChange) -> str:
    """Returns the path of a table use, and how the change moved the row along it."""
    notes = [] if reach.touches else ["not used"]
    if found.change.before is not None and found.change.after is not None and len(reach.images) == 1:
        notes.append("left" if reach.images == ("before",) else "joined")
    if reach.earlier and reach.path:
        notes.append("earlier link")
    return (reach.path or "root") + (f" ({', '.join(notes)})" if notes else "")


def _state(change: TracedChange) -> str:
    if change.progress == "waiting" and change.visible is False:
        return "at the gate: no snapshot sees its transaction yet"
    return _PROGRESS[change.progress]


def version(store: Stored, report: Report) -> str:
    """Returns the version of a stored document, and its parts."""
    clock = "sum of clocks" if report.partials else "clock"
    return f"{store.version} (epoch {store.epoch}, {clock} {store.clock})" if store.version else "-"


def difference(store: Stored) -> str:
    """Returns a unified diff from the stored document to the rendered one. Empty unless they are known to differ."""
    differ = store.state in ("missing", "differing", "orphaned")
    return diff(store.body, store.wanted, store.sink, "PostgreSQL") if differ else ""


def diff(old: bytes | None, new: bytes | None, old_name: str, new_name: str) -> str:
    """Returns a unified diff of two JSON texts. It shows no other order of keys, and no other text of equal numbers."""
    before, after = (output.pretty(body, canonical=True).splitlines() if body else [] for body in (old, new))
    return "\n".join(difflib.unified_diff(before, after, old_name, new_name, lineterm=""))


def as_dict(report: Report) -> dict[str, Any]:
    """Returns the report as JSON values."""
    return {
        "model": report.model,
        "key": report.id,
        "epoch": report.epoch,
        "generation": report.generation,
        "in_sync": report.in_sync,
        "under_way": report.under_way,
        "postgres": _rendered(report),
        "since": utc(report.since_ms) if report.since_ms else None,
        "shortened": report.shortened,
        "changes": [change_dict(change) for change in report.changes],
        "omitted": report.omitted,
        "unreadable": report.unreadable,
        "dead_letters": [letter_dict(letter) for letter in report.letters],
        "sinks": [store_dict(store, report) for store in report.stores],
        "state": report.state,
        "reasons": list(report.reasons),
        "missing": {part: str(error) for part, error in report.missing.items()},
        "not_recorded": " ".join(NOT_RECORDED),
    }


def _rendered(report: Report) -> dict[str, Any] | None:
    if (rendered := report.rendered) is None:
        return None
    return {
        "row": rendered.row,
        "document": _json(rendered.body),
        "error": rendered.error,
        "snapshot": rendered.snapshot._asdict() | {"xip": sorted(rendered.snapshot.xip)},
        "clock": rendered.snapshot.clock,
        "history": str(rendered.identity),
        "time": utc(rendered.at_ms),
        "rows": {path: [document_id(key) for key in keys] for path, keys in rendered.rows.items()},
    }


def change_dict(change: TracedChange) -> dict[str, Any]:
    found = change.found
    return {
        "committed": utc(found.at_ms),
        "arrived": utc(found.arrived_ms),
        "table": str(found.change.table),
        "key": document_id(found.key),
        "operation": _OPERATIONS[found.change.op],
        "transaction": found.change.txid,
        "visible": change.visible,
        "through": [
            {
                "path": reach.path,
                "columns": reach.columns,
                "images": reach.images,
                "earlier": reach.earlier,
                "used": reach.touches,
            }
            for reach in found.reaches
        ],
        "state": change.progress,
        **found.position._asdict(),
        "before": found.change.before,
        "after": found.change.after,
    }


def letter_dict(letter: DeadLetter) -> dict[str, Any]:
    reason, hint = split_hint(letter.reason)
    return {
        "handle": letter.subject.handle,
        "since": utc(letter.since_ms),
        "version": letter.version,
        "reason": reason,
        "hint": hint,
    }


def store_dict(store: Stored, report: Report) -> dict[str, Any]:
    return {
        "sink": store.sink,
        "state": store.state,
        "version": store.version,
        "epoch": store.epoch,
        "clock": None if report.partials else store.clock,
        "sum_of_clocks": store.clock if report.partials else None,
        "meaning": relation(store, report),
        "document": _json(store.body),
        "diff": difference(store).splitlines(),
    }


def news_dict(one: News, report: Report) -> dict[str, Any]:
    """Returns one line of `--follow --json`."""
    subject = one.subject
    if isinstance(subject, TracedChange):
        return {"type": one.kind, **change_dict(subject)}
    if isinstance(subject, Stored):
        return {"type": one.kind, **store_dict(subject, report)}
    if isinstance(subject, DeadLetter):
        return {"type": one.kind, **letter_dict(subject)}
    return {"type": one.kind, "name": subject[0], "why": subject[1]}


def news_text(one: News, report: Report, now_ms: int) -> Iterator[str]:
    """Yields the lines of `--follow`. A change is shown at its commit time, everything else when it was seen."""
    subject, at = one.subject, clock_time(now_ms)
    if isinstance(subject, TracedChange):
        row, what, transaction, through, state = _cells(subject)
        if one.kind == "change":
            yield f"{clock_time(subject.found.at_ms)}  {row}  {what}  tx {transaction}  through {through}  {state}"
        else:
            yield f"{at}  {row}  acknowledged, seen {(now_ms - subject.found.at_ms) / 1000:.1f} s after its commit"
    elif isinstance(subject, Stored):
        yield f"{at}  {subject.sink}  {subject.state}  version {version(subject, report)}: {relation(subject, report)}"
        yield from diff(one.before, subject.body, "before", "now").splitlines()[2:]
    elif isinstance(subject, DeadLetter):
        reason = f": {' '.join(subject.reason.split())}" if one.kind == "dead letter" else " resolved"
        yield f"{at}  dead letter {subject.subject.handle}{reason}"
    else:
        name, why = subject
        yield f"{at}  {name} {' '.join(why.split()) or 'answers again'}"


def _json(body: bytes | None) -> Any:
    return json.loads(body) if body else None
