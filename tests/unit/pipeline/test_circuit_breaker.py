"""The circuit breaker: when it opens and closes, and how one document alone probes the sink."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal
from syncer.pipeline.circuit_breaker import CircuitBreaker, SavedBreakers

PARSING = "document_parsing_exception"


def batch(ids: Iterable[object], deletes: Iterable[object] = ()) -> Batch:
    return Batch(7, {str(id): b"{}" for id in ids}, [str(id) for id in deletes])


def refused(ids: Iterable[object], kind: str = PARSING, again: Iterable[object] = ()) -> Outcome:
    refusals = [Rejection(str(id), f"{kind}: no", kind) for id in ids]
    return Outcome(rejected=refusals, retry=[str(id) for id in again])


def breaker(limit: int = 100, **more: Any) -> CircuitBreaker:
    return CircuitBreaker("orders", limit, **more)


def test_a_sink_that_refuses_a_whole_table_opens_the_breaker_with_the_first_batch() -> None:
    with pytest.raises(Fatal) as found:
        breaker().judge("elasticsearch:orders", batch(range(2000)), refused(range(2000)))
    error = found.value
    assert error.what == "elasticsearch:orders refused 100 documents in a row"
    assert (error.where, error.why) == ("orders", f"document 99: {PARSING}: no")
    assert "syncer resync orders" in error.hint and "dead_letters.max_consecutive" in error.hint


def test_a_row_continues_across_batches() -> None:
    one = breaker()
    for start in range(0, 99, 11):
        one.judge("es", batch(range(start, start + 11)), refused(range(start, start + 11)))
    with pytest.raises(Fatal, match="100 documents in a row"):
        one.judge("es", batch([99]), refused([99]))


def test_fewer_documents_than_the_limit_do_not_open_the_breaker() -> None:
    breaker().judge("es", batch(range(99)), refused(range(99)))


@pytest.mark.parametrize(
    "bad",
    [
        range(0, 2000, 2),  # every other one
        range(900),  # in a row
        [1999],
    ],
)
def test_a_minority_never_opens_the_breaker(bad: Iterable[int]) -> None:
    one = breaker()
    for _ in range(20):
        one.judge("es", batch(range(2000)), refused(bad))
    assert one.open == []


def test_rare_good_documents_do_not_hide_a_wrong_mapping() -> None:
    """For example, the field that does not fit is null in one of 150 rows."""
    with pytest.raises(Fatal):
        breaker().judge("es", batch(range(2000)), refused(n for n in range(2000) if n % 150))


def test_an_accepted_document_ends_the_row() -> None:
    one = breaker()
    for start in range(0, 1000, 60):
        one.judge("es", batch(range(start, start + 60)), refused(range(start, start + 60)))
        one.judge("es", batch(["good"]), Outcome(stale=1))
    assert one.open == []


def test_a_document_that_is_rendered_again_counts_once() -> None:
    """Another sink is busy, or the row changes often."""
    one = breaker()
    for _ in range(1000):
        one.judge("es", batch([1, 2]), refused([1], again=[2]))
    assert one.open == []


def test_a_document_that_is_combined_from_many_partials_counts_once() -> None:
    row = breaker()
    for document in range(100):
        partials = [f"{document}|{bucket}" for bucket in range(150)]
        answer = Outcome(rejected=[Rejection(id, f"{PARSING}: no", PARSING, str(document)) for id in partials])
        if document == 99:
            with pytest.raises(Fatal, match="100 documents in a row"):
                row.judge("es", batch(partials), answer)
        else:
            row.judge("es", batch(partials), answer)


def test_deletes_and_retries_neither_lengthen_nor_end_a_row() -> None:
    one = breaker(10)
    one.judge("es", batch(range(9)), refused(range(9)))
    one.judge("es", batch([], deletes=range(50, 70)), Outcome(deleted=20))
    one.judge("es", batch([80, 81]), Outcome(retry=["80", "81"]))
    with pytest.raises(Fatal):
        one.judge("es", batch([9]), refused([9]))


def test_an_error_of_another_type_begins_a_new_row() -> None:
    one = breaker(10)
    for n in range(50):
        one.judge("es", batch([n]), refused([n], kind=f"type {n // 5}"))
    assert one.open == []


def test_each_sink_has_its_own_row() -> None:
    one = breaker(10)
    for n in range(9):
        one.judge("es", batch([n]), refused([n]))
        one.judge("redis", batch([n]), Outcome(written=1))
    with pytest.raises(Fatal, match="es refused 10 documents"):
        one.judge("es", batch([9]), refused([9]))
    assert one.open == ["es"]


def test_while_the_breaker_is_open_every_refusal_is_fatal() -> None:
    one = breaker(3)
    with pytest.raises(Fatal):
        one.judge("es", batch(range(3)), refused(range(3)))
    for kind in (PARSING, "another"):
        with pytest.raises(Fatal, match="es still refuses documents"):
            one.judge("es", batch([7]), refused([7], kind))
    one.judge("redis", batch([7]), refused([7]))


def test_each_retry_probes_with_another_document() -> None:
    one, whole = breaker(3), batch(range(5), deletes=[9])
    assert one.probe(whole) is None
    asked = set()
    for _ in range(5):
        with pytest.raises(Fatal):
            one.judge("es", batch(range(3)), refused(range(3)))
        asked.add(one.probe(whole))
    assert asked == {"0", "1", "2", "3", "4"}
    assert one.probe(batch([1])) is None and one.probe(batch([], deletes=[1])) is None
    one.judge("es", batch([1]), Outcome(written=1))
    assert one.probe(whole) is None
    one.judge("es", batch(range(2)), refused(range(2)))


def test_the_next_process_knows_a_stored_open_breaker() -> None:
    noted: list[SavedBreakers] = []
    one = breaker(3, note=noted.append)
    with pytest.raises(Fatal):
        one.judge("es", batch(range(3)), refused(range(3)))
    assert noted[-1] == {"es": {"limit": 3, "trips": 1}}
    after = breaker(3, noted=noted[-1], note=noted.append)
    assert after.open == ["es"] and after.probe(batch([1, 2])) == "2"
    after.judge("es", batch([2]), Outcome(written=1))
    assert noted[-1] == {} and after.open == []


def test_a_process_takes_over_breakers_that_another_process_stored() -> None:
    one = breaker(3)
    one.learn({"es": {"limit": 3, "trips": 4}})
    assert one.open == ["es"]
    with pytest.raises(Fatal, match="still"):
        one.judge("es", batch([1]), refused([1]))
    one.learn({})
    assert one.open == []
    one.learn({"es": {"limit": 3, "trips": 1}})
    with pytest.raises(Fatal, match="still"):
        one.judge("es", batch([2]), refused([2]))


def test_a_replay_ignores_refusals_and_closes_the_breaker_with_an_accepted_document() -> None:
    noted: list[SavedBreakers] = []
    one = breaker(3, noted={"es": {"limit": 3, "trips": 1}}, note=noted.append)
    one.tolerate()
    assert one.probe(batch(range(9))) is None
    one.judge("es", batch(range(9)), refused(range(9)))
    assert one.open == ["es"]
    one.judge("es", batch(range(9)), refused(range(8)))
    assert one.open == [] and noted == [{}]


@pytest.mark.parametrize("limit", [0, 4])
def test_a_higher_limit_closes_the_breaker(limit: int) -> None:
    after = breaker(limit, noted={"es": {"limit": 3, "trips": 1}})
    assert after.open == []
    after.judge("es", batch(range(3)), refused(range(3)))


def test_without_a_limit_the_breaker_never_opens() -> None:
    one = breaker(0)
    one.judge("es", batch(range(5000)), refused(range(5000)))


def test_a_batch_splits_into_one_document_and_the_rest() -> None:
    alone, rest = batch(range(3), deletes=[7]).split("1")
    assert alone == batch([1]) and rest == batch([0, 2], deletes=[7])
