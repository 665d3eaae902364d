"""Defines `Finding`, and quotes names for the SQL statements that findings suggest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from syncer.errors import Retry
from syncer.events import TableName

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class NewIndex:
    """An index that does not exist yet. `str` returns the statement that creates it."""

    table: TableName
    keys: tuple[str, ...]
    """Columns and expressions as SQL, with their directions."""
    using: str = ""
    """The access method; empty for a B-tree."""
    concurrently: bool = True
    """Whether its creation does not block writes. PostgreSQL cannot do this for a partitioned table."""

    def __str__(self) -> str:
        concurrently, using = " CONCURRENTLY" if self.concurrently else "", f" USING {self.using}" if self.using else ""
        return f"CREATE INDEX{concurrently} ON {quote_table(self.table)}{using} ({', '.join(self.keys)});"

    def covers(self, other: NewIndex) -> bool:
        """Returns whether this index also serves the searches of the other one, whose keys are its first keys."""
        is_prefix = self.keys[: len(other.keys)] == other.keys and len(self.keys) > len(other.keys)
        return is_prefix and (self.table, self.using, other.using) == (other.table, "", "")


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, with its cause and its fix.

    error: documents would be wrong, or the application would fail. Do not start the daemon.
    warning: documents are right, but the setup is slow or fragile.
    note: good to know.
    """

    severity: Severity
    code: str
    """A stable identifier in lower case with dashes, for programs and the documentation."""
    where: str
    """The file, table, column or setting."""
    what: str
    why: str = ""
    fix: str = ""
    """What to run or to write. One SQL statement or command on each line; SQL ends with a semicolon."""
    index: NewIndex | None = None
    """The index that `fix` creates, if it does nothing else."""

    def __str__(self) -> str:
        text = f"{self.severity}: {self.where}: {self.what}"
        if self.why:
            text += f" ({self.why})"
        return text + "".join(f"\n  → {line}" for line in self.fix.splitlines())

    @property
    def reason(self) -> str:
        """The finding in the format of an error, as the reason why a read model waits."""
        return str(Retry(self.what, where=self.where, why=self.why, hint=self.fix.replace("\n", " ")))


_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")

# Reserved key words, including those that are allowed as function or type names (PostgreSQL manual, appendix C).
_RESERVED = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate
    collation column concurrently constraint create cross current_catalog current_date current_role
    current_schema current_time current_timestamp current_user default deferrable desc distinct do else end
    except false fetch for foreign freeze from full grant group having ilike in initially inner intersect
    into is isnull join lateral leading left like limit localtime localtimestamp natural not notnull null
    offset on only or order outer overlaps placing primary references returning right select session_user
    similar some symmetric system_user table tablesample then to trailing true union unique user using
    variadic verbose when where window with
    """.split()
)


def quote(name: str) -> str:
    """Returns an SQL identifier, in double quotes if it needs them."""
    if _PLAIN.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def quote_table(table: TableName) -> str:
    """Returns the qualified table name; each part is quoted if it needs quotes."""
    return f"{quote(table.schema)}.{quote(table.name)}"


def quote_list(names: Iterable[str]) -> str:
    """Returns the identifiers, separated by commas."""
    return ", ".join(map(quote, names))
