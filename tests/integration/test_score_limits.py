"""`syncer check` finds scores that Redis would round, from an index or the statistics, and never reads a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import devstack
from syncer.checks import Finding
from syncer.cli.run_checks import run_checks
from syncer.config.schema import load as load_config
from tests.harness import Database
from tests.harness.settings import environment

MOST = 1 << 53
SCHEMA = (
    'CREATE TABLE games (id bigint PRIMARY KEY, ns bigint, "Value" numeric, far float8, at timestamptz)',
    "INSERT INTO games SELECT n, n, n, n, to_timestamp(n) FROM generate_series(1, 999) n",
)
BOARD = """\
name: games
root: {{table: public.games}}
document:
  points: {expression}
sink:
  redis:
    key: game:{{id}}
    indexes:
      - sorted_set: {{key: "board", score: points}}
"""
Check = Callable[[str], list[Finding]]


@pytest.fixture
def games(database: Database) -> Database:
    database.execute(*SCHEMA)
    return database


@pytest.fixture
def check(stack: devstack.Stack, games: Database, tmp_path: Path) -> Check:
    """Returns a function from the expression of the score to the findings about it."""
    (tmp_path / "models").mkdir()
    names = {"topic_prefix": "limits", "group_prefix": "limits", "state_topic": "limits.state"}
    config = load_config(environ=environment(stack, games, tmp_path, **names))

    def run(expression: str) -> list[Finding]:
        (tmp_path / "models" / "games.yaml").write_text(BOARD.format(expression=expression))
        report = run_checks(config, live=False)
        assert [loaded.name for loaded in report.loaded] == ["games"]
        return [finding for finding in report.all() if finding.code in ("number-limit", "sink", "declaration")]

    return run


def test_an_index_shows_the_values_that_rows_have_now(games: Database, check: Check) -> None:
    games.execute("CREATE INDEX games_ns ON games (ns DESC)", f"INSERT INTO games VALUES (1000, {MOST})")
    assert check("ns") == []
    games.execute(f"UPDATE games SET ns = {-MOST - 1} WHERE id = 1000")
    [finding] = check("ns")
    assert finding.severity == "error" and finding.where.endswith("games.yaml:9: redis")
    assert f"points is {-MOST - 1} for a row of public.games with ns = {-MOST - 1}" in finding.what
    assert finding.what.endswith("as the index games_ns shows")
    assert check("ns / 10") == [] and len(check("ns * 10")) == 1
    games.execute("DELETE FROM games WHERE id = 1000")
    assert check("ns") == []


def test_statistics_show_values_and_the_table_is_not_read(games: Database, check: Check) -> None:
    games.execute(f"INSERT INTO games VALUES (1000, {MOST + 1})")
    assert check("ns") == [], "without an index and statistics, nothing is known"
    games.execute("ANALYZE games", "DELETE FROM games WHERE id = 1000")
    [finding] = check("ns")
    assert finding.severity == "error" and f"with ns = {MOST + 1}, as the statistics of games of 20" in finding.what
    games.execute("ANALYZE games")
    assert check("ns") == []


def test_a_partial_index_does_not_cover_all_rows(games: Database, check: Check) -> None:
    games.execute("CREATE INDEX ON games (ns) WHERE id < 1000", f"INSERT INTO games VALUES (1000, {MOST + 1})")
    assert check("ns") == []
    games.execute("ANALYZE games")
    assert "the statistics" in check("ns")[0].what


def test_a_common_value_and_a_quoted_name_are_found(games: Database, check: Check) -> None:
    games.execute(f'INSERT INTO games (id, "Value") SELECT n, {MOST + 1} FROM generate_series(1000, 1999) n')
    games.execute("ANALYZE games")
    [finding] = check("'\"Value\"'")
    assert f"with Value = {MOST + 1}" in finding.what and finding.fix.splitlines()[0].endswith('"Value" / 10')


@pytest.mark.parametrize("column", ['"Value"', "far"])
@pytest.mark.parametrize("prepare", ["CREATE INDEX ON games ({column})", "ANALYZE games"])
def test_values_that_are_no_finite_number_are_ignored(games: Database, check: Check, column: str, prepare: str) -> None:
    prepared = prepare.format(column=column)
    games.execute(
        f"INSERT INTO games (id, {column}) VALUES (1000, 'NaN'), (1001, 'Infinity'), (1002, {MOST})", prepared
    )
    assert check(f"'{column}'") == []
    many = f"INSERT INTO games (id, {column}) SELECT n, {MOST + 2} FROM generate_series(2000, 2999) n"
    games.execute(many, "ANALYZE games")
    [finding] = check(f"'{column}'")
    assert f"points is {MOST + 2} for a row" in finding.what and ("the index" in finding.what) == ("INDEX" in prepared)


def test_a_time_is_checked_in_the_unit_of_the_expression(games: Database, check: Check) -> None:
    games.execute("UPDATE games SET at = '2026-11-29 05:47Z' WHERE id = 1", "CREATE INDEX ON games (at)")
    assert check("extract(epoch from at)") == []
    assert check("(extract(epoch from at) * 1000000)::bigint") == []
    [finding] = check("(extract(epoch from at) * 1000000000)::bigint")
    assert "with at = 2026-11-29 05:47:00+00" in finding.what
    assert finding.fix == "declare a smaller number as points, such as seconds: extract(epoch from at)"
    games.execute("UPDATE games SET at = 'infinity' WHERE id = 2")
    assert check("extract(epoch from at)") == []


def test_an_expression_that_fails_on_a_value_is_no_finding(games: Database, check: Check) -> None:
    games.execute("ANALYZE games")
    assert check("ns / (ns - ns)") == []


def test_the_statistics_of_partitions_are_read(games: Database, check: Check) -> None:
    games.execute(
        "DROP TABLE games",
        "CREATE TABLE games (id bigint PRIMARY KEY, ns bigint) PARTITION BY RANGE (id)",
        "CREATE TABLE early PARTITION OF games FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE late PARTITION OF games FOR VALUES FROM (100) TO (200)",
        f"INSERT INTO games VALUES (1, 1), (2, 2), (100, 3), (101, {MOST + 1})",
        "ANALYZE late",
    )
    [finding] = check("ns")
    assert "the statistics of late of 20" in finding.what
    games.execute("CREATE INDEX games_ns ON games (ns)", f"UPDATE games SET ns = {MOST + 3} WHERE id = 2")
    [finding] = check("ns")
    assert f"ns = {MOST + 3}, as the index games_ns shows" in finding.what
