"""The sink of one read model in a database of PostgreSQL, with a role that has the documented privileges only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from syncer import sinks
from syncer.declaration.compile import Compiled, Field
from syncer.document import Batch
from syncer.sinks.postgres import Connection, Settings
from syncer.sinks.postgres.sink import PostgresSink
from tests.contracts.sinks import FIELDS, compiled

WIDER = (*FIELDS, Field("added", "text", many=False))
OTHER = (Field("n", "text", many=False), *FIELDS[1:])


@dataclass
class Reads:
    """A database with the schema `read`, and the sink of one read model in it."""

    dsn: str
    """Of the role of the sink."""
    admin: psycopg.Connection[Any]
    """A session of the superuser in the same database."""

    @property
    def role(self) -> str:
        return str(conninfo_to_dict(self.dsn)["user"])

    def sink(
        self, fields: tuple[Field, ...] = FIELDS, *, generation: int = 1, dsn: str = "", **block: Any
    ) -> PostgresSink:
        """Returns a sink that is not prepared. Another set of fields has another hash."""
        found = sinks.build(
            "postgres",
            {"table": "read.things", **block},
            model=self.model(fields),
            connection={"dsn": dsn or self.dsn},
            epoch=generation,
            generation=generation,
        )
        assert isinstance(found, PostgresSink)
        return found

    @staticmethod
    def model(fields: tuple[Field, ...] = FIELDS) -> Compiled:
        return compiled("things", fields, hash="".join(f"{field.name}.{field.type};" for field in fields))

    def trial(self, fields: tuple[Field, ...] = FIELDS, **block: Any) -> list[sinks.Problem]:
        module = sinks.find("postgres")
        settings = Settings.model_validate({"table": "read.things", **block})
        return module.trial(Connection(dsn=self.dsn), settings, self.model(fields))

    def preflight(self, dsn: str = "", table: str = "read.things") -> list[str]:
        found = sinks.find("postgres").preflight(Connection(dsn=dsn or self.dsn), [Settings(table=table)])
        return [str(error) for error in found]

    def execute(self, *statements: str) -> None:
        for statement in statements:
            self.admin.execute(statement.encode())

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return self.admin.execute(statement.encode()).fetchall()

    def names(self) -> list[str]:
        """Returns the values of `name` that applications see."""
        return [name for (name,) in self.query("SELECT name FROM read.things ORDER BY 1")]


@contextmanager
def prepared(sink: PostgresSink, documents: Mapping[str, str] | None = None) -> Iterator[PostgresSink]:
    """Prepares a sink, writes documents with these names, and closes it."""
    with closing(sink):
        sink.prepare()
        bodies = {id: json.dumps({"n": 1, "name": name}).encode() for id, name in (documents or {}).items()}
        assert sink.write(Batch(1 << 48, bodies, [])).written == len(bodies)
        yield sink
