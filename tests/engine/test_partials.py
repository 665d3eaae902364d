"""For any read model with partials and any history, every document equals plain SQL in the end.

The read models have all kinds of partials: buckets of integers, dates and timestamps, each aggregate that can be
combined, with filters over joined rows, and lists of the first rows. The sink also forgets deleted documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from syncer import sinks
from syncer.declaration.compile import Compiled
from syncer.ports import Sink
from tests.engine.divided_groups import divided_groups
from tests.engine.partial_events import FORGET, REFUSE, earlier_rows, episodes
from tests.engine.partial_play import PartialPlay
from tests.engine.partials import PartialCase, partial_cases
from tests.engine.play import Play
from tests.engine.statements import Step
from tests.engine.test_engine import DISTURBANCES, TAKE, History, run
from tests.engine.world import DOCUMENTS
from tests.harness.postgres_servers import reads_database


class PartialHistory(History):
    """A history of a read model with partials."""

    disturbances: ClassVar[Mapping[str, Callable[[Any], None]]] = DISTURBANCES | {
        FORGET: PartialPlay.forget,
        "documents will fail after their partials": lambda play: play.sink.fail(f"{DOCUMENTS}unreachable"),
        "documents will be written without an answer": lambda play: play.sink.fail(f"{DOCUMENTS}answer lost"),
        REFUSE: lambda play: play.sink.fail(f"{DOCUMENTS}refused"),
        "half of the documents will be written": lambda play: play.sink.fail(f"{DOCUMENTS}half"),
    }

    @staticmethod
    def cases(data: Any) -> tuple[Any, type[Play]]:
        return data.draw(partial_cases(), "case"), PartialPlay

    @staticmethod
    def before(case: PartialCase, data: Any) -> Sequence[Step]:
        found: Sequence[Step] = data.draw(earlier_rows(case), "before")
        return found

    @staticmethod
    def events(case: PartialCase, any_events: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[list[Any]]:
        return any_events | episodes(case, st.none() | TAKE)


class DividedHistory(PartialHistory):
    """A history of a grouped root whose groups are divided into buckets."""

    @staticmethod
    def cases(data: Any) -> tuple[Any, type[Play]]:
        return data.draw(divided_groups(), "case"), PartialPlay

    before = staticmethod(History.before)
    events = staticmethod(History.events)


@pytest.mark.timeout(7200)  # the long profile, and to shrink an example takes time
def test_every_combined_document_equals_sql(dsn: str) -> None:
    PartialHistory.dsn = dsn
    run(PartialHistory, settings().max_examples // 14)


@pytest.mark.timeout(7200)
def test_every_combined_document_of_a_group_equals_sql(dsn: str) -> None:
    DividedHistory.dsn = dsn
    run(DividedHistory, settings().max_examples // 14)


@pytest.mark.timeout(7200)
def test_every_combined_row_of_a_table_of_postgresql_equals_sql(dsn: str) -> None:
    """The sink writes to another database of the same server."""
    with reads_database(dsn) as reads, psycopg.connect(reads, autocommit=True) as session:

        class TableHistory(PartialHistory):
            @staticmethod
            def sink_maker() -> Callable[[Compiled], Sink]:
                block, link = {"table": "read.documents"}, {"dsn": reads}
                return lambda model: sinks.build("postgres", block, model=model, connection=link)

            def teardown(self) -> None:
                super().teardown()
                tables = "read.syncer_generations, read.documents_000001, read.documents_000001_partials"
                session.execute(f"DROP TABLE IF EXISTS {tables} CASCADE".encode())

        TableHistory.dsn = dsn
        run(TableHistory, settings().max_examples // 50)
