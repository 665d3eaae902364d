"""The timeline and the diff of `syncer trace`, as people read them."""

from __future__ import annotations

from dataclasses import replace

from syncer.cli import trace_output
from syncer.clock import Identity, Snapshot, version
from syncer.events import ChangeEvent, Image, Operation, Position, TableName
from syncer.operations.trace.changes import FoundChange, Reach, Side
from syncer.operations.trace.report import News, Progress, Rendered, Report, Stored, TracedChange
from syncer.ports import DeadLetter, Subject

RENDERED = Rendered(True, None, "", Snapshot(90, 100, frozenset({95})), Identity(1, 1), 0, {"": [("7",)]})


def change(
    op: Operation,
    before: Image | None,
    after: Image | None,
    *images: Side,
    progress: Progress = "acknowledged",
    visible: bool | None = True,
    earlier: bool = False,
    touches: bool = True,
    ms: int = 61_001,
) -> TracedChange:
    event = ChangeEvent(TableName("public", "items"), op, before, after, 812, ms)
    reach = Reach("items", ("order_id",), images, earlier, touches)
    return TracedChange(FoundChange(Position("t", 0, 0), ms + 5, event, ("a|b", "2"), [reach]), progress, visible)


def cells(one: TracedChange) -> tuple[str, ...]:
    [row] = trace_output.timeline(Report("m", "7", changes=[one]))
    return row


def test_a_change_is_one_line() -> None:
    moved = change("u", {"order_id": 1, "n": None}, {"order_id": 2, "n": "x"}, "before")
    assert cells(moved) == (
        "00:01:01.001",
        r"items a\|b|2",
        'UPDATE order_id 1 → 2, n NULL → "x"',
        "812",
        "items (left)",
        "acknowledged",
    )
    assert cells(change("u", {"id": 1}, {"id": 2}, "after"))[4] == "items (joined)"
    assert cells(change("u", {"n": "a"}, {"n": "b" * 99}, "before", "after"))[2].endswith("b…")


def test_an_update_without_its_old_row_and_an_insert_have_not_joined() -> None:
    assert cells(change("u", None, {"id": 1}, "after"))[2:5:2] == ("UPDATE", "items")
    assert cells(change("c", None, {"id": 1}, "after"))[2:5:2] == ("INSERT", "items")


def test_doubts_and_waits_are_named() -> None:
    unused = change("d", {"id": 1}, None, "before", earlier=True, touches=False, progress="ignored")
    assert cells(unused)[4:] == ("items (not used, earlier link)", "no column of the document")
    waiting = change("c", None, {"id": 1}, "after", progress="waiting", visible=False)
    assert cells(waiting)[5] == "at the gate: no snapshot sees its transaction yet"


def test_dead_letters_are_part_of_the_timeline_and_dates_are_shown_if_they_differ() -> None:
    letter = DeadLetter(Subject("document", "7"), "rejected:\n  why", 70_000, 0, "", Position("dlq", 0, 0), ())
    changes = [change("c", None, {"id": 1}, "after"), change("c", None, {"id": 1}, "after", ms=86_400_000)]
    rows = trace_output.timeline(Report("m", "7", changes=changes, letters=[letter]))
    assert [row[0][:10] for row in rows] == ["1970-01-01", "1970-01-01", "1970-01-02"]
    assert rows[1][1:3] == (f"dead letter {letter.subject.handle}", "rejected: why")


def test_a_diff_ignores_the_order_of_keys_and_the_text_of_numbers() -> None:
    assert trace_output.diff(b'{"a":1.50,"b":100}', b'{"b":100,"a":1.5}', "x", "y") == ""
    text = trace_output.diff(b'{"a":1,"b":2}', b'{"b":3,"a":1.0}', "x", "y")
    assert [line for line in text.splitlines() if line[0] in "+-"] == ["--- x", "+++ y", '-  "b": 2', '+  "b": 3']


def test_documents_that_cannot_be_compared_have_no_diff() -> None:
    for state in ("failing", "unknown", "equal", "expired"):
        assert trace_output.difference(Stored("redis:x", state, b'{"a":1}', None)) == ""
    assert '-  "a": 1' in trace_output.difference(Stored("redis:x", "orphaned", b'{"a":1}', None))


def test_the_head_says_why_there_is_no_document() -> None:
    lines = list(trace_output.head(Report("m", "7", generation=1, rendered=RENDERED, reasons=["Kafka\nis down"])))
    assert lines[0].startswith("PostgreSQL has a row, excluded by `where`; snapshot 90:100:95, clock 99, taken 1970")
    assert lines[1] == "read model: no daemon is alive: Kafka is down"


def test_a_new_version_of_the_document_is_shown_with_its_differences() -> None:
    store = Stored("redis:x", "equal", b'{"a":2}', b'{"a":2}', version(1, 99))
    report = Report("m", "7", epoch=1, rendered=RENDERED)
    first, *rest = trace_output.news_text(News("sink", store, b'{"a":1}'), report, 1000)
    assert first.startswith("00:00:01.000  redis:x  equal  version")
    assert rest[-3:] == ['-  "a": 1', '+  "a": 2', " }"]


def test_the_version_of_a_document_with_partials_is_a_sum_of_clocks() -> None:
    store = Stored("redis:x", "equal", b'{"a":2}', b'{"a":2}', version(1, 297))
    report = Report("m", "7", epoch=1, rendered=RENDERED)
    combined = replace(report, partials=True)
    assert trace_output.version(store, report).endswith("(epoch 1, clock 297)")
    assert trace_output.version(store, combined).endswith("(epoch 1, sum of clocks 297)")
    [line, *_] = trace_output.news_text(News("sink", store), combined, 1000)
    assert "sum of clocks 297" in line and "clock 297" not in line.replace("sum of clocks", "")
    found = [trace_output.store_dict(store, one) for one in (report, combined)]
    assert [(one["clock"], one["sum_of_clocks"]) for one in found] == [(297, None), (None, 297)]
    assert trace_output.version(Stored("redis:x", "absent"), combined) == "-"
