"""Exports the documents of a read model to a Delta table. See `syncer/export/`."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING

from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry
from syncer.export.appender import Table
from syncer.export.columns import Column, columns
from syncer.export.exporter import Batching, Exporter, Progress, check_topic
from syncer.export.location import Location, check_writable, locate
from syncer.pacing import BackOff, Stopped, Waiter
from syncer.ports import DocumentTopic
from syncer.registry import loader

if TYPE_CHECKING:
    from syncer.export.delta import DeltaLog

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds


class Export:
    """One export, checked as far as that is possible without a server. Raises Fatal for what cannot work.

    to: a path or a URL. new_topic: whether a table of an earlier topic with this name is continued.
    """

    def __init__(self, config: Config, model: Model, to: str, *, new_topic: bool = False) -> None:
        self._config, self._model, self._new_topic = config, model, new_topic
        self._log = _delta_log()
        self.location: Location = locate(to, os.environ)
        self._topic = _topic(config, model)
        if self.location.folder is not None:
            check_writable(self.location.folder)
        self._columns: list[Column] = []

    def prepare(self) -> None:
        """Reads the types of the fields from PostgreSQL, and checks the table. Creates nothing.

        Raises Fatal for a field that cannot be a column, or a table that does not fit. Raises Retry if PostgreSQL,
        Kafka or the object store is unreachable.
        """
        self._columns = columns(loader.load_model(self._config, self._model).compiled.fields, self._model.name)
        state = self._topic.state()
        check_topic(self._topic.name, state, {})
        table = self._table(state.id)
        if self.location.folder is None:
            table.probe()
        if table.find():
            stored = table.next_offsets(state.begins)
            check_topic(self._topic.name, self._topic.state(), stored)

    def run(
        self,
        batching: Batching,
        stop: Event,
        report: Callable[[Progress], None],
        failed: Callable[[Retry], None],
        *,
        until_caught_up: bool,
        skip_gaps: bool,
    ) -> Progress:
        """Exports until it is stopped, or until the table has all records that the topic had at the start.

        failed: called with a failure that is retried. With until_caught_up, a failure is raised instead.
        """
        wait, back_off = Waiter(stop), BackOff(_FIRST_PAUSE, _LONGEST_PAUSE)
        exporter = Exporter(self._topic, self._open, batching, stop=stop, report=report, skip_gaps=skip_gaps)
        while True:
            rows = exporter.progress.rows
            try:
                return exporter.run(until_caught_up=until_caught_up)
            except Retry as error:
                if until_caught_up:
                    raise
                failed(error)
            if exporter.progress.rows > rows:
                back_off.reset()
            try:
                wait(back_off.pause())
            except Stopped:
                return exporter.progress

    def _table(self, topic_id: str) -> DeltaLog:
        return self._log(
            self.location, self._columns, model=self._model.name, topic_id=topic_id, new_topic=self._new_topic
        )

    def _open(self, topic_id: str) -> Table:
        table = self._table(topic_id)
        table.open()
        return table


def _delta_log() -> type[DeltaLog]:
    """Returns the class that needs the extra packages. Raises Fatal if they are not installed."""
    try:
        from syncer.export.delta import DeltaLog
    except ImportError as error:
        raise Fatal(
            "the export needs packages that are not installed",
            why=str(error),
            hint="pip install 'readmodel-syncer[delta]'",
        ) from error
    return DeltaLog


def _topic(config: Config, model: Model) -> DocumentTopic:
    found = loader.document_topic(config, model)
    if found is None:
        raise Fatal(
            f"read model {model.name} has no Kafka sink, so there is no topic to export",
            where=model.at(("sink",)),
            hint=f"add kafka: {{topic: {model.name}-documents, cleanup_policy: delete}} under sink:, "
            f"then: syncer resync {model.name}",
        )
    return found
