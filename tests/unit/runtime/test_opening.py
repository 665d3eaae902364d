"""A read model that is to stop while it opens ends after the current step. Read models compile one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from syncer.config.schema import Config, load
from syncer.declaration.compile import compile as compile_declaration
from syncer.declaration.model import Model, parse
from syncer.pacing import Stopped, Waiter
from syncer.postgres import catalog, validate_sql
from syncer.registry import loader
from syncer.registry.records import Registration
from syncer.runtime import opening
from syncer.runtime.opening import ModelOpener
from syncer.runtime.supervisor import ModelSupervisor
from syncer.telemetry.metrics import Metrics
from tests.harness.catalogs import SHOP

STEPS = (
    "generation",
    "connect",
    "catalog",
    "compile",
    "plan",
    "snapshot",
    "register",
    "clock",
    "prepare the first sink",
    "prepare the second sink",
    "dead letters",
    "durability",
    "table state",
)
LIMIT = 20.0  # seconds for steps that take milliseconds


def model(name: str) -> Model:
    return parse(f"name: {name}\nroot: {{table: orders}}\ndocument: {{status: status}}\nsink: {{memory: {{}}}}\n", name)


@pytest.fixture
def config() -> Config:
    return load(environ={"SYNCER_POSTGRES__DSN": "postgresql:///unused"})


@contextmanager
def session(*_: Any) -> Iterator[Any]:
    """In the place of a session of PostgreSQL: the server is no standby."""
    yield SimpleNamespace(execute=lambda sql: SimpleNamespace(fetchone=lambda: (False,)))


class Steps:
    """The parts of an opening that need servers. Each records its step. `at_step` is called after each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at_step: Callable[[str], None]) -> None:
        self.seen: list[str] = []
        self._at_step = at_step
        step = self.step
        self._views = iter(("snapshot", "clock"))
        sinks = [self._sink("first"), self._sink("second")]
        alterations = SimpleNamespace(save_initial_state=lambda new: None, outgrown=lambda sinks: step("table state"))

        @contextmanager
        def connected(config: Config) -> Iterator[Any]:
            with session() as connection:
                step("connect")
                yield connection

        def stable(*_: Any, **__: Any) -> Any:
            step("catalog")
            return SHOP, SimpleNamespace(sql="", value="")

        def compiled(*arguments: Any) -> Any:
            found = compile_declaration(*arguments)
            step("compile")
            return found

        for where, name, replacement in (
            (loader, "catalog_session", connected),
            (catalog, "load_stable", stable),
            (loader, "compile", compiled),
            (loader, "check_model", lambda *_: []),
            (validate_sql, "plan", lambda *_: step("plan")),
            (loader, "build_sinks", lambda *_, **__: sinks),
            (opening, "open_rows", lambda *_: SimpleNamespace(view=self._view, close=lambda: None)),
            (opening, "SinkDurabilityMonitor", lambda *_, **__: SimpleNamespace(check=lambda _: step("durability"))),
            (opening, "TableAlterations", lambda *_: alterations),
        ):
            monkeypatch.setattr(where, name, replacement)

    def step(self, name: str) -> None:
        self.seen.append(name)
        self._at_step(name)

    @contextmanager
    def _view(self, **_: Any) -> Iterator[Any]:
        yield SimpleNamespace(head=SimpleNamespace(identity=None, snapshot=SimpleNamespace(clock=100)))
        self.step(next(self._views))

    def _sink(self, number: str) -> Any:
        return SimpleNamespace(
            name=number, prepare=lambda new: self.step(f"prepare the {number} sink"), close=lambda: None
        )

    # -- the registry -------------------------------------------------------------------------------

    def registered(self, *_: Any, **__: Any) -> None:
        self.step("generation")

    def open(self, *_: Any) -> Any:
        self.step("register")
        registration = Registration("orders", "", 1, 1, {}, 0)
        return SimpleNamespace(registration=registration, names=None, clock=None, built=True)

    def dead_letters(self, name: str) -> Any:
        letters = SimpleNamespace(refresh=lambda timeout: self.step("dead letters"))
        return SimpleNamespace(open=lambda oldest: letters)

    def work_queue(self, names: Any) -> None:
        return None

    @property
    def state(self) -> Any:
        return SimpleNamespace(load=dict)


@pytest.mark.parametrize("last", STEPS)
def test_a_stop_ends_the_opening_after_the_current_step(
    config: Config, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    stop = Event()
    steps: Any = Steps(monkeypatch, lambda step: stop.set() if step == last else None)
    opener = ModelOpener(config, model("orders"), steps, Metrics(CollectorRegistry()).for_model("orders"))
    with ExitStack() as closing, pytest.raises(Stopped):
        opener.open(closing, Waiter(stop))
    assert steps.seen == list(STEPS[: STEPS.index(last) + 1])


def test_a_supervisor_that_stops_during_another_compilation_does_not_compile(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling, others_turn, end_compilation = Event(), Event(), Event()
    compiled: list[str] = []

    def stable(connection: Any, tables: Any, **_: Any) -> Any:
        if compiling.is_set():
            others_turn.set()
        return SHOP, SimpleNamespace(sql="", value="")

    def compile(model: Model, _: Any) -> Any:
        compiled.append(model.name)
        compiling.set()
        assert end_compilation.wait(LIMIT)

    monkeypatch.setattr(loader, "catalog_session", session)
    monkeypatch.setattr(catalog, "load_stable", stable)
    monkeypatch.setattr(loader, "compile", compile)
    registry: Any = SimpleNamespace(registered=lambda *_, **__: None)
    metrics = Metrics(CollectorRegistry())
    first, second = (
        ModelSupervisor(config, model(name), registry, metrics.for_model(name)) for name in ("first", "second")
    )
    first.start()
    assert compiling.wait(LIMIT)
    second.start()
    assert others_turn.wait(LIMIT), "the catalog is read although another read model is being compiled"
    second.stop()
    first.stop()
    end_compilation.set()
    assert first.join(LIMIT) and second.join(LIMIT)
    assert compiled == ["first"]
    assert [first.state, second.state] == ["stopped", "stopped"]
