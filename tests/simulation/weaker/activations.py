"""Weaker rules about the switch of readers to another generation (`operations/resync.py`, `sinks/*/sink.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from syncer.errors import Fatal
from syncer.operations import resync as operation
from syncer.operations.switch_readers import switch_readers
from syncer.registry.records import Activated, Generation, Registration, StateSlot, generation_of
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot
from syncer.sinks.elasticsearch.sink import ElasticsearchSink
from tests.simulation.activation import World
from tests.simulation.resyncing import MODEL, registration

_Wait = Callable[[], None]


class Rule(NamedTuple):
    """wrong: the fault. patches: (class or module, function) → its replacement. first: see `rule.Weaker`."""

    wrong: str
    patches: Mapping[tuple[Any, str], Any]
    first: int = 0


def _world(sinks: Sequence[Any]) -> World:
    [world] = [sink._faults for sink in sinks if hasattr(sink, "_faults")]
    return world  # type: ignore[no-any-return]


def _drops_at_once(sinks: Sequence[Any], report: Any) -> list[str]:
    """Deletes the old generation of every sink when the first sink has switched."""
    world = _world(sinks)
    switch_readers(sinks[:1], report)
    old = world.active.generation
    for target in (f"orders-{old:06d}", f"orders_{old:06d}"):
        world.scheduler.pause()
        world.drop(target)
    return switch_readers(sinks[1:], report)


def _adopts_first(sinks: Sequence[Any], report: Any) -> list[str]:
    """Registers the new generation, and switches the readers then."""
    registry = _world(sinks).registry
    following = registry.registered(MODEL, StateSlot.NEXT)
    if following:
        registry.adopt(following)
    return switch_readers(sinks, report)


def _ignores_refusals(sinks: Sequence[Any], report: Any) -> list[str]:
    """Takes the switch for done although a sink has refused it."""
    obsolete: list[str] = []
    for sink in sinks:
        with suppress(Fatal):
            obsolete += switch_readers([sink], report)
    return obsolete


def _withdraws(sinks: Sequence[Any], report: Any) -> list[str]:
    """Withdraws the announcement when a sink refuses, although others may have switched."""
    try:
        return switch_readers(sinks, report)
    except Fatal:
        registry = _world(sinks).registry
        if following := registry.registered(MODEL, StateSlot.NEXT):
            registry.withdraw_swap(following)
        raise


def _announces_only(
    registry: Registry, active: Registration, following: Registration, wait: Callable[[], None]
) -> None:
    """Switches without the changes for which waits were answered before the announcement."""
    registry.announce_swap(active, following)


def _withdraws_always(registry: Registry, active: Registration, following: Registration, wait: _Wait) -> None:
    """Withdraws the announcement of an earlier resync, too."""
    registry.announce_swap(active, following)
    try:
        wait()
    except BaseException:
        for number in range(active.generation + 1, following.generation + 1):
            registry.withdraw_swap(registration(number))
        raise


def _announces_nothing(
    registry: Registry, active: Registration, following: Registration, wait: Callable[[], None]
) -> None:
    wait()


def _moves_in_two_requests(self: ElasticsearchSink) -> list[str]:
    """Removes the alias from the old index, and then adds it to the new one."""
    found = self._http.get(f"/_alias/{self.alias}") or {}
    old = [name for name in found if name != self.index]
    if old:
        actions = [{"remove": {"index": name, "alias": self.alias}} for name in old]
        self._http.must("POST", "/_aliases", {"actions": actions})
    self._http.must("POST", "/_aliases", {"actions": [{"add": {"index": self.index, "alias": self.alias}}]})
    return old


def _last_one(self: StateSnapshot, model: str, slot: StateSlot = StateSlot.ACTIVE) -> Registration | None:
    """The active generation is the one that was registered last, as in a compacted topic with one key for it."""
    numbers = [found.number for key in self._values if (found := generation_of(key, Activated))]
    if slot is StateSlot.NEXT or not numbers:
        return _REGISTRATION(self, model, slot)
    return self.get(Registration.key(Generation(model, numbers[-1])))


_REGISTRATION = StateSnapshot.registration


def _moves_any_reader(self: ElasticsearchSink) -> list[str]:
    """Reads the alias again after the check. It may point to an index of a later generation by then."""
    self._check_read_alias()
    found = self._http.get(f"/_alias/{self.alias}") or {}
    actions: list[Any] = [{"remove": {"index": name, "alias": self.alias}} for name in found if name != self.index]
    self._http.must("POST", "/_aliases", {"actions": [*actions, {"add": {"index": self.index, "alias": self.alias}}]})
    return []


RULES = {
    "the generation that was registered last is active": Rule(
        "a resync that was frozen registers an older generation, which no reader sees",
        {(StateSnapshot, "registration"): _last_one},
    ),
    "the alias is read again after its epoch was checked": Rule(
        "a resync that was frozen moves readers to an older generation",
        {(ElasticsearchSink, "activate"): _moves_any_reader},
        first=2_450,
    ),
    "the old generation is deleted before all sinks have switched": Rule(
        "readers of the other sink find no documents",
        {(operation, "switch_readers"): _drops_at_once},
    ),
    "the new generation is registered before the switch": Rule(
        "if the switch fails, the generation that readers see is not kept in sync, and this is not reported",
        {(operation, "switch_readers"): _adopts_first},
    ),
    "a switch of some sinks is taken for done": Rule(
        "readers of the sink that has refused stay on a generation that is not kept in sync",
        {(operation, "switch_readers"): _ignores_refusals},
    ),
    "the announcement is withdrawn when a sink refuses": Rule(
        "readers of the sinks that have switched see changes late, and waits for these changes are answered with 200",
        {(operation, "switch_readers"): _withdraws},
    ),
    "the announcement of an earlier resync is withdrawn": Rule(
        "the earlier resync has switched some sinks, and this is not reported any more",
        {(operation, "_announce_swap"): _withdraws_always},
    ),
    "the switch does not wait after its announcement": Rule(
        "readers do not find changes that they have seen in the old generation",
        {(operation, "_announce_swap"): _announces_only},
    ),
    "the switch is not announced": Rule(
        "waits are answered with 200 for changes that only the old generation shows",
        {(operation, "_announce_swap"): _announces_nothing},
    ),
    "the alias is moved by two requests": Rule(
        "readers find no index between the two",
        {(ElasticsearchSink, "activate"): _moves_in_two_requests},
    ),
}
