"""Finds the column that a field depends on. `check` concludes from it which numbers the field has."""

from __future__ import annotations

import pytest

from syncer.declaration.compile import compile
from syncer.declaration.field_source import FieldSource, field_source
from syncer.declaration.model import parse
from tests.harness.catalogs import catalog, table

TABLES = catalog(
    table("games", "id bigint key, played_ns bigint, at timestamptz, team_id bigint, level int"),
    table("teams", "id bigint key, points numeric"),
    table("moves", "id bigint key, game_id bigint, score bigint"),
)
TEXT = """
name: games
root: {table: games}
relations: {moves: {many: moves, on: {game_id: id}}}
document:
  played: played_ns
  micros: played_ns / 1000
  seconds: extract(epoch from at)
  bounded: least(played_ns, 9007199254740992)
  again: played_ns - played_ns % 10
  both: played_ns + level
  constant: 7
  best: max(moves.score)
  of_team: team.points * 2
  team: {one: teams, on: {id: team_id}, document: {points: points}}
  points: {one: teams, on: {id: team_id}, value: points}
  home: {object: {played: played_ns, team: {one: teams, on: {id: team_id}, document: {points: points}}}}
  scores: {many: moves, on: {game_id: id}, value: score}
sink: {m: {}}
"""


def source(field: str, text: str = TEXT) -> FieldSource | None:
    model = parse(text, "m.yaml")
    compile(model, TABLES)
    return field_source(model, TABLES, field)


@pytest.mark.parametrize(
    ("field", "column", "sql", "every_row"),
    [
        ("played", "games.played_ns", "v.played_ns", True),
        ("micros", "games.played_ns", "(v.played_ns / 1000)", True),
        ("seconds", "games.at", "", True),
        ("bounded", "games.played_ns", "", True),
        ("again", "games.played_ns", "(v.played_ns - (v.played_ns % 10))", True),
        ("home.played", "games.played_ns", "v.played_ns", True),
        # another row than the root: not every row of the table belongs to a document
        ("of_team", "teams.points", "(v.points * 2)", False),
        ("team.points", "teams.points", "v.points", False),
        ("points", "teams.points", "v.points", False),
        ("home.team.points", "teams.points", "v.points", False),
    ],
)
def test_a_field_over_one_column_has_a_source(field: str, column: str, sql: str, every_row: bool) -> None:
    found = source(field)
    assert found is not None
    assert f"{found.table.name.name}.{found.column.name}" == column
    assert found.sql.replace('"', "") == (sql or found.sql.replace('"', ""))
    assert found.every_row is every_row


@pytest.mark.parametrize("field", ["both", "constant", "best", "scores", "team", "missing", "played.more"])
def test_a_field_over_no_column_or_several_rows_or_columns_has_none(field: str) -> None:
    assert source(field) is None


def test_with_a_filter_not_every_row_has_a_document() -> None:
    found = source("played", TEXT.replace("relations:", "where: level > 3\nrelations:", 1))
    assert found is not None and not found.every_row


def test_a_group_of_rows_has_the_column_that_it_is_grouped_by() -> None:
    text = """
name: levels
root: {table: games, group: {level: level, day: "date_trunc('day', at, 'UTC')"}, nulls: drop}
document: {level: level, day: day, games: count(id), latest: max(played_ns)}
sink: {m: {}}
"""
    found = source("level", text)
    assert found is not None and found.column.name == "level"
    assert not found.every_row, "a row without a day belongs to no group"
    assert [source(field, text) for field in ("day", "games", "latest")] == [None] * 3
