"""Defines a compiled read model: plain values that the pipeline and the adapters of the servers work with.

`compile.py` creates them. SQL parameters are text arrays, one for each key column. The statement casts them, so that
a key is transported as the text that PostgreSQL wrote or will accept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from syncer.declaration.catalog import SortColumn
from syncer.events import TableName

LIST = "[]"
"""Ends the type of an array in `Lookup.types`."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Finds the roots whose documents show a row of one table."""

    columns: tuple[str, ...]
    """The columns of the changed row whose values are looked up: its side of the link to its parent."""
    types: tuple[str, ...]
    """The type families of these columns (`sql_types.family`). They determine how values in events are encoded. For an
    array, that of its elements and `[]`: each element is a value that is looked up."""
    sql: str | None
    """Takes one text[] for each column (`%s` placeholders). Returns the distinct root keys, one text column for each
    key column. None if the values themselves are the root keys, in key order."""
    nulls: bool = False
    """Whether a row with a NULL among these values can belong to a root. A NULL in a link never does."""

    @property
    def array(self) -> str:
        """The column that is an array. Empty if none is. A link has at most one."""
        return next((name for name, type in zip(self.columns, self.types, strict=True) if type.endswith(LIST)), "")


@dataclass(frozen=True, slots=True)
class Climb:
    """The path from a row to its ancestors in a tree (`up`)."""

    step: tuple[tuple[str, str], ...]
    """The link from an ancestor to the next one, as pairs: (column of the upper row, column of the lower row)."""
    limit: int
    """The greatest number of ancestors."""
    farthest_first: bool
    starts_in_tree: bool
    """Whether the outer row is a row of the tree, and links to its first ancestor as all rows do. Then a path that
    comes back to the outer row is a cycle."""


@dataclass(frozen=True, slots=True)
class Ancestors:
    """A climb, and the statements that find cycles in its tree."""

    climb: Climb
    cycles: str
    """Takes the values of the look-up. Returns one text for each value whose row is an ancestor of itself, such as
    `3 → 7 → 3`."""
    search: str
    """Takes nothing. Searches the whole tree. Returns one row: the number of rows on a cycle or below one, the number
    of rows whose path is longer than the limit, and the length of the longest path."""
    sample: str
    """Takes nothing. Returns the keys on the path from one of the rows that `search` counts, to the first repeated
    key, as one text array."""


@dataclass(frozen=True, slots=True)
class TableUse:
    """One use of a table in the tree of relations. A table that is used twice has two of them."""

    path: str
    """The dotted names of the relations from the root, such as `items.product`. Empty for the root."""
    table: TableName
    lookup: Lookup | None
    """None for the root itself, whose key needs no look-up. A grouped root has one: from a row to its group."""
    used: frozenset[str]
    """The columns whose values can change a document, including those of filters, orders, links and keys. A generated
    column is replaced by its inputs. A change of other columns needs no render."""
    comparable: frozenset[str]
    """The columns of `used` whose before and after image can be compared reliably. This needs a lossless type and
    REPLICA IDENTITY FULL on every leaf. If a used column is missing here, every change leads to a render. An array is
    here only if nothing but links uses it."""
    parent: TableName | None = None
    """The table that this table is linked to. None for the root."""
    parent_columns: tuple[str, ...] = ()
    """The parent's side of the link. The parent is searched by these columns when a row of this table changes."""
    needs_before: bool = False
    """Whether every update has to carry a before image. An update without one was then logged under a weaker replica
    identity, and may hide the root that the row left. True if the link is not part of the primary key, and the identity
    is FULL on every leaf. (With an index as identity, PostgreSQL omits the image if no column of the index changed.)"""
    ancestors: Ancestors | None = None
    """Set if the rows are the ancestors of a row in a tree."""
    through: str = ""
    """The dotted name of the relation that the link goes through. Empty if the link is to the outer row."""
    listed_by: tuple[SortColumn, ...] | None = None
    """The order of a list with a limit that is linked through other relations. An index should provide it for each
    link value. Empty if it is not an order by columns of this table alone. None for all other uses."""
    condition: str = ""
    """The condition over the parent's row (`when`), as declared."""
    fixed: frozenset[str] = frozenset()
    """Columns of this table that `where` fixes to a constant."""
    parent_fixed: frozenset[str] = frozenset()
    """Columns of the parent that `condition` fixes to a constant. The look-up compares them, too."""

    by_array: str = ""
    """The pair of the link that compares the elements of an array, such as `id = any(child_ids)`. Usually empty."""
    moves_only: bool = False
    """Whether a change of the link's array moves the row between documents, and changes nothing in them."""
    ops: str = ""
    """The operations of change events that affect this use, such as `cd`. Empty: all of them."""

    @property
    def is_root(self) -> bool:
        return not self.path


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the document. Sinks use it to derive mappings, and to validate those of the user."""

    name: str
    type: str
    """The type of one value, as in `Column.base`. `object` if it has `fields`, `unknown` if only PostgreSQL knows."""
    many: bool
    """Whether the field is a list."""
    fields: tuple[Field, ...] = ()


class GroupColumn(NamedTuple):
    """A group expression of a grouped root."""

    name: str
    text: str
    """The expression as the declaration writes it."""
    sql: str
    """The expression over the columns of the table, as an index can have it."""
    column: str
    """The column that is the whole expression; empty if it is more than a column."""
    bounded: str
    """The column that has bounds for each value of the expression (`group_span.py`); empty if there is none."""
    parts: tuple[tuple[str, str], ...] = ()
    """The text and the SQL of its parts. The whole expression is the last one. Empty for a column."""
    local: tuple[str, str] | None = None
    """The text and the SQL of the expression over local times instead of instants (`group_parts.py`)."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A read model that is ready to run.

    Its statements set no session parameters and rely on those that `postgres/session.py` sets.
    """

    name: str
    root: TableName
    key: tuple[str, ...]
    """The primary key columns of the root, or the names of its group expressions."""
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
    canonical_keys: str
    """Takes one text[] for each key column. Returns the keys in the same order, as PostgreSQL writes them: one text
    column for each key column. `007` becomes `7` if the column is an integer."""
    hash: str
    """Changes when documents have to be rebuilt by a resync. `compile.py` computes it from the renderer version, the
    declaration and the order of the document's fields. The root's key columns, with their type families, count too."""

    keys_between: str = ""
    """Takes a low key and a high key. Returns the keys with low < key <= high, in key order, as text columns."""
    keys_upto: str = ""
    """Takes a high key. Returns the keys with key <= high, in the same form."""
    first_keys: str = ""
    """Takes a number n. Returns the first n keys, in the same form."""
    group: tuple[GroupColumn, ...] = ()
    """The group expressions in key order. Empty if each row of the root is a document."""
    min_interval: float = 0.0
    """Seconds between two renders of a root because of changes. 0: no root is delayed."""
    partials: Partials | None = None
    """The partials that documents are combined from. None if one statement renders a document."""

    @property
    def rendered(self) -> Compiled:
        """The read model that lanes render: that of the partials, if there are any."""
        return self.partials.parts if self.partials else self

    @property
    def root_lookup(self) -> Lookup:
        """For a row of a root that is no group: its link values are the key itself."""
        return Lookup(self.key, self.key_types, None)

    @property
    def tables(self) -> frozenset[TableName]:
        return frozenset(o.table for o in self.table_uses)

    @property
    def lookup_levels(self) -> int:
        """How many moved rows can hide each other from look-ups (`freshness/watermark.py`).

        A look-up reads the tables between the changed row and the root. A row of them that moved meanwhile hides a
        root. The event of that row leads to a look-up that reads fewer tables, or to none. In a tree, rows of the same
        table can hide each other any number of times; only two of them count.
        """
        uses = {use.path: use for use in self.table_uses}

        def level(use: TableUse) -> int:
            if use.lookup is None or use.lookup.sql is None or use.is_root:
                return 0
            above = [*_prefixes(use.path)[:-1], *_prefixes(use.through)]
            return 1 + max(level(uses[path]) for path in above) + (use.ancestors is not None)

        levels = [level(use) for use in self.table_uses]
        return max(*levels, int(self.partials is not None))  # a root row looks up which buckets have rows


def _prefixes(path: str) -> list[str]:
    """Returns the paths from the root to this one: `a.b` → `""`, `a`, `a.b`."""
    parts = path.split(".") if path else []
    return [".".join(parts[:n]) for n in range(len(parts) + 1)]


class SortKey(NamedTuple):
    """How to compare one value of an order (`sort_keys.py`)."""

    is_uuid: bool = False
    descending: bool = False
    nulls_first: bool = False


class CombinedField(NamedTuple):
    """A field of a document that is combined from partials."""

    name: str
    function: str
    """The aggregate that is combined from the buckets. Empty if the root partial has the field."""
    at: int
    """The index of its first state in the partial of a bucket (`partial_states.py`)."""
    order: tuple[SortKey, ...] = ()
    """The order of the rows, for a list and for `first`."""
    limit: int = 0
    """The maximum length of a list."""


@dataclass(frozen=True, slots=True)
class Partials:
    """How documents are divided into partials, and combined from them (`declaration/partials.py`)."""

    parts: Compiled
    """A read model whose documents are the partials. Its key is the root's key and the number of the bucket."""
    fields: tuple[CombinedField, ...]
    """All fields of a document, in their order."""
    every: Lookup
    """From the key of a root to the keys of its partials: the root partial, and the buckets that have rows."""
    relation: str
    """The dotted name of the relation that is divided."""
    table: TableName
    link: tuple[str, ...]
    """The relation's side of the link, in the order of the root's key. An index on it and `by` leads to a bucket.

    For a grouped root, the group expressions without bounds (`GroupColumn.bounded`)."""
    by: str
    """The column that is divided into buckets."""
    size: int | timedelta
    """The number of values of `by` in a bucket, or the span of time."""
