"""Lists, first and last values, and distinct values that are combined from partials, on a real server."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from syncer.declaration import partial_states
from syncer.declaration.compiled import CombinedField
from syncer.pipeline import combine_states
from tests.harness import Database
from tests.harness.partials import DEVICES, DIVISIONS, found_within, opened

_, REST = DEVICES.split("document:\n")
LISTED = """
name: devices
root: {table: public.devices}
where: name <> 'hidden'
relations:
  place: {one: public.sensors, on: {id: id}}
document:
  readings:
    many: public.readings
    on: {device_id: id}
    where: sensor.active
    order_by: ORDER
    limit: 3
    relations: {sensor: {one: public.sensors, on: {id: sensor_id}}}
    partials: {by: id, size: 4}
    SHOWN
""" + REST.replace("  readings: count", "  rows: count")
OBJECT = """document:
      id: id
      at: at
      value: value
      gauge: {one: public.sensors, on: {id: sensor_id}, document: {name: name, factor: factor}}
      peers: {many: public.readings, on: {sensor_id: sensor_id}, order_by: id, limit: 2, value: id}
      weight: value * sensor.factor"""
ORDERS = {
    "[value desc nulls last, at]": OBJECT,
    "[at desc]": "value: value",
    "[ratio, uid desc]": OBJECT,
    "[value > 1 desc nulls first, day, local_at desc]": "document: {id: id, constant: \"'constant'\"}",
    "[ratio desc nulls last, value nulls first]": "value: sensor.name",
    "kind desc": "value: \"'constant'\"",
    "[sensor.factor desc, uid]": 'value: "array[value, 1]"',
}


def listed(order: str) -> str:
    return LISTED.replace("ORDER", order).replace("SHOWN", ORDERS[order])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("division", ["by: id, size: 4", "by: at, size: 1h"])
def test_generated_histories_of_lists(database: Database, order: str, division: str) -> None:
    with opened(database, division, listed(order)) as world:
        assert found_within(world, 300) == []
        world.fill_again()
        assert world.differences() == []


DISTINCT = DEVICES.replace(
    "  total:",
    "  distinct: count(distinct readings.BY)\n  some: count(distinct readings.BY)"
    " filter (where readings.value > 0)\n  total:",
)


@pytest.mark.parametrize("division", [*DIVISIONS[1:], "by: kind, size: 2"])
def test_generated_histories_of_distinct_values(database: Database, division: str) -> None:
    by = division.split(",")[0].removeprefix("by: ")
    with opened(database, division, DISTINCT.replace("BY", by)) as world:
        assert found_within(world, 400) == []


def test_distinct_values_of_another_column(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weakened rule: the distinct values of each bucket are counted, also if they occur in other buckets."""
    monkeypatch.setattr(partial_states, "_check_distinct", lambda call, root, node: None)
    with opened(database, DIVISIONS[0], DISTINCT.replace("BY", "kind")) as world:
        assert found_within(world, 400)


# -- weakened rules of lists


def test_a_bucket_keeps_one_row_less(database: Database) -> None:
    order = "[value desc nulls last, at]"
    with opened(database, "by: id, size: 50", listed(order)) as world:
        assert world.compiled.partials is not None
        body = world.rows.compiled.render
        assert body.count("LIMIT 3)") == 1
        object.__setattr__(world.rows.compiled, "render", body.replace("LIMIT 3)", "LIMIT 2)"))
        assert found_within(world, 300)


def test_lists_of_buckets_are_appended(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    in_order = combine_states._merge_in_order
    monkeypatch.setattr(
        combine_states, "_merge_in_order", lambda field, states: in_order(field._replace(order=()), states)
    )
    with opened(database, DIVISIONS[0], listed("[at desc]")) as world:
        assert found_within(world, 300)


@pytest.mark.parametrize(
    ("order", "weaker"),
    [
        ("[value desc nulls last, at]", "descending"),
        ("[value > 1 desc nulls first, day, local_at desc]", "nulls_first"),
    ],
)
def test_a_part_of_the_order_is_ignored(
    database: Database, order: str, weaker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = combine_states._merge_in_order

    def ignores(field: CombinedField, states: Sequence[str | None]) -> str | None:
        keys = tuple(key._replace(**{weaker: False}) for key in field.order)
        return in_order(field._replace(order=keys), states)

    monkeypatch.setattr(combine_states, "_merge_in_order", ignores)
    with opened(database, DIVISIONS[0], listed(order)) as world:
        assert found_within(world, 300)


def test_numbers_are_compared_as_texts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine_states, "_sort_value", lambda text, key: (text is None, text or ""))
    with opened(database, DIVISIONS[0], listed("[value desc nulls last, at]")) as world:
        assert found_within(world, 300)
