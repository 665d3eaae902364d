"""Findings about numbers that a sink rejects, from facts given as literals."""

from __future__ import annotations

from decimal import Decimal

import pytest

from syncer import sinks
from syncer.checks.finding import Finding
from syncer.checks.limits import LargestValue, check_limit, may_exceed
from syncer.declaration.compile import compile
from syncer.declaration.field_source import FieldSource, field_source
from syncer.declaration.model import parse
from tests.harness.catalogs import catalog, table

TABLES = catalog(
    table("games", "id bigint key, played_ns bigint, level int, score numeric, at timestamptz, name text, far float8")
)
MOST = 1 << 53
INDEX, STATISTICS = "the index games_played", "the statistics of games of 2026-11-29 05:47 UTC"


def source(expression: str, where: str = "") -> FieldSource:
    text = f"name: games\nroot: {{table: games}}\n{where}\ndocument:\n  points: {expression}\nsink: {{m: {{}}}}"
    model = parse(text, "m.yaml")
    compile(model, TABLES)
    found = field_source(model, TABLES, "points")
    assert found
    return found


def check(of: FieldSource, value: Decimal | int, *, current: bool = True) -> list[Finding]:
    largest = LargestValue(Decimal(value), str(value), INDEX if current else STATISTICS, current)
    return list(check_limit("m.yaml:9: redis", "points", MOST, "scores are exact up to 2^53", of, largest))


@pytest.mark.parametrize("value", [0, MOST, -MOST])
def test_a_number_up_to_the_limit_is_no_finding(value: int) -> None:
    assert check(source("played_ns"), value) == []


@pytest.mark.parametrize("value", [MOST + 1, -MOST - 1, Decimal(MOST) + Decimal("0.1")])
def test_the_next_number_is_an_error(value: int | Decimal) -> None:
    [finding] = check(source("played_ns"), value)
    assert (finding.severity, finding.code, finding.where) == ("error", "number-limit", "m.yaml:9: redis")
    assert finding.fix == "declare a smaller number as points, such as played_ns / 10"


def test_the_finding_names_the_column_the_value_and_where_it_was_seen() -> None:
    [finding] = check(source("played_ns"), 1764396000000000000)
    assert finding.what == (
        "points is 1764396000000000000 for a row of public.games with played_ns = 1764396000000000000, "
        "as the index games_played shows"
    )
    assert finding.why == "scores are exact up to 2^53; the sink rejects this document, and it becomes a dead letter"
    assert finding.fix.endswith("such as played_ns / 1000")


def test_a_value_of_the_statistics_may_be_out_of_date() -> None:
    [finding] = check(source("played_ns"), MOST + 1, current=False)
    assert finding.severity == "error" and finding.what.endswith(f"as {STATISTICS} show")
    assert finding.fix.splitlines()[1] == "if no row of public.games has this value any more, run ANALYZE on the table"
    assert ";" not in finding.fix, "`check --sql` would print it"


def test_a_row_that_may_have_no_document_is_a_warning() -> None:
    [finding] = check(source("played_ns", "where: level > 3"), MOST + 1)
    assert finding.severity == "warning"


@pytest.mark.parametrize(
    ("expression", "value", "fix"),
    [
        ("played_ns + 1", 10**18, "such as (played_ns + 1) / 1000"),
        ("extract(epoch from at) * 1000000000", 10**18, "such as seconds: extract(epoch from at)"),
        ("score", 10**30, "declare a smaller number as points"),
    ],
)
def test_the_advice_fits_the_expression(expression: str, value: int, fix: str) -> None:
    [finding] = check(source(expression), value)
    assert finding.fix.endswith(fix)


def test_a_huge_number_is_shortened() -> None:
    [finding] = check(source("far"), Decimal("1e300"))
    assert finding.what.startswith("points is 1.000000e+300 for a row")


@pytest.mark.parametrize(
    ("expression", "possible"),
    [
        ("played_ns", True),
        ("score", True),
        ("far", True),
        ("level * 1000000000000", True),
        ("extract(epoch from at)", True),
        ("level", False),
        ("level / 2", False),
        ("length(name)", False),
    ],
)
def test_small_types_are_not_checked(expression: str, possible: bool) -> None:
    assert may_exceed(source(expression)) is possible


def test_the_scores_of_redis_have_a_limit() -> None:
    board = {"sorted_set": {"key": "board:{game}", "score": "points"}}
    block = {"key": "player:{id}", "indexes": [{"set": {"key": "all:{id}"}}, board]}
    [limit] = sinks.limits("redis", block)
    assert (limit.field, limit.highest, limit.block) == ("points", MOST, ("indexes", 1, "sorted_set", "score"))
    assert sinks.limits("redis", {"key": "player:{id}"}) == []
    assert sinks.limits("elasticsearch", {"index": "players"}) == []
