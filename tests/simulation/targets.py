"""The targets of two sinks: indexes behind an alias of Elasticsearch, and tables behind a view of PostgreSQL.

`ElasticsearchSink` runs unchanged. Other processes can come between its requests. A request with several actions on
aliases is one atomic step. The switch of the view is one transaction, and so it is one step here.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import orjson

from syncer.errors import Fatal, Retry
from syncer.sinks.elasticsearch.client import Http
from syncer.sinks.elasticsearch.settings import Settings
from syncer.sinks.elasticsearch.sink import ElasticsearchSink
from syncer.sinks.target import Target
from tests.simulation.application import compiled

SETTINGS = Settings.model_validate({"index": "orders"})
_REFUSED = "objects depend on the view, and its columns change"


class Faults(Protocol):
    """The faults of a world."""

    def step(self, what: str) -> bool:
        """May give the turn to another actor. Then raises Retry, or returns whether the answer of the step is lost."""
        ...


class Server:
    """A server, and the generation that readers of it see. None: they find nothing."""

    name = ""

    def __init__(self) -> None:
        self.applied: dict[int, int] = {}
        """By generation that exists: the number of changes that its documents show. −1: it is incomplete."""
        self.refuses = False

    @property
    def read(self) -> list[int]:
        """The generations that readers see."""
        raise NotImplementedError

    def drop(self, target: str) -> None:
        """Deletes a target, as an operator does."""
        raise NotImplementedError

    def sink(self, generation: int, faults: Faults) -> Any:
        raise NotImplementedError


# -- Elasticsearch ------------------------------------------------------------------------------------


class Indexes(Server):
    """Indexes, each with its record and its aliases."""

    name = "elasticsearch:orders"

    def __init__(self) -> None:
        super().__init__()
        self.indexes: dict[str, dict[str, Any]] = {}

    @property
    def read(self) -> list[int]:
        return [_generation(name) for name, info in self.indexes.items() if "orders" in info["aliases"]]

    def drop(self, target: str) -> None:
        if self.indexes.pop(target, None):
            self.applied.pop(_generation(target), None)

    def sink(self, generation: int, faults: Faults) -> ElasticsearchSink:
        sink = ElasticsearchSink(SETTINGS, _CONNECTION, model=compiled(), epoch=generation, generation=generation)
        sink._http = Requests(self, faults)
        return sink

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Returns status and answer of one request."""
        name = path[1:].partition("?")[0]
        if name.endswith("/_mapping"):
            self.indexes[name.partition("/")[0]]["mappings"] |= body
        elif (method, name) == ("POST", "_aliases"):
            return self._change_aliases(body["actions"])
        elif method == "PUT":
            if name in self.indexes:
                return 400, {"error": {"type": "resource_already_exists_exception"}}
            self.indexes[name] = {"mappings": body["mappings"], "aliases": dict(body["aliases"])}
            self.applied[_generation(name)] = -1
        elif name.startswith("_alias/"):
            return _found({one: {} for one, info in self.indexes.items() if name[7:] in info["aliases"]})
        elif name.endswith("-*"):
            return 200, dict(self.indexes)
        else:
            return _found({one: info for one, info in self.indexes.items() if name == one or name in info["aliases"]})
        return 200, {}

    def _change_aliases(self, actions: list[dict[str, Any]]) -> tuple[int, Any]:
        """Executes all actions, or none."""
        changes = [(verb, one) for action in actions for verb, one in action.items()]
        for verb, one in changes:
            if one["index"] not in self.indexes:
                return 404, {"error": {"type": "index_not_found_exception"}}
            has_alias = one["alias"] in self.indexes[one["index"]]["aliases"]
            if verb == "remove" and one.get("must_exist") and not has_alias:
                return 404, {"error": {"type": "aliases_not_found_exception"}}
        for verb, one in changes:
            if verb == "add":
                self.indexes[one["index"]]["aliases"][one["alias"]] = {}
            else:
                self.indexes[one["index"]]["aliases"].pop(one["alias"], None)
        return 200, {}


class Requests(Http):
    """The requests of one sink."""

    def __init__(self, server: Indexes, faults: Faults) -> None:
        self._server, self._faults = server, faults
        self._where, self._resync = server.name, "syncer resync orders"

    def ask(self, method: str, path: str, body: Any = None, kind: str = "") -> tuple[int, bytes]:
        if path.startswith("/_nodes"):
            return 404, b""
        is_lost = self._faults.step(f"{method} {path}")
        refused = self._server.refuses and path == "/_aliases"
        status, answer = (403, {"error": {"type": "security"}}) if refused else self._server.answer(method, path, body)
        if is_lost:
            raise Retry("the answer was lost")
        return status, orjson.dumps(answer)


class _Connection(NamedTuple):
    max_bulk_bytes: int = 1000

    def client(self) -> Any:
        return SimpleNamespace(options=lambda **_: None, close=lambda: None)


_CONNECTION: Any = _Connection()


def _found(found: dict[str, Any]) -> tuple[int, Any]:
    return (200, found) if found else (404, {})


def _generation(name: str) -> int:
    return int(name.rpartition("-")[2].rpartition("_")[2])


# -- PostgreSQL ---------------------------------------------------------------------------------------


class Tables(Server):
    """Tables, and the view over one of them."""

    name = "postgres:read.orders"

    def __init__(self) -> None:
        super().__init__()
        self.view: int | None = None

    @property
    def read(self) -> list[int]:
        return [] if self.view is None else [self.view]

    def drop(self, target: str) -> None:
        generation = _generation(target)
        self.applied.pop(generation, None)
        if self.view == generation:
            self.view = None  # DROP TABLE … CASCADE

    def sink(self, generation: int, faults: Faults) -> TableSink:
        return TableSink(self, generation, faults)


class TableSink:
    """Does in one step what `PostgresSink` does in one transaction (`sinks/postgres/schema.py`)."""

    in_place = False

    def __init__(self, server: Tables, generation: int, faults: Faults) -> None:
        self.name, self._server, self._generation, self._faults = server.name, server, generation, faults
        self._target = Target.of(self.name, compiled(), generation, generation)

    def prepare(self, *, new: bool = True) -> None:
        is_lost, server = self._faults.step("prepares the table"), self._server
        self._check_epoch()
        if self._generation not in server.applied:
            if not new:
                raise self._target.gone("the table")
            server.applied[self._generation] = -1
        if server.view is None:
            server.view = self._generation
        if is_lost:
            raise Retry("the answer was lost")

    def activate(self) -> list[str]:
        is_lost, server = self._faults.step("switches the view"), self._server
        if server.refuses:
            raise Fatal(_REFUSED, where=self.name)
        self._check_epoch()
        server.view = self._generation
        if is_lost:
            raise Retry("the answer was lost")
        return [f"orders_{one:06d}" for one in server.applied if one < self._generation]

    def _check_epoch(self) -> None:
        if self._server.view is not None:
            self._target.check_epoch(self._server.view, "the table that applications read")

    def close(self) -> None:
        """Nothing to close."""
