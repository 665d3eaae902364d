"""The conclusions of a trace: in sync or not, the meaning of a version, and the news since the last report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncer.clock import Beginning, Identity, Snapshot, version
from syncer.errors import Retry
from syncer.events import ChangeEvent, Position, TableName
from syncer.operations.trace.changes import FoundChange, Reach
from syncer.operations.trace.pipeline import progress_of
from syncer.operations.trace.report import Progress, Rendered, Report, State, Stored, TracedChange, news, relation
from syncer.ports import DeadLetter, Subject

NOW = Snapshot(100, 100, frozenset())
RENDERED = Rendered(True, b'{"a":1}', "", NOW, Identity(1, 1), 0, {"": [("7",)]})
EQUAL = Stored("redis:x", "equal", b'{"a":1}', b'{"a":1}', version(2, 100))
REPORT = Report("m", "7", epoch=2, generation=2, rendered=RENDERED, stores=[EQUAL])
DIFFERENT = replace(EQUAL, state="differing", body=b"{}", version=version(2, 90))
LETTER = DeadLetter(Subject("document", "7"), "bad", 1, 0, "", Position("dlq", 0, 4), (b"k",))


def change(offset: int, progress: Progress = "waiting", *, touches: bool = True, txid: int | None = 50) -> TracedChange:
    event = ChangeEvent(TableName("public", "t"), "u", None, {"id": 7}, txid, 1000)
    reach = Reach("", ("id",), ("after",), False, touches)
    return TracedChange(FoundChange(Position("t", 0, offset), 1001, event, ("7",), [reach]), progress)


def test_a_difference_is_reported_only_if_nothing_is_under_way() -> None:
    assert REPORT.in_sync and not REPORT.differs
    different = replace(REPORT, stores=[EQUAL, DIFFERENT])
    assert different.differs and not different.in_sync
    for under_way in (
        replace(different, changes=[change(1)]),
        replace(different, behind=3),
        replace(different, work=["a work item waits"]),
    ):
        assert not under_way.differs and not under_way.in_sync and len(under_way.under_way) == 1
    for done in ("acknowledged", "earlier", "ignored"):
        assert replace(different, changes=[change(1, done)]).differs
    assert replace(different, letters=[LETTER]).differs


def test_a_report_without_a_server_is_neither_in_sync_nor_different() -> None:
    report = replace(REPORT, stores=[replace(EQUAL, state="unknown")], missing={"Redis": Retry("no answer")})
    assert not report.in_sync and not report.differs


@pytest.mark.parametrize(
    ("state", "in_sync"),
    [("equal", True), ("absent", True), ("expired", True), ("missing", False), ("orphaned", False), ("failing", False)],
)
def test_absent_and_expired_documents_are_in_sync(state: State, in_sync: bool) -> None:
    assert replace(REPORT, stores=[replace(EQUAL, state=state)]).in_sync == in_sync


def test_a_key_is_known_if_any_place_has_it() -> None:
    nothing = Report("m", "7", rendered=replace(RENDERED, row=False), stores=[Stored("redis:x", "absent")])
    assert not nothing.known
    assert replace(nothing, stores=[Stored("redis:x", "absent", version=version(1, 5))]).known  # a deleted document
    assert replace(nothing, letters=[LETTER]).known and replace(nothing, changes=[change(1)]).known
    assert replace(nothing, rendered=RENDERED).known


@pytest.mark.parametrize(
    ("store", "report", "text"),
    [
        (EQUAL, REPORT, "rendered from the rows that PostgreSQL shows now"),
        (replace(DIFFERENT, version=EQUAL.version), REPORT, "changed since: edited by hand?"),
        (DIFFERENT, REPORT, "PostgreSQL's clock is 100: 10 transactions completed since"),
        (replace(EQUAL, version=version(2, 101)), REPORT, "PostgreSQL has not reached this clock"),
        (replace(EQUAL, version=version(1, 100)), REPORT, "of epoch 1, the current epoch is 2"),
        (replace(EQUAL, version=0), REPORT, "the sink has no version of it"),
        (EQUAL, replace(REPORT, same_history=False), "the clocks cannot be compared"),
        (EQUAL, replace(REPORT, rendered=None), ""),
    ],
)
def test_a_version_proves_something_only_in_the_same_epoch_and_history(
    store: Stored, report: Report, text: str
) -> None:
    found = relation(store, report)
    assert text in found and bool(text) == bool(found)


@pytest.mark.parametrize("clock", [90, 100, 101, 100_000])
@pytest.mark.parametrize("store", [EQUAL, DIFFERENT])
def test_the_version_of_a_document_with_partials_is_compared_with_no_clock(store: Stored, clock: int) -> None:
    """It is a sum of clocks. Even an untouched document has a version that PostgreSQL's clock has not reached."""
    report = replace(REPORT, partials=True)
    found = relation(replace(store, version=version(2, clock)), report)
    assert found == "the sum of the clocks of its partials, so it cannot be compared with PostgreSQL's clock"
    assert "of epoch 1" in relation(replace(store, version=version(1, clock)), report), "a sum has an epoch"
    assert relation(replace(store, version=0), report) == "the sink has no version of it"


@pytest.mark.parametrize(
    ("offset", "touches", "txid", "progress"),
    [
        (3, True, 150, "earlier"),  # before the first offset of the read model
        (5, True, 150, "acknowledged"),
        (8, True, 150, "waiting"),
        (8, True, 50, "earlier"),  # the snapshot at the beginning saw its transaction
        (8, True, None, "waiting"),  # a row of a connector's snapshot
        (8, False, 150, "ignored"),
    ],
)
def test_committed_offsets_show_which_changes_are_acknowledged(
    offset: int, touches: bool, txid: int | None, progress: Progress
) -> None:
    found = change(offset, touches=touches, txid=txid).found
    assert progress_of(found, {("t", 0): 6}, {("t", 0): 4}, Beginning(NOW, 2000)) == progress
    assert progress_of(found, {}, {}, None) == ("waiting" if touches else "ignored")


def test_news_are_the_differences_in_the_order_of_the_pipeline() -> None:
    before = replace(REPORT, changes=[change(1)], stores=[DIFFERENT], state="running", missing={"es": Retry("down")})
    now = replace(
        REPORT,
        changes=[change(1, "acknowledged"), change(2)],
        letters=[LETTER],
        state="waiting",
        reasons=["why"],
        missing={"redis": Retry("gone")},
    )
    found = list(news(before, now))
    assert [one.kind for one in found] == [
        "acknowledged",
        "change",
        "sink",
        "dead letter",
        "missing",
        "missing",
        "daemon",
    ]
    assert found[2].before == b"{}"
    assert [one.subject for one in found[4:]] == [("es", ""), ("redis", "gone"), ("waiting", "why")]
    assert [one.kind for one in news(replace(now, letters=[LETTER]), replace(now, letters=[]))] == ["resolved"]
    assert list(news(now, now)) == []


def test_another_verdict_about_the_same_version_is_no_news() -> None:
    """A commit makes every stored document differ for a moment. The change itself is the news."""
    assert list(news(REPORT, replace(REPORT, stores=[replace(EQUAL, state="differing")]))) == []


def test_a_sink_that_does_not_answer_resolves_nothing() -> None:
    unknown = replace(REPORT, stores=[Stored("redis:x", "unknown")], missing={"Kafka": Retry("down")})
    assert [one.kind for one in news(replace(REPORT, letters=[LETTER]), unknown)] == ["missing"]
