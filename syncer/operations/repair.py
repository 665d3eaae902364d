"""Repairs documents that differ from PostgreSQL: renders them again and writes them to the sinks.

A sink keeps the document with the highest version. A manual edit can have the highest version: in Elasticsearch, each
edit or delete increases the version of the document by one. In Redis, the version does not change. On an idle database,
the snapshot clock does not advance. Then a new render has the same version or a lower one, and the sink ignores it as
stale. Therefore the repair first advances the clock past the versions in the sinks. To do that, it commits messages
that touch no table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress

from syncer import document
from syncer.clock import EPOCH_SHIFT, Clock, split_version
from syncer.declaration.compile import Compiled, Lookup
from syncer.declaration.compiled import Partials
from syncer.document import Batch
from syncer.errors import Fatal, Reject
from syncer.events import Key
from syncer.operations.one_off import OneOffRun
from syncer.ports import InspectableSink, PartialSink, Rows, Sink, WritableSink
from syncer.quantities import counted

_MAX_DELETES = 1000  # of one batch
_MAX_COMMITS = 1000
"""Limit for advancing the clock; it takes some seconds. A larger gap does not come from manual edits."""


def repair(run: OneOffRun, ids: Collection[str], orphaned: Collection[str] = ()) -> None:
    """Renders these documents again and writes them to every sink. Ignores ids that are not valid keys.

    orphaned: the ids among them that have no row. Those that no row can have are deleted without being rendered.
    Raises Fatal if the version of a document is too far ahead of the clock. The other documents are repaired before.
    """
    opened = run.opened
    compiled, model = opened.loaded.compiled, opened.loaded.name
    with closing(opened.rows()) as rows:
        impossible = impossible_ids(rows, compiled, list(orphaned))
        valid = set(ids).difference(impossible)
        versions = _of_sinks(opened.sinks, impossible if compiled.partials else ids)
        if compiled.partials:
            versions |= _of_partials(opened.sinks, compiled.partials, rows, sorted(valid))
        clocks: dict[str, int] = {}
        for id, (epoch, clock) in ((id, split_version(version)) for id, version in versions.items()):
            if epoch == opened.registration.epoch:  # an earlier one is below all new versions, a later one fails
                clocks[id] = clock
        far = _advance_clock(rows, clocks)
        if impossible:
            _delete(rows, opened.clock, opened.sinks, impossible, model)
    keys: list[Key] = []
    for id in valid - far.keys():
        with suppress(ValueError):
            keys.append(document.parse_id(id, len(compiled.key)))
    run.render(keys, "repair")
    if far:
        id, behind = max(far.items(), key=lambda one: one[1])
        all_of, higher = counted(len(ids), "document"), "a higher version than the clock of PostgreSQL can reach"
        raise Fatal(
            counted(len(far), f"of {all_of} has {higher}", f"of {all_of} have {higher}"),
            where=model,
            why=f"for document {id}, the clock is {counted(behind, 'transaction')} behind",
            hint=f"syncer resync {model}",
        )


def impossible_ids(rows: Rows, compiled: Compiled, ids: Sequence[str]) -> list[str]:
    """Returns the ids that no row can have, such as `abc` if the key is a bigint. PostgreSQL decides.

    A row that exists is never among them, even if its document cannot be rendered.
    """
    own, found = Lookup(compiled.key, compiled.key_types, compiled.canonical_keys), list[str]()
    keys: dict[str, Key] = {}
    for id in ids:
        try:
            keys[id] = document.parse_id(id, len(compiled.key))
        except ValueError:
            found.append(id)
    parts = [list(keys)]
    while parts:
        part = parts.pop()
        try:
            with rows.view(root_only=True) as view:
                for _ in view.look_up(own, [keys[id] for id in part]):
                    pass
        except Reject:
            middle = len(part) // 2
            if middle:
                parts += [part[:middle], part[middle:]]
            else:
                found += part
    return found


def _delete(rows: Rows, clock: Clock, sinks: Sequence[WritableSink], ids: list[str], model: str) -> None:
    """Deletes documents whose id no row can have. No other process writes them, so any later version is right."""
    floor = clock.highest
    with rows.view(root_only=True) as view:
        version = clock.version(view.head.identity, view.head.snapshot.clock, floor=floor, model=model)
    for sink in sinks:
        for start in range(0, len(ids), _MAX_DELETES):
            sink.write(Batch(version, {}, ids[start : start + _MAX_DELETES]))


def _of_sinks(sinks: Sequence[InspectableSink], ids: Collection[str]) -> dict[str, int]:
    """Returns the highest version that a sink has of each document or of its tombstone."""
    found: dict[str, int] = {}
    for sink in sinks:
        for id, version in sink.versions(list(ids)).items():
            found[id] = max(version, found.get(id, 0))
    return found


def _of_partials(sinks: Sequence[Sink], partials: Partials, rows: Rows, ids: Sequence[str]) -> dict[str, int]:
    """Returns the version that new partials of each document have to exceed.

    This is the highest version of a partial. But the version of a document is the sum of the clocks of its partials. An
    edit increases it, and lost partials leave it too high. So the clock also has to exceed the sum, divided by the
    number of partials that are rendered again: those with rows, and those that the sink has.
    """
    keys: list[Key] = []
    for id in ids:
        with suppress(ValueError):
            keys.append(document.parse_id(id, len(partials.parts.key) - 1))
    with_rows: dict[str, set[str]] = {}
    with rows.view() as view:
        for key in view.look_up(partials.every, keys):
            with_rows.setdefault(document.document_id(key[:-1]), set()).add(key[-1])
    needed: dict[str, int] = {}
    for sink in sinks:
        if not isinstance(sink, PartialSink):
            continue
        stored, versions = sink.read_partials(ids), sink.versions(ids)
        for id in stored.keys() | versions.keys():
            parts = stored.get(id, {})
            epoch, total = split_version(versions.get(id, 0))
            rendered = max(len(with_rows.get(id, set()) | parts.keys()), 1)
            highest = max((part.version for part in parts.values()), default=0)
            needed[id] = max(needed.get(id, 0), epoch << EPOCH_SHIFT | total // rendered, highest)
    return needed


def _advance_clock(rows: Rows, clocks: Mapping[str, int]) -> dict[str, int]:
    """Commits messages until a snapshot has a higher clock than all these documents.

    Returns how far the clock is behind those documents that are too far ahead.
    """
    for commits in range(_MAX_COMMITS + 1):
        with rows.view() as view:
            now = view.head.snapshot.clock
        behind = {id: clock - now for id, clock in clocks.items() if clock >= now}
        near = any(transactions < _MAX_COMMITS - commits for transactions in behind.values())
        if not near:
            break
        rows.flush()
    return behind
