"""Links by the elements of an array: what is refused, what the SQL searches, and which roots a change dirties."""

# ruff: noqa: E501 - each case is one line

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from syncer.checks import Finding, check_model
from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse
from syncer.declaration.trace_sql import trace_sql
from syncer.errors import Fatal
from syncer.events import ChangeEvent, Position, TableName, Values
from syncer.operations.trace.changes import Changes
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.route import Route
from syncer.ports import Record
from tests.harness.catalogs import catalog, table

TEAMS = table(
    "teams",
    "id bigint key, name text, member_ids bigint[], few int[], tags text[], code text, prices numeric[], region int",
    full=True,
)
PEOPLE = table("people", "id bigint key, name text, team_ids int[], code text, codes text[], region int", full=True)
BADGES = table("badges", "id int key, holder_ids bigint[], label text", full=True)
TABLES = catalog(TEAMS, PEOPLE, BADGES)
INDEXED = catalog(
    replace(TEAMS, element_indexes=frozenset(("member_ids", "few", "tags"))),
    replace(PEOPLE, element_indexes=frozenset(("team_ids", "codes"))),
    replace(BADGES, element_indexes=frozenset(("holder_ids",))),
)
NESTED = 'badges: {many: badges, on: {"any(holder_ids)": id}, value: label}'


def model(
    on: str, *, kind: str = "many", entry: str = "value: id", more: str = "", tables: Catalog = INDEXED
) -> Compiled:
    people = f"  people:\n    {kind}: people\n    on: {on}\n    {entry}\n"
    text = f"name: m\nroot: {{table: teams}}\ndocument:\n{people}{more}sink: {{memory: {{}}}}\n"
    return compile(parse(text, "m.yaml"), tables)


def lookup(compiled: Compiled, path: str = "people") -> str:
    [found] = [use.lookup.sql for use in compiled.table_uses if use.path == path and use.lookup]
    return found or ""


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("{id: member_ids}", "m.yaml:6: cannot link public.people.id and public.teams.member_ids: member_ids is an array\n  → link its elements: on: {id: any(member_ids)}"),
        ("{team_ids: id}", '→ link its elements: on: {"any(team_ids)": id}'),
        ("{id: any(name)}", "any() needs an array, and name is text\n  → write name without any()"),
        ('{"any(id)": id}', "any() needs an array, and id is bigint"),
        ("{id: any(tags)}", "the elements of tags are text, and id is bigint\n  → possible are arrays of integers, uuid, varchar and text"),
        ("{id: any(prices)}", "the elements of prices (numeric[]) cannot be a link"),
        ('{"any(team_ids)": any(member_ids)}', "both columns are arrays"),
        ('{"id::text": any(tags)}', "a link of an array cannot compare texts\n  → give the elements the type of id"),
        ('{id: "any(tags)::int8"}', "a link of an array cannot compare texts"),
        ("{id: any(memberids)}", "m.yaml:6: public.teams has no column memberids\n  → did you mean 'member_ids'?"),
        ('{id: "any(member_ids[1])"}', "m.yaml:6: public.teams has no column member_ids[1]"),
        ('{id: any(member_ids), "any(team_ids)": id}', "m.yaml:6: a link can have one array\n  → use one any()"),
    ],
)  # fmt: skip
def test_an_array_that_cannot_be_a_link_is_refused(on: str, message: str) -> None:
    with pytest.raises(Fatal) as error:
        model(on)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("kind", "entry", "message"),
    [
        ("one", "value: id", "m.yaml:6: the elements of member_ids can lead to many rows\n  → use `many`"),
        ("up", "limit: 3\n    step: {id: id}\n    value: id", "m.yaml:6: a path of ancestors cannot follow the array member_ids"),
    ],
)  # fmt: skip
def test_only_many_relations_have_arrays(kind: str, entry: str, message: str) -> None:
    with pytest.raises(Fatal) as error:
        model("{id: any(member_ids)}", kind=kind, entry=entry)
    assert message in str(error.value)


def test_a_link_through_other_relations_cannot_end_at_an_array() -> None:
    friends = '  friends: {many: people, on: {"any(team_ids)": people.id}, value: id}\n'
    with pytest.raises(Fatal, match=r"m\.yaml:8: a link through other relations cannot end at the array team_ids"):
        model("{id: any(member_ids)}", more=friends)


def test_partials_and_steps_of_a_tree_cannot_have_arrays() -> None:
    text = 'name: m\nroot: {table: teams}\nrelations:\n  badges: {many: badges, on: {"any(holder_ids)": id}, partials: {by: id, size: 10}}\ndocument: {n: count(badges)}\nsink: {redis: {key: "{id}"}}\n'
    with pytest.raises(Fatal, match=r"`partials` cannot use a link between bigint\[\] and bigint"):
        compile(parse(text, "m.yaml"), INDEXED)
    text = "name: m\nroot: {table: people}\ndocument: {up: {up: people, on: {id: region}, step: {id: any(team_ids)}, limit: 3, value: id}}\nsink: {memory: {}}\n"
    with pytest.raises(Fatal, match="a path of ancestors cannot link"):
        compile(parse(text, "m.yaml"), INDEXED)


def test_a_collation_that_makes_different_texts_equal_is_refused() -> None:
    loose = replace(TEAMS.columns["tags"], collation="public.ci", loose_collation=True)
    teams = replace(TEAMS, columns={**TEAMS.columns, "tags": loose})
    with pytest.raises(Fatal, match=r"the collation public\.ci of tags makes different texts equal"):
        model("{code: any(tags)}", tables=catalog(teams, PEOPLE, BADGES))


@pytest.mark.parametrize("change", [{"element": "public.posint"}, {"type": "public.ints"}, {"type": "int2vector"}])
def test_domains_over_arrays_and_their_elements_are_refused(change: dict[str, Any]) -> None:
    column = replace(TEAMS.columns["member_ids"], **change)
    teams = replace(TEAMS, columns={**TEAMS.columns, "member_ids": column})
    with pytest.raises(Fatal, match=r"the elements of member_ids .* cannot be a link"):
        model("{id: any(member_ids)}", tables=catalog(teams, PEOPLE, BADGES))


def test_each_direction_searches_the_index_of_its_side() -> None:
    children = model("{id: any(member_ids)}")
    assert (
        't1."id" = ANY (CASE WHEN pg_catalog.array_ndims(t0."member_ids") = 1 THEN t0."member_ids" END)'
        in children.render
    )
    assert 'p0."member_ids" @> ARRAY[v.v0::pg_catalog."int8"]' in lookup(children)
    parents = model('{"any(codes)": code}')
    assert 't1."codes" @> ARRAY[t0."code"::pg_catalog."text"]' in parents.render
    assert 'p0."code" = v.v0' in lookup(parents)


def test_a_key_that_does_not_fit_the_elements_becomes_null() -> None:
    found = 'p0."few" @> ARRAY[CASE WHEN v.v0 BETWEEN -2147483648 AND 2147483647 THEN v.v0::pg_catalog."int4" END]'
    assert found in lookup(model("{id: any(few)}"))


def test_a_nested_look_up_goes_up_through_arrays() -> None:
    compiled = model("{id: any(member_ids)}", entry=f"document: {{{NESTED}}}")
    assert 'p0."id" = v.v0 JOIN "public"."teams" p1 ON p1."member_ids" @> ARRAY[p0."id"' in lookup(
        compiled, "people.badges"
    )
    compiled = model('{"any(codes)": code}', entry=f"document: {{{NESTED}}}")
    assert 'p1 ON p1."code" = ANY (CASE WHEN pg_catalog.array_ndims(p0."codes") = 1 THEN p0."codes" END)' in lookup(
        compiled, "people.badges"
    )


def test_a_link_through_a_relation_ends_at_the_distinct_elements_of_its_array() -> None:
    badges = "  holders: {many: people, on: {id: any(people.team_ids)}, limit: 5, value: name}\n"
    compiled = model("{id: any(member_ids)}", more=badges)
    assert (
        'SELECT DISTINCT pg_catalog.unnest(CASE WHEN pg_catalog.array_ndims(t5."team_ids") = 1 THEN t5."team_ids" END) AS v0'
        in compiled.render
    )
    assert 'p0."team_ids" @> ARRAY[' in lookup(compiled, "holders")
    [use] = [use for use in compiled.table_uses if use.path == "people"]
    assert "team_ids" in use.used and "team_ids" in use.comparable


# -- checks ---------------------------------------------------------------------------------------------------


def errors(compiled: Compiled, tables: Catalog) -> list[Finding]:
    return [finding for finding in check_model("m.yaml", compiled, tables) if finding.severity == "error"]


def test_a_declaration_without_the_gin_index_is_refused() -> None:
    [found] = errors(model("{id: any(member_ids)}", tables=TABLES), TABLES)
    assert (found.code, found.where) == ("no-index", "m.yaml: people")
    assert found.what == "public.teams has no GIN index on member_ids"
    assert found.why == "each change of public.people reads the whole table to find the rows that it belongs to"
    assert found.fix == "CREATE INDEX CONCURRENTLY ON public.teams USING gin (member_ids);"
    assert errors(model("{id: any(member_ids)}"), INDEXED) == []
    [found] = errors(model('{"any(team_ids)": id}', tables=TABLES), TABLES)
    assert found.fix == "CREATE INDEX CONCURRENTLY ON public.people USING gin (team_ids);"
    assert found.why == "each render reads the whole table"


def test_the_side_of_the_key_needs_its_index_too() -> None:
    [found] = errors(model("{code: any(tags)}"), INDEXED)
    assert found.fix == "CREATE INDEX CONCURRENTLY ON public.people (code);"
    [found] = errors(model('{"any(codes)": code}'), INDEXED)
    assert found.fix == "CREATE INDEX CONCURRENTLY ON public.teams (code);"


def test_an_array_in_events_needs_replica_identity_full() -> None:
    leaf = replace(PEOPLE.leaves[0], identity="index", identity_columns=("id", "team_ids"))
    people = replace(INDEXED.tables[PEOPLE.name], leaves=(leaf,))
    tables = Catalog({**INDEXED.tables, PEOPLE.name: people})
    [found] = errors(model('{"any(team_ids)": id}', tables=tables), tables)
    assert found.what == "the replica identity leaves out team_ids"
    assert str(found).count("public.people") == 2, "the place and the fix"
    assert found.fix == "ALTER TABLE public.people REPLICA IDENTITY FULL;"
    assert errors(model("{id: any(member_ids)}", tables=tables), tables) == [], "events of people need no array then"


# -- which roots are dirty --------------------------------------------------------------------------------------


def dirty(compiled: Compiled, op: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> set[Values]:
    """Returns the link values of a change of people that are looked up, or the keys of its roots."""
    change = ChangeEvent(TableName("public", "people"), op, before, after, 1, 0)  # type: ignore[arg-type]
    found = Dirty()
    uses = Route(compiled)(change)
    if uses:
        Resolve(compiled)(change, uses, found)
    return {*found.keys, *(values for looked_up in found.lookups.values() for values in looked_up)}


def person(*team_ids: int | None, name: str = "Ada") -> dict[str, Any]:
    return {"id": 1, "name": name, "team_ids": [*team_ids], "code": "a", "codes": None, "region": 1}


BY_TEAMS = model('{"any(team_ids)": id}', entry="value: name")


def test_each_element_of_both_images_is_dirty() -> None:
    assert dirty(BY_TEAMS, "c", None, person(7, 8, 7, None)) == {("7",), ("8",)}
    assert dirty(BY_TEAMS, "d", person(7, 8), None) == {("7",), ("8",)}
    assert dirty(BY_TEAMS, "u", person(7, 8), person(8, 9, name="Eve")) == {("7",), ("8",), ("9",)}
    assert dirty(BY_TEAMS, "c", None, person()) == dirty(BY_TEAMS, "c", None, person(None)) == set()
    assert dirty(BY_TEAMS, "u", {**person(), "team_ids": None}, person(3)) == {("3",)}
    assert dirty(BY_TEAMS, "c", None, {**person(), "team_ids": [[1, 2], [None, 2]]}) == set()


def test_an_update_of_the_array_alone_dirties_the_changed_elements_only() -> None:
    assert dirty(BY_TEAMS, "u", person(7, 8), person(8, 9)) == {("7",), ("9",)}
    assert dirty(BY_TEAMS, "u", person(7, 8), person(8, 7, 7)) == set(), "another order links the same rows"


def test_an_array_that_the_document_shows_dirties_all_elements() -> None:
    shown = model('{"any(team_ids)": id}', entry="value: team_ids")
    assert "team_ids" not in shown.table_uses[1].comparable
    assert dirty(shown, "u", person(7, 8), person(8, 9)) == {("7",), ("8",), ("9",)}


def test_an_array_of_two_links_dirties_all_elements() -> None:
    """The documents of kept elements show other rows of the second link."""
    teams = "document: {name: name, teams: {many: teams, on: {id: any(team_ids)}, value: name}}"
    two = model('{"any(team_ids)": id}', entry=teams)
    assert "team_ids" in two.table_uses[1].comparable
    assert dirty(two, "u", person(7, 8), person(8, 9)) == {("7",), ("8",), ("9",)}
    assert dirty(two, "u", person(7, 8), person(7, 8)) == set()


def test_an_update_that_the_document_does_not_use_dirties_nothing() -> None:
    by_id = model('{"any(team_ids)": id}')
    assert dirty(by_id, "u", person(7, 8), person(7, 8, name="Eve")) == set()


def test_the_other_columns_of_a_link_are_looked_up_with_each_element() -> None:
    both = model('{"any(team_ids)": id, region: region}')
    assert dirty(both, "c", None, person(7, 8)) == {("7", "1"), ("8", "1")}


def test_an_event_with_another_encoding_of_the_array_is_an_error() -> None:
    with pytest.raises(Fatal, match=r"encodes an array of bigint as str: the event is older"):
        dirty(BY_TEAMS, "c", None, {**person(), "team_ids": "{1,2}"})
    with pytest.raises(Fatal, match="encodes a value of type bigint as float"):
        dirty(BY_TEAMS, "c", None, {**person(), "team_ids": [1.5]})


def test_a_trace_follows_the_elements_of_arrays() -> None:
    text = f"name: m\nroot: {{table: teams}}\ndocument:\n  people:\n    many: people\n    on: {{id: any(member_ids)}}\n    document: {{{NESTED}}}\nsink: {{memory: {{}}}}\n"
    declared = parse(text, "m.yaml")
    _, people, badges = trace_sql(declared, INDEXED, compile(declared, INDEXED)).uses
    assert people.parent_link and people.parent_link.types == ("bigint[]",) and people.link.types == ("bigint",)
    assert badges.link.types == ("bigint[]",)
    assert 't1."id" = ANY (CASE WHEN pg_catalog.array_ndims(t0."member_ids") = 1 THEN t0."member_ids" END)' in (
        people.rows.sql or ""
    )
    assert people.leading and 'links.l0 @> ARRAY[asked.v0::pg_catalog."int8"' in (people.leading.sql or "")
    assert badges.leading and 'links.l0 = asked.v0::pg_catalog."int8"' in (badges.leading.sql or "")


def test_a_change_of_a_row_that_left_an_array_is_found_by_the_earlier_array() -> None:
    """The look-up in PostgreSQL finds nothing any more. So the elements of the images in Kafka have to lead there."""
    text = "name: m\nroot: {table: teams}\ndocument: {people: {many: people, on: {id: any(member_ids)}, value: name}}\nsink: {memory: {}}\n"
    declared = parse(text, "m.yaml")
    compiled = compile(declared, INDEXED)
    uses = trace_sql(declared, INDEXED, compiled).uses
    found = Changes(compiled, uses, ("1",), lambda *_: set())
    team = {"id": 1, "name": "one", "few": None, "tags": None, "code": None, "prices": None, "region": None}
    found.add(0, [event("teams", "u", {**team, "member_ids": [7, None, 8]}, {**team, "member_ids": []}, 0)])
    found.add(1, [event("people", "u", {"id": id}, {"id": id}, id) for id in (7, 8, 9)])
    assert [(change.key, change.reaches[0].earlier) for change in found.in_order()] == [
        (("1",), False),
        (("7",), True),
        (("8",), True),
    ]


def event(table: str, op: str, before: dict[str, Any], after: dict[str, Any], ms: int) -> tuple[Record, int]:
    source = {"schema": "public", "table": table, "txId": 1, "ts_ms": ms}
    value = json.dumps({"op": op, "before": before, "after": after, "source": source}).encode()
    return Record(Position(table, 0, ms), None, value), ms
