"""Reads one document from every sink of a read model, and compares it with the rendered one, for `syncer trace`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from syncer.config.schema import Config
from syncer.errors import Retry, SyncerError
from syncer.monitors.delivery import ANSWER_TIMEOUT, answer
from syncer.operations.comparison import FAILS, difference
from syncer.operations.trace.report import Rendered, State, Stored
from syncer.pacing import SystemTime
from syncer.ports import Sink
from syncer.registry import loader
from syncer.registry.loader import LoadedModel
from syncer.registry.records import Registration

T = TypeVar("T")
Content = tuple[bytes | None, int]
"""The stored document and its version; None and 0 where the sink has none."""


class TracedSinks:
    """Asks all sinks concurrently. A sink that does not answer within two seconds delays no other one."""

    def __init__(self, config: Config, loaded: LoadedModel) -> None:
        self._config, self._loaded = config, loaded
        self._sinks: list[Sink] = []
        self._target: tuple[int, int] | None = None
        self._asked: dict[str, Future[Any]] = {}

    def read(self, known: Registration, id: str) -> dict[str, Content | SyncerError]:
        """Returns the content of each sink, by its name, or why it is unknown.

        known: the active registration. A resync may have replaced it since the last call.
        Raises Fatal if a sink's settings are wrong.
        """
        if self._target != (known.epoch, known.generation):
            self.close()
            self._sinks = loader.build_sinks(
                self._config, self._loaded, epoch=known.epoch, generation=known.generation, built=True
            )
            self._target = known.epoch, known.generation
        return self._ask(lambda sink: (sink.read([id]).get(id), sink.versions([id]).get(id, 0)))

    def compare(
        self, contents: Mapping[str, Content | SyncerError], rendered: Rendered | None, id: str, age: float
    ) -> list[Stored]:
        """Returns each sink's document, compared with the rendered one.

        contents: the result of `read`, which was called before the document was rendered.
        age: as the argument `rendered` of `InspectableSink.expired`.
        """
        stores = [self._compare(sink, contents[sink.name], rendered) for sink in self._sinks]
        if not any(store.state == "missing" for store in stores):
            return stores
        expired = self._ask(lambda sink: bool(sink.expired([id], age)))
        return [
            Stored(store.sink, "expired", None, store.wanted, store.version)
            if store.state == "missing" and expired[store.sink] is True
            else store
            for store in stores
        ]

    def _compare(self, sink: Sink, content: Content | SyncerError, rendered: Rendered | None) -> Stored:
        if isinstance(content, SyncerError):
            return Stored(sink.name, "unknown")
        body, version = content
        if rendered is None:
            return Stored(sink.name, "unknown", body, None, version)
        wanted = FAILS if rendered.error else rendered.body
        same: State = "absent" if body is None else "equal"
        normalized = sink.normalize(wanted) if wanted else None
        return Stored(sink.name, difference(sink, wanted, body) or same, body, normalized, version)

    def _ask(self, question: Callable[[Sink], T]) -> dict[str, T | SyncerError]:
        """Returns the answer of each sink, or its error. Asks no sink that still owes an answer."""
        deadline, found = time.monotonic() + ANSWER_TIMEOUT, dict[str, T | SyncerError]()
        asked: dict[str, Future[T]] = {}
        for sink in self._sinks:
            if sink.name not in self._asked or self._asked[sink.name].done():
                asked[sink.name] = SystemTime().run_in_background(sink.name, partial(question, sink))
        for sink in self._sinks:
            where = f"{sink.name.partition(':')[0]}.url in the configuration"
            try:
                if sink.name not in asked:
                    raise Retry(f"{sink.name} does not answer", where=where, why="it has not answered the last request")
                found[sink.name] = answer(asked[sink.name], deadline, sink.name, where)
            except SyncerError as error:
                found[sink.name] = error
        self._asked |= asked
        return found

    def close(self) -> None:
        """Closes the connections of the sinks that have answered."""
        for sink in self._sinks:
            if sink.name not in self._asked or self._asked[sink.name].done():
                with suppress(SyncerError):
                    sink.close()
