"""Reads one root from PostgreSQL for `syncer trace`: its document, the rows linked to it, and links that lead to it."""

from __future__ import annotations

from collections.abc import Collection

from syncer.declaration.trace_sql import TracedUse, TraceSql, trace_sql
from syncer.document import document_id
from syncer.errors import Reject
from syncer.events import Key, Values
from syncer.operations.trace.report import Rendered
from syncer.ports import Overflow, Rows, View
from syncer.registry.loader import LoadedModel


class TracedRoot:
    """One root of a compiled read model.

    text: the key as the operator typed it.
    Raises Reject if PostgreSQL cannot convert the key to the types of its columns.
    """

    def __init__(self, loaded: LoadedModel, rows: Rows, text: Key) -> None:
        self.loaded, self._rows = loaded, rows
        self.sql: TraceSql = trace_sql(loaded.model, loaded.catalog, loaded.compiled)
        with rows.view() as view:
            [self.key] = view.look_up(self.sql.key, [text])
            if not loaded.compiled.group:
                for key in view.look_up(self.sql.uses[0].rows, [self.key]):
                    self.key = key  # an equal key may have another text, such as 1.00 for 1.0

    @property
    def id(self) -> str:
        """The id of its document."""
        return document_id(self.key)

    def leading(self, one: TracedUse, values: Collection[Values]) -> set[Values]:
        """See `changes.Leading`."""
        if one.leading is None:
            return set()
        with self._rows.view() as view:
            return set(view.look_up(one.leading, [(*value, *self.key) for value in values]))

    def render(self, now_ms: int) -> Rendered:
        """Returns the document and the linked rows, in one snapshot."""
        with self._rows.view() as view:
            rows = {one.use.path: sorted(view.look_up(one.rows, [self.key])) for one in self.sql.uses}
            body, error = _render(view, self.key)
            head = view.head
        return Rendered(bool(rows[""]), body, error, head.snapshot, head.identity, now_ms, rows)

    def close(self) -> None:
        self._rows.close()


def _render(view: View, key: Key) -> tuple[bytes | None, str]:
    """Returns the document, or why it cannot be rendered."""
    try:
        [row] = view.render([key])
    except Reject as error:
        return None, error.detail
    except Overflow as error:
        return None, str(error)
    return row.body, ""
