"""Partials of a grouped root: documents that are combined from them equal those that one statement renders.

These tests use the real resolver and PostgreSQL, and a sink in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from syncer.declaration.compiled import Lookup
from syncer.declaration.partial_keys import ROOT
from syncer.errors import Fatal
from syncer.events import ChangeEvent, TableName
from tests.harness import Database
from tests.harness.partials import DIVISIONS, GROUPS, World, found_within, opened

STEPS = 500
"""Of a history."""


@pytest.fixture(params=DIVISIONS)
def division(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    with opened(database, declaration=GROUPS) as world:
        yield world


@pytest.mark.parametrize("forgets", [False, True])
def test_generated_histories(database: Database, division: str, forgets: bool) -> None:
    """Rows move between buckets and groups, groups come and go, and joined rows change."""
    column = division.removeprefix("by: ").partition(",")[0]
    with opened(database, division, GROUPS.replace("distinct id", f"distinct {column}")) as world:
        assert found_within(world, STEPS, forgets=forgets) == []
        shown = {id for id, (_, body) in world.memory.documents.items() if body}
        assert shown
        world.fill_again()
        assert world.differences() == []
        assert shown == set(world.memory.ids())


def test_a_joined_row_makes_only_those_partials_dirty_that_read_it(world: World) -> None:
    world.change("devices", 1, "INSERT INTO devices VALUES (1, 'a')")
    for id in (1, 2, 9):
        world.change("readings", id, f"INSERT INTO readings VALUES ({id}, 1, 1, 1)")
    before = {bucket: part.version for bucket, part in world.memory.partials["1|2026-01-01 00:00:00+00"].items()}
    assert set(before) == {"0", "2", str(ROOT)}
    world.change("devices", 1, "UPDATE devices SET name = 'b' WHERE id = 1")
    assert newer(world, before) == {str(ROOT)}
    assert b'"device":"b"' in (world.memory.documents["1|2026-01-01 00:00:00+00"][1] or b"")
    world.change("sensors", 1, "UPDATE sensors SET factor = 3 WHERE id = 1")
    assert newer(world, before) == {"0", "2", str(ROOT)}, "`where` reads the sensor, too, so the root partial does"


def newer(world: World, before: dict[str, int]) -> set[str]:
    parts = world.memory.partials["1|2026-01-01 00:00:00+00"]
    return {bucket for bucket, part in parts.items() if part.version > before[bucket]}


def test_all_partials_of_a_group_are_found(world: World) -> None:
    for id, device in ((1, 1), (9, 1), (10, 2)):
        world.change("readings", id, f"INSERT INTO readings VALUES ({id}, {device}, 1, 1)")
    partials = world.compiled.partials
    assert partials is not None
    day = "2026-01-01 00:00:00+00"
    with world.rows.view() as view:
        found = set(view.look_up(partials.every, [("1", day), ("3", day)]))
    assert found == {("1", day, "0"), ("1", day, "2"), ("1", day, str(ROOT)), ("3", day, str(ROOT))}


def test_a_row_without_a_bucket_makes_no_partial_dirty(database: Database, division: str) -> None:
    """An event may be older than NOT NULL of the bucket column. The row got a value before the read model began."""
    column = division.removeprefix("by: ").partition(",")[0]
    with opened(database, division, GROUPS.replace("distinct id", f"distinct {column}")) as world:
        world.change("readings", 1, "INSERT INTO readings VALUES (1, 1, 1, 1)")
        row = world.row("readings", 1)
        assert row is not None
        group = world.memory.partials["1|2026-01-01 00:00:00+00"]
        before = {bucket: part.version for bucket, part in group.items()}
        world.handle(ChangeEvent(TableName("public", "readings"), "u", {**row, column: None}, row, None, 0))
        if column == "at":  # without this time, the row belongs to no group, either
            assert set(world.memory.partials) == {"1|2026-01-01 00:00:00+00"}
        assert set(group) == set(before), "the old image is in no bucket"
        assert world.differences() == []


# -- weakened rules


def test_only_the_new_row_counts(world: World) -> None:
    def weaker(change: ChangeEvent) -> ChangeEvent:
        return change._replace(before=None) if change.op == "u" else change

    world.weaken = weaker
    assert found_within(world, STEPS)


def test_an_empty_partial_is_removed(world: World) -> None:
    world.memory.drop_empty = lambda body: body.startswith(b'["0"')
    assert found_within(world, STEPS)


@pytest.mark.parametrize(
    ("path", "condition"),
    [
        ("", f"b <> '{ROOT}'"),
        ("", f"b = '{ROOT}'"),
        ("sensor", f"b = '{ROOT}'"),
        ("sensor", f"b <> '{ROOT}'"),
    ],
    ids=["row-bucket", "row-root", "joined-row-root", "joined-row-bucket"],
)
def test_a_change_makes_only_one_kind_of_partial_dirty(world: World, path: str, condition: str) -> None:
    """If a row makes only its bucket dirty, a group keeps its document without rows, and a new group has none."""
    weaken(world, path, condition)
    assert found_within(world, STEPS)


def weaken(world: World, path: str, condition: str) -> None:
    """Drops some of the partials that a change of a table makes dirty. condition: over the bucket `b`."""

    def weaker(lookup: Lookup | None) -> Lookup:
        assert lookup is not None and lookup.sql is not None
        return replace(lookup, sql=f"SELECT k0, k1, b FROM ({lookup.sql}) q (k0, k1, b) WHERE {condition}")

    parts = world.compiled.rendered
    uses = tuple(replace(use, lookup=weaker(use.lookup)) if use.path == path else use for use in parts.table_uses)
    world.read(replace(parts, table_uses=uses))


@pytest.mark.parametrize(
    ("wrong", "instead", "message"),
    [
        ("{by: id, size: 4}", "{by: nothing, size: 4}", "there is no such column"),
        ("{by: id, size: 4}", "{by: value, size: 4}", "its type is numeric"),
        ("{by: id, size: 4}", "{by: sensor_id, size: 4}", "it can be NULL"),
        ("rows: count(*)\n", "rows: count(*) + 1\n", "computes with an aggregate of the rows of a group"),
        (
            "rows: count(*)\n",
            "rows: {object: {count: count(*)}}\n",
            "a nested or computed field uses the rows of a group",
        ),
        ("total: sum(value)", "total: sum(ratio)", "is not exact"),
        ("total: sum(value)", "total: array(value)", "cannot be combined from partials"),
        ("ids: count(distinct id)", "ids: count(distinct kind)", "a value may be in several buckets"),
    ],
)
def test_mistakes(database: Database, wrong: str, instead: str, message: str) -> None:
    assert wrong in GROUPS
    with pytest.raises(Fatal, match=message) as caught, opened(database, declaration=GROUPS.replace(wrong, instead)):
        pass
    assert caught.value.where.startswith("m.yaml:") and caught.value.hint
