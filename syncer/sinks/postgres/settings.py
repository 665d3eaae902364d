"""The two blocks of the PostgreSQL sink: `Settings` in a read model, `Connection` in the configuration."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from syncer.config.schema import PostgresSettings
from syncer.declaration.names import Pattern, quote
from syncer.errors import Fatal
from syncer.quantities import Seconds, lasting

_NAME = "[a-z_][a-z0-9_]*"
_VIEW = Pattern(rf"^(?!pg_){_NAME}\.{_NAME}$", "schema.name, of lower-case letters, digits and underscores")
_ORDERED = re.compile(r"(.+?)(?:\s+(asc|desc))?(?:\s+nulls\s+(first|last))?", re.IGNORECASE | re.DOTALL)
_LONGEST_NAME = 63
PARTIALS = "_partials"
"""The end of the name of a table with partials."""
_LONGEST = _LONGEST_NAME - len("_000001")
"""The longest name of a view, in bytes. PostgreSQL would cut the name of a longer table."""


class IndexColumn(NamedTuple):
    """A column of an index, with its order as SQL."""

    name: str
    order: str

    @classmethod
    def parse(cls, text: str) -> IndexColumn:
        """Reads `placed_at DESC NULLS LAST`. Every text is a column: a name may contain spaces."""
        match = _ORDERED.fullmatch(text.strip())
        name, direction, nulls = match.groups() if match else (text, None, None)
        return cls(name, f"{direction or ''}{f' NULLS {nulls}' if nulls else ''}".upper())


class Index(BaseModel):
    """An index of the table. It leaves out deleted documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: list[str] = Field(
        min_length=1, description="Fields of the document; each may have an order: placed_at DESC NULLS LAST"
    )
    include: list[str] = Field(default=[], description="Further fields that an index-only scan can return")
    using: Literal["btree", "hash", "gin", "gist", "brin"] = Field(default="btree", description="The access method")

    def parsed(self) -> list[IndexColumn]:
        return [IndexColumn.parse(text) for text in self.columns]


class Settings(BaseModel):
    """Writes each document to a row of a PostgreSQL table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: Annotated[str, _VIEW] = Field(
        description="The view that applications read, as schema.name; the tables behind it are NAME_000001 and so on"
    )
    columns: dict[str, str] = Field(
        default={}, description="Column types that replace the derived ones: total: numeric(12,2)"
    )
    indexes: list[Index] = Field(default=[], description="Indexes of the table")
    tombstone: Annotated[Seconds, lasting(least=1800)] = Field(
        default=3600,
        description="How long the version of a deleted document is kept, such as 1h; at least half an hour",
    )

    @field_validator("table")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value.partition(".")[2]) > _LONGEST:
            raise ValueError(f"the name may have {_LONGEST} characters at most")
        return value

    @property
    def schema_name(self) -> str:
        return self.table.partition(".")[0]

    @property
    def view(self) -> str:
        """The name of the view without its schema."""
        return self.table.partition(".")[2]

    def table_of(self, generation: int) -> str:
        """Returns the name of the table of a generation, without its schema."""
        return f"{self.view}_{generation:06d}"

    def partials_of(self, generation: int) -> str:
        """Returns the name of the table with the partials of a generation, without its schema.

        Raises Fatal if the name is too long. PostgreSQL would cut it.
        """
        name = self.table_of(generation) + PARTIALS
        if (excess := len(name) - _LONGEST_NAME) > 0:
            what = f"the table of partials would have a name of more than {_LONGEST_NAME} characters"
            raise Fatal(what, where=f"postgres:{self.table}", why=name, hint=f"shorten `table` by {excess} characters")
        return name

    def quoted(self, relation: str) -> str:
        """Returns a relation of the sink's schema as SQL."""
        return quote(self.schema_name, relation)


class Connection(PostgresSettings):
    """The PostgreSQL server with the tables of the sink `postgres`. It needs a role and a schema of its own."""

    section: ClassVar[str] = "postgres_sink"

    password: SecretStr | None = Field(
        default=None, description="Password; overrides the password in the connection string"
    )
    statement_timeout: Seconds = Field(
        default=60,
        description="Cancel a statement that runs longer (seconds)",
    )
    application_name: str = Field(default="syncer-sink", description="Name shown in pg_stat_activity")
