"""Defines a compiled read model: plain values that the pipeline and the adapters of the servers work with.

`compile.py` creates them. SQL parameters are text arrays, one for each key column. The statement casts them, so that
a key is transported as the text that PostgreSQL wrote or will accept.
"""

from __future__ import annotations

from dataclasses import dataclass

from syncer.events import TableName


@dataclass(frozen=True, slots=True)
class Lookup:
    """Finds the roots whose documents show a row of one table."""

    columns: tuple[str, ...]
    """The columns of the changed row whose values are looked up: its side of the link to its parent."""
    types: tuple[str, ...]
    """The type families of these columns (`sql_types.family`). They determine how values in events are encoded."""
    sql: str | None
    """Takes one text[] for each column (`%s` placeholders). Returns the distinct root keys, one text column for each
    key column. None if the values themselves are the root keys, in key order."""


@dataclass(frozen=True, slots=True)
class TableUse:
    """One use of a table in the tree of relations. A table that is used twice has two of them."""

    path: str
    """The dotted names of the relations from the root, such as `items.product`. Empty for the root."""
    table: TableName
    lookup: Lookup | None
    """None for the root itself, whose key needs no look-up."""
    used: frozenset[str]
    """The columns whose values can change a document, including those of filters, orders, links and keys. A generated
    column is replaced by its inputs. A change of other columns needs no render."""
    comparable: frozenset[str]
    """The columns of `used` whose before and after image can be compared reliably. This needs a lossless type and
    REPLICA IDENTITY FULL on every leaf. If a used column is missing here, every change leads to a render."""
    parent: TableName | None = None
    """The table that this table is linked to. None for the root."""
    parent_columns: tuple[str, ...] = ()
    """The parent's side of the link. The parent is searched by these columns when a row of this table changes."""
    needs_before: bool = False
    """Whether every update has to carry a before image. An update without one was then logged under a weaker replica
    identity, and may hide the root that the row left. True if the link is not part of the primary key, and the identity
    is FULL on every leaf. (With an index as identity, PostgreSQL omits the image if no column of the index changed.)"""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the document. Sinks use it to derive mappings, and to validate those of the user."""

    name: str
    type: str
    """The type of one value, as in `Column.base`. `object` if it has `fields`, `unknown` if only PostgreSQL knows."""
    many: bool
    """Whether the field is a list."""
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """A read model that is ready to run.

    Its statements set no session parameters and rely on those that `postgres/session.py` sets.
    """

    name: str
    root: TableName
    key: tuple[str, ...]
    """The primary key columns of the root."""
    key_types: tuple[str, ...]
    """The type families of the key columns."""
    table_uses: tuple[TableUse, ...]
    """All uses of tables. The root is first, and parents precede their children."""
    fields: tuple[Field, ...]
    render: str
    """Takes one text[] for each key column. Returns one row for each requested key: the requested id, the id of the
    row or NULL, and the document or NULL. Both ids have the form of `document.document_id`."""
    render_between: str
    """Takes a low key and a high key, one text value for each column. Returns such rows for low < key <= high."""
    render_upto: str
    """Takes a high key. Returns such rows for key <= high."""
    boundaries: str
    """Takes the number n of rows in a range. Returns the key, as text columns, of every n-th row in key order, and of
    the last row."""
    hash: str
    """Changes when documents have to be rebuilt by a resync. `compile.py` computes it from the renderer version, the
    declaration and the order of the document's fields. The root's key columns, with their type families, count too."""

    @property
    def tables(self) -> frozenset[TableName]:
        return frozenset(o.table for o in self.table_uses)
