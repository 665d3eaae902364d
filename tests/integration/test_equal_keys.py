"""Keys that are equal but have different texts: one document, under the current text of its row."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from tests.harness.system import System
from tests.harness.waiting import until

ODD = """
name: {prefix}-odd
root: {{table: {schema}.odd}}
document:
  note: note
  kids: {{many: {schema}.kids, on: {{odd: id}}, order_by: n, value: n}}
sink: {{redis: {{key: "{prefix}:odd:{{id}}"}}}}
"""
TABLES = (
    "CREATE COLLATION {schema}.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "CREATE TABLE {schema}.odd (id TYPE PRIMARY KEY, note text)",
    "CREATE TABLE {schema}.kids (n int PRIMARY KEY, odd TYPE REFERENCES {schema}.odd ON UPDATE CASCADE)",
    "CREATE INDEX ON {schema}.kids (odd)",
    "ALTER TABLE {schema}.kids REPLICA IDENTITY FULL",
)


@pytest.mark.parametrize(
    ("type_", "one", "other", "third"),
    [
        ("numeric", "1.0", "1.00", "2"),
        ("text COLLATE {schema}.ci", "abc", "ABC", "b"),
        ("char(5)", "ab", "ab   ", "c"),
        ("timestamptz", "2024-02-29 12:00:00+02", "2024-02-29 10:00:00+00", "2024-03-01 00:00:00+00"),
    ],
)
def test_hazard_25_keys_that_are_equal_but_differ_in_text(
    system: System, type_: str, one: str, other: str, third: str
) -> None:
    system.execute(*(statement.replace("TYPE", type_) for statement in TABLES))
    system.declare("odd", ODD)
    daemon = system.start(f"{system.prefix}-odd")

    def written() -> dict[str, Any]:
        with redis.Redis.from_url(system.redis) as client:
            keys: Any = list(client.scan_iter(f"{system.prefix}:odd:*", count=1000))
            values: Any = client.mget(keys) if keys else []
        return {k.decode().split(":odd:")[1]: json.loads(v) for k, v in zip(keys, values, strict=True) if v}

    def until_in_sync() -> None:
        query = f"""
            SELECT o.id::text, json_build_object('note', o.note, 'kids', coalesce(
                   (SELECT json_agg(k.n ORDER BY k.n) FROM {system.schema}.kids k WHERE k.odd = o.id), '[]'))
              FROM {system.schema}.odd o"""
        expected = dict(system.database.query(query))
        until(lambda: written() == expected, lambda: f"{written()} {expected}\n{daemon.log.read_text()}")

    system.execute(
        f"INSERT INTO {{schema}}.odd VALUES ('{one}', 'first'), ('{third}', 'third')",
        f"INSERT INTO {{schema}}.kids VALUES (1, '{other}'), (2, '{one}')",
    )
    until_in_sync()
    system.execute(f"INSERT INTO {{schema}}.kids VALUES (3, '{other}')")  # the event contains the other text
    until_in_sync()
    for new, old in ((other, one), (one, other)):
        system.execute(f"UPDATE {{schema}}.odd SET id = '{new}', note = 'now {new}' WHERE id = '{old}'")
        until_in_sync()
    system.execute(f"UPDATE {{schema}}.kids SET odd = '{third}' WHERE odd = '{other}'")
    until_in_sync()
    system.execute(
        f"DELETE FROM {{schema}}.odd WHERE id = '{one}'",
        f"INSERT INTO {{schema}}.odd VALUES ('{other}', 'again')",
    )
    until_in_sync()
    system.execute(f"DELETE FROM {{schema}}.odd WHERE id = '{one}'")
    until_in_sync()
    assert len(written()) == 1
    assert system.dead_letters(f"{system.prefix}-odd") == []
