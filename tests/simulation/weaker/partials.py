"""Weaker rules about partials and groups (`pipeline/combine.py`, `declaration/partials.py`, grouped roots)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from syncer.declaration.compile import TableUse
from syncer.declaration.compiled import CombinedField
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.document import Batch, Outcome, Row, document_id, parse_id
from syncer.events import ChangeEvent, Key
from syncer.pipeline import combine, combine_states
from syncer.pipeline.change_stages import ChangeStages
from syncer.pipeline.combine import CombiningSink
from syncer.pipeline.lane import Lane
from syncer.pipeline.resolve import Resolve
from syncer.pipeline.route import Route
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Record
from tests.simulation.database import Rows
from tests.simulation.partials import PartialStore
from tests.simulation.read_models import BEST, BUCKET, Combined
from tests.simulation.weaker.documents import only_after
from tests.simulation.weaker.rule import Weaker

_route, _render, _stages = Route.__call__, Combined.render, ChangeStages.__init__


def highest_clock(versions: Iterable[int], model: str) -> int:
    """Returns the highest clock of the partials as the version of the document."""
    return max(versions)


def drops_empty(self: PartialStore, id: str, bucket: str) -> None:
    """Deletes the partial of a bucket without rows."""
    body = self.partials[id][bucket].body
    if bucket != ROOT_PARTIAL and body is not None and orjson.loads(body)[0] == "0":
        del self.partials[id][bucket]


def reads_before_it_writes(self: CombiningSink, batch: Batch, timeout: float = 30.0) -> Outcome:
    """Reads all partials before it writes its own, and combines them."""
    began = time.monotonic()
    ids: dict[str, dict[str, str]] = {}
    parts: dict[str, dict[str, bytes | None]] = {}
    for id in batch.ids():
        root, bucket = self._split(id)
        ids.setdefault(root, {})[bucket] = id
        parts.setdefault(root, {})[bucket] = batch.upserts.get(id)
    before = self._stores.read_partials(list(parts))
    sink: Any = self._stores
    sink.store.scheduler.sleep(0.0)  # another process writes
    stored = self._stores.write_partials(batch.version, parts, timeout)
    own = {
        root: {**before.get(root, {}), **{bucket: one for bucket, one in stored[root].items() if bucket in parts[root]}}
        for root in stored
    }
    combined = self._write_combined(own, max(timeout - (time.monotonic() - began), 0.001))
    return self._outcome(batch, ids, stored, combined)


class Delta(Lane):
    """Adds the changes of items to the stored partials, instead of reading the rows of the bucket again."""

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> Iterator[WriteBatch]:
        deltas: dict[str, list[int]] = {}
        for change in changes:
            if change.table.name == "items":
                for image, sign in ((change.before, -1), (change.after, 1)):
                    if image is not None:
                        delta = deltas.setdefault(_partial_of(image), [0, 0])
                        delta[0] += sign
                        delta[1] += sign * image["n"]
        for batch in super()._changes(changes, records):
            documents = batch.documents
            added = {id: self._add(id, deltas.get(id), body) for id, body in documents.upserts.items()}
            yield replace(batch, documents=replace(documents, upserts=added))

    def _add(self, id: str, delta: Sequence[int] | None, rendered: bytes) -> bytes:
        root, bucket = parse_id(id, 2)
        if delta is None or bucket == ROOT_PARTIAL:
            return rendered
        sink: Any = self.writer.sinks[0]
        known = sink.read_partials([root]).get(root, {}).get(bucket)
        count, total, *_ = orjson.loads(known.body) if known and known.body else ("0", None)
        count, total = int(count) + delta[0], int(total or 0) + delta[1]
        return orjson.dumps([str(count), str(total) if count else None, *orjson.loads(rendered)[2:]])


def _partial_of(item: Mapping[str, Any]) -> str:
    return document_id((str(item["order_id"]), str(item["id"] // BUCKET)))


def inserts_dirty_the_root_partial_only(self: Route, change: ChangeEvent) -> list[TableUse]:
    return [use for use in _route(self, change) if use.path != "(all partials)"]


def hidden_is_deleted(self: Combined, rows: Rows, key: Key) -> Row:
    """Renders the root partial of a hidden order as a delete."""
    row = _render(self, rows, key)
    return row._replace(body=None) if row.body == b"null" else row


def one_row_less(self: Combined, rows: Rows, key: Key) -> Row:
    """Renders one row less of the list than its limit."""
    row = _render(self, rows, key)
    if row.body is None or key[1] == ROOT_PARTIAL:
        return row
    *states, best = orjson.loads(row.body)
    return row._replace(body=orjson.dumps([*states, orjson.dumps(orjson.loads(best)[: BEST - 1]).decode()]))


def lists_of_buckets_in_their_order(field: CombinedField, lists: Sequence[str | None]) -> str:
    """Appends the lists of the buckets, instead of merging them."""
    rows = [row for one in lists for row in orjson.loads(one or "[]")]
    return orjson.dumps(rows[: field.limit]).decode()


def no_sweeps(self: ChangeStages, *arguments: Any, **named: Any) -> None:
    """Does not sweep groups and buckets after a truncate, or after updates that lack their old rows."""
    _stages(self, *arguments, **named)
    self._grouped = self._has_partials = False


def _combined(wrong: str, patches: Mapping[tuple[Any, str], Any], first: int = 0, lane: type[Lane] = Lane) -> Weaker:
    return Weaker(wrong, patches, lane, model="combined", first=first)


def _groups(wrong: str, patches: Mapping[tuple[Any, str], Any], first: int = 0) -> Weaker:
    return Weaker(wrong, patches, model="groups", first=first)


RULES = {
    "only the new bucket is dirty": _combined(
        "the bucket that an item leaves still counts it",
        {(Resolve, "__call__"): only_after},
    ),
    "only the new group is dirty": _groups(
        "the group that an item leaves still counts it",
        {(Resolve, "__call__"): only_after},
    ),
    "the maximum of the partials' clocks as version": _combined(
        "the writer that has read all partials has no higher version than the other",
        {(combine, "combined_version"): highest_clock},
    ),
    "an empty partial is deleted": _combined(
        "the sum of the clocks falls, and the next document is refused",
        {(PartialStore, "written_partial"): drops_empty},
    ),
    "a delta instead of the rows of the bucket": _combined(
        "an event that is delivered twice counts twice",
        {},
        lane=Delta,
    ),
    "partials are read before the own one is written": _combined(
        "of two writers, none has read the partial of the other",
        {(CombiningSink, "write"): reads_before_it_writes},
    ),
    "an inserted root makes its root partial dirty only": _combined(
        "the sink has forgotten the buckets of the deleted root",
        {(Route, "__call__"): inserts_dirty_the_root_partial_only},
    ),
    "a hidden root counts as deleted": _combined(
        "the sink forgets its buckets, and no event brings them back when it is shown again",
        {(Combined, "render"): hidden_is_deleted},
    ),
    "a bucket keeps one row less than the limit of a list": _combined(
        "all first rows of a document may be in one bucket",
        {(Combined, "render"): one_row_less},
    ),
    "the lists of buckets are appended": _combined(
        "the first row of a later bucket may precede the rows of an earlier one",
        {(combine_states, "_merge_in_order"): lists_of_buckets_in_their_order},
    ),
    "no sweep of buckets": _combined(
        "a bucket whose last row was truncated has no row that names it",
        {(ChangeStages, "__init__"): no_sweeps},
    ),
    "no sweep of groups": _groups(
        "the last row of a group left it by an update without its old row",
        {(ChangeStages, "__init__"): no_sweeps},
        first=1600,
    ),
}
