"""Weaker rules about a grouped root with partials (`declaration/grouped_partials.py`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from syncer.declaration.compile import Lookup
from syncer.declaration.partial_keys import ROOT, ROOT_PARTIAL
from syncer.document import Row
from syncer.events import Key, Values
from syncer.pipeline import combine
from syncer.pipeline.change_stages import ChangeStages
from syncer.pipeline.resolve import Resolve
from tests.simulation.database import Rows
from tests.simulation.divided_groups import DividedGroups
from tests.simulation.partials import PartialStore
from tests.simulation.read_models import BUCKET, items_in
from tests.simulation.weaker.documents import only_after
from tests.simulation.weaker.partials import drops_empty, highest_clock, no_sweeps
from tests.simulation.weaker.rule import Weaker

_look_up, _render, _write = DividedGroups.look_up, DividedGroups.render, PartialStore.write_partials


def only(*, root: bool, of: str = "") -> Any:
    """Returns a look-up that finds only root partials, or only buckets.

    of: the relation whose rows it looks up. Empty for the grouped rows.
    """

    def look_up(self: DividedGroups, rows: Rows, lookup: Lookup, values: Collection[Values]) -> set[Key]:
        found = _look_up(self, rows, lookup, values)
        if lookup != self.lookups[of]:
            return found
        return {key for key in found if (key[1] == str(ROOT)) is root}

    return look_up


def exists_if_its_first_bucket_has_rows(self: DividedGroups, rows: Rows, key: Key) -> Row:
    """Renders the root partial as a delete if the first bucket has no rows."""
    row = _render(self, rows, key)
    has_rows = any(str(item["order_id"]) == key[0] and item["id"] // BUCKET == 0 for item in items_in(rows))
    return row if key[1] != str(ROOT) or has_rows else row._replace(id=None, body=None)


def writes_root_partials_once(
    self: PartialStore, id: str, version: int, parts: Mapping[str, bytes | None]
) -> dict[str, Any]:
    """Writes a root partial only if there is none."""
    known = self.partials.get(id, {})
    return _write(self, id, version, {b: body for b, body in parts.items() if b != ROOT_PARTIAL or b not in known})


def _divided(wrong: str, patches: Mapping[tuple[Any, str], Any]) -> Weaker:
    return Weaker(wrong, patches, model="divided")


RULES = {
    "a grouped row makes only its bucket dirty": _divided(
        "a group has no document until its root partial is rendered, and keeps it after its last row",
        {(DividedGroups, "look_up"): only(root=False)},
    ),
    "a grouped row makes only the root partial dirty": _divided(
        "the bucket keeps its old aggregates",
        {(DividedGroups, "look_up"): only(root=True)},
    ),
    "a row that a filter reads makes only the root partial dirty": _divided(
        "the buckets still count the rows of a hidden order",
        {(DividedGroups, "look_up"): only(root=True, of="order")},
    ),
    "a row that a filter reads makes only buckets dirty": _divided(
        "a group keeps its document when its order is hidden",
        {(DividedGroups, "look_up"): only(root=False, of="order")},
    ),
    "a row that an aggregate reads makes only the root partial dirty": _divided(
        "the buckets keep the old names",
        {(DividedGroups, "look_up"): only(root=True, of="product")},
    ),
    "only the new bucket of a group is dirty": _divided(
        "the bucket or the group that an item leaves still counts it",
        {(Resolve, "__call__"): only_after},
    ),
    "a group exists while its first bucket has rows": _divided(
        "a group with rows in another bucket has no document",
        {(DividedGroups, "render"): exists_if_its_first_bucket_has_rows},
    ),
    "the root partial of a group is written once": _divided(
        "a group keeps its document after its last row, and its note",
        {(PartialStore, "write_partials"): writes_root_partials_once},
    ),
    "an empty partial of a group is deleted": _divided(
        "the sum of the clocks falls, and the next document is refused",
        {(PartialStore, "written_partial"): drops_empty},
    ),
    "the maximum of the clocks as version of a group": _divided(
        "the writer that has read all partials has no higher version than the other",
        {(combine, "combined_version"): highest_clock},
    ),
    "no sweep of divided groups": _divided(
        "a bucket whose last row was truncated has no row that names it",
        {(ChangeStages, "__init__"): no_sweeps},
    ),
}
