"""Finds the changes in Kafka that reached one root, for `syncer trace`.

The change topics are read by depth: first the root table, then the tables that are linked to it, and so on. A change
reached the root if one of its row images holds link values that lead to this root:

- now, in PostgreSQL: the row is linked to the root, or it would be if it had the values of this image. So a child that
  left the root or was deleted is found by its image before the change.
- earlier, in Kafka: another image shows that the row's parent belonged to the root. So the change of a product is found
  although the order item has another product now.

All partitions are read. The partition of a row's key cannot be used: the key of a child that left the root or was
deleted is unknown, and a connector can have another partitioner.

The module does no I/O. The caller passes the records and runs the statements.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from syncer.declaration.compiled import Compiled, Lookup
from syncer.declaration.trace_sql import TracedUse
from syncer.errors import Fatal, Reject
from syncer.events import ChangeEvent, Image, Key, Position, TableName, Values
from syncer.pipeline import decode
from syncer.pipeline.resolve import link_values
from syncer.pipeline.route import Route
from syncer.ports import Record

KEPT = 1000
"""Changes that are kept: the newest ones."""

Side = Literal["before", "after"]
Leading = Callable[[TracedUse, Collection[Values]], set[Values]]
"""Returns those of the link values of a table use that lead to the root in PostgreSQL now (`TracedUse.leading`)."""


@dataclass(frozen=True, slots=True)
class Reach:
    """One way in which a change reached the root."""

    path: str
    """Of the table use; empty for the root."""
    columns: tuple[str, ...]
    """The columns that link the row to its parent."""
    images: tuple[Side, ...]
    """The row images that lead to the root. Both are empty for a truncate."""
    earlier: bool
    """Whether the link exists in Kafka only, and no longer in PostgreSQL."""
    touches: bool
    """Whether the change may change the document. False if it changes no column that the document uses."""


@dataclass(slots=True)
class FoundChange:
    """A change that reached the root, and how."""

    position: Position
    arrived_ms: int
    """When Kafka got it, milliseconds since the Unix epoch."""
    change: ChangeEvent
    key: Key
    """The primary key of the changed row; empty for a truncate."""
    reaches: list[Reach] = field(default_factory=list)

    @property
    def touches(self) -> bool:
        return any(reach.touches for reach in self.reaches)

    @property
    def at_ms(self) -> int:
        """The commit time. Rows of a connector's snapshot have none: the time of arrival then."""
        return self.change.committed_ms or self.arrived_ms


class Changes:
    """Collects the changes that reached one root. Call `add` for every depth, beginning with 0.

    key: the root's key, as PostgreSQL writes it.
    """

    def __init__(self, compiled: Compiled, uses: Sequence[TracedUse], key: Key, leading: Leading) -> None:
        self._route, self._uses, self._key, self._leading = Route(compiled), uses, key, leading
        self._keys: Mapping[TableName, tuple[str, ...]] = {one.use.table: one.key for one in uses}
        self._earlier: dict[str, set[Values]] = {one.use.path: set() for one in uses}
        self.found: dict[Position, FoundChange] = {}
        self.omitted = 0
        """Older changes that were found and not kept."""
        self.unreadable: set[Position] = set()
        """Records that are no change events, or that lack a column."""

    @property
    def depths(self) -> int:
        """The number of depths: 1 for a read model without relations."""
        return 1 + max(one.depth for one in self._uses)

    def tables(self, depth: int) -> set[TableName]:
        """Returns the tables that are used at this depth."""
        return {one.use.table for one in self._uses if one.depth == depth}

    def add(self, depth: int, records: Iterable[tuple[Record, int]]) -> None:
        """Adds the changes of the tables at this depth. All records of smaller depths have to be added before."""
        changes = []
        for record, arrived_ms in records:
            try:
                change = decode.change(record.position, record.value)
            except Reject:
                self.unreadable.add(record.position)
                continue
            if change is not None:
                changes.append((record.position, arrived_ms, change))
        for one in self._uses:
            if one.depth == depth:
                self._match(one, [entry for entry in changes if entry[2].table == one.use.table])
        self._forget()

    def _match(self, one: TracedUse, changes: Sequence[tuple[Position, int, ChangeEvent]]) -> None:
        """Adds the changes of one table use."""
        linked = []
        for position, arrived_ms, change in changes:
            if change.op == "t":
                self._add_reach(position, arrived_ms, change, _reach(one, (), earlier=False, touches=True))
                continue
            try:
                linked.append((position, arrived_ms, change, self._linked(one.link, change)))
            except Fatal:
                self.unreadable.add(position)
        asked = dict.fromkeys(value for *_, images in linked for values in images.values() for value in values)
        now: set[Values] = {self._key} if one.by_key else set()
        if one.leading and asked:
            now |= self._leading(one, asked)
        earlier = self._earlier[one.use.path]
        known = -1
        while known < len(earlier):  # an ancestor in a tree can reveal an earlier ancestor of the same table use
            known = len(earlier)
            self._add_linked(one, linked, now)
            if one.step_link is None:
                return

    def _add_linked(
        self,
        one: TracedUse,
        linked: Sequence[tuple[Position, int, ChangeEvent, Mapping[Side, list[Values]]]],
        now: Collection[Values],
    ) -> None:
        """Adds the changes whose links lead to the root now, or did earlier."""
        earlier = self._earlier[one.use.path]
        for position, arrived_ms, change, images in linked:
            sides = tuple(side for side, values in images.items() if any(v in now or v in earlier for v in values))
            if not sides:
                continue
            touches = any(use.path == one.use.path for use in self._route(change))
            is_earlier = not any(value in now for side in sides for value in images[side])
            reach = _reach(one, sides, earlier=is_earlier, touches=touches)
            self._add_reach(position, arrived_ms, change, reach)
            self._remember_links(one, change, sides)

    def _linked(self, link: Lookup, change: ChangeEvent) -> dict[Side, list[Values]]:
        """Returns the link values of the images that have some."""
        found = {side: link_values(image, link, change) for side, image in _images(change).items()}
        return {side: values for side, values in found.items() if values}

    def _remember_links(self, one: TracedUse, change: ChangeEvent, sides: Sequence[Side]) -> None:
        """Remembers the links to the next depth that a row of this root had."""
        if one.step_link is not None:
            images = self._linked(one.step_link, change)
            self._earlier[one.use.path].update(value for side in sides for value in images.get(side, ()))
        for child in self._uses:
            if child.parent == one.use.path and child.parent_link is not None:
                images = self._linked(child.parent_link, change)
                self._earlier[child.use.path].update(value for side in sides for value in images.get(side, ()))

    def _add_reach(self, position: Position, arrived_ms: int, change: ChangeEvent, reach: Reach) -> None:
        """Adds a way to the root. A record may come twice, if an earlier attempt to read the topics failed."""
        found = self.found.get(position)
        if found is None:
            image = change.after or change.before or {}
            key = () if change.op == "t" else tuple(str(image.get(c)) for c in self._keys[change.table])
            found = self.found[position] = FoundChange(position, arrived_ms, change, key)
        if all(other.path != reach.path for other in found.reaches):
            found.reaches.append(reach)

    def _forget(self) -> None:
        """Keeps the newest changes only."""
        if len(self.found) > 2 * KEPT:
            newest = self.in_order()[-KEPT:]
            self.omitted += len(self.found) - len(newest)
            self.found = {found.position: found for found in newest}

    def in_order(self) -> list[FoundChange]:
        """Returns the changes in the order of their commits, as far as their times tell."""
        return sorted(self.found.values(), key=lambda found: (found.at_ms, found.position))


def _images(change: ChangeEvent) -> dict[Side, Image]:
    images: dict[Side, Image | None] = {"before": change.before, "after": change.after}
    return {side: image for side, image in images.items() if image is not None}


def _reach(one: TracedUse, sides: tuple[Side, ...], *, earlier: bool, touches: bool) -> Reach:
    return Reach(one.use.path, one.link.columns, sides, earlier, touches)
