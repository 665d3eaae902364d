"""Lists with one element for each group of rows: what is refused, the columns that count as used, and the types."""

# ruff: noqa: E501 - each case is one line

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from syncer.declaration.compile import Compiled, compile
from syncer.declaration.isolate import alone, bare, places, without
from syncer.declaration.model import parse
from syncer.errors import Fatal
from syncer.sinks.elasticsearch.mapping import derive
from syncer.sinks.postgres.columns import types
from tests.harness.catalogs import catalog, table

FILMS = """\
name: films
root: {table: films}
document:
  title: title
  copies:
    many: inventory
    on: {film_id: id}
    where: bought > '2020-01-01'
    group_by: store_id
    order_by: count(*) desc
    limit: 5
    relations:
      store: {one: stores, on: {id: store_id}, relations: {city: {one: cities, on: {id: city_id}}, staff: {many: staff, on: {store_id: id}}}}
      offer: {one: offers, on: {id: offer_id}}
      rentals: {many: rentals, on: {inventory_id: id}}
    document:
      store_id: store_id
      store: store.name
      city: store.city.name
      copies: count(*)
      value: sum(price)
sink: {memory: {}}
"""
INVENTORY = table(
    "inventory",
    "id bigint key, film_id int, store_id int, offer_id int, bought date, price numeric, prices numeric[], tags text[],"
    " code citext, at timestamptz, note text, data jsonb, unused text",
)
LOOSE = replace(
    INVENTORY, columns={**INVENTORY.columns, "note": replace(INVENTORY.columns["note"], loose_collation=True)}
)
TABLES = catalog(
    table("films", "id int key, title text"),
    INVENTORY,
    table("stores", "id int key, name text, city_id int"),
    table("codes", "id text key, name text"),
    table("cities", "id int key, name text"),
    table("offers", "id int key, name text, discount numeric"),
    table("rentals", "id bigint key, inventory_id bigint, amount numeric"),
    table("staff", "id int key, store_id int, name text"),
)


def compiled(old: str = "", new: str = "") -> Compiled:
    assert old in FILMS
    return compile(parse(FILMS.replace(old, new, 1), "m.yaml"), TABLES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value: sum(price)", "value: price", "m.yaml:21: `price` is neither grouped nor aggregated\n  → put it in `group_by`, or in an aggregate, such as max(price)"),
        ("value: sum(price)", "value: price + sum(price)", "`price` is neither grouped nor aggregated"),
        ("value: sum(price)", "value: store_id + offer_id", "`offer_id` is neither grouped nor aggregated"),
        ("value: sum(price)", "value: offer.name", "m.yaml:21: `offer.name` can differ among the rows of a group\n  → put offer_id in `group_by`, too, or use an aggregate, such as max(offer.name)"),
        ("value: sum(price)", "value: {one: offers, on: {id: offer_id}, value: name}", "m.yaml:21: `value` can differ among the rows of a group"),
        ("value: sum(price)", "value: rentals.amount", "m.yaml:21: `rentals.amount` leads to many rows for each row, which a list of groups cannot use"),
        ("value: sum(price)", "value: sum(rentals.amount)", "m.yaml:21: `rentals.amount` leads to many rows for each row of a group\n  → group the rows of that table instead"),
        ("value: sum(price)", "value: count(rentals)", "m.yaml:21: `rentals` leads to many rows for each row of a group"),
        ("value: sum(price)", "value: count(store.staff)", "m.yaml:21: `store.staff` leads to many rows"),
        ("value: sum(price)", "value: sum(count(*))", "is not allowed in a filter, an order, a grouping or another aggregate"),
        ("value: sum(price)", "value: count(distinct *)", "m.yaml:21: "),
        ("value: sum(price)", "value: sum(prise)", "m.yaml:21: public.inventory has no column or relation 'prise' here\n  → did you mean 'price'?"),
        ("value: sum(price)", "value: {many: rentals, on: {inventory_id: id}, value: amount}", "m.yaml:21: the field 'value' is of a kind that a list of groups cannot have"),
        ("value: sum(price)", "value: {value: count(rentals), group_by: rentals.id}", "m.yaml:21: the field 'value' is of a kind that a list of groups cannot have"),
        ("order_by: count(*) desc", "order_by: price", "m.yaml:10: `price` is neither grouped nor aggregated"),
        ("order_by: count(*) desc", "order_by: '1'", "m.yaml:10: ordering by the constant 1 has no effect"),
        ("order_by: count(*) desc", "order_by: id", "m.yaml:10: `id` is neither grouped nor aggregated"),
        ("group_by: store_id", "group_by: 1", "m.yaml:9: `1` depends on no column"),
        ("group_by: store_id", "group_by: store_id, offer_id", "m.yaml:9: `store_id, offer_id` has"),
        ("group_by: store_id", "group_by: count(*)", "m.yaml:9: count() is not allowed"),
        ("group_by: store_id", "group_by: stor_id", "m.yaml:9: public.inventory has no column or relation 'stor_id' here\n  → did you mean 'store_id'?"),
        ("group_by: store_id", "group_by: rentals.amount", "m.yaml:9: `rentals.amount` has many values"),
        ("group_by: store_id", "group_by: [store_id, prices]", "m.yaml:9: equal values of `prices` can have different texts"),
        ("group_by: store_id", "group_by: [store_id, '(price, at)']", "m.yaml:9: equal values of `(price, at)` can have different texts"),
        ("group_by: store_id", "group_by: []", "m.yaml:9: 'group_by': must not be empty"),
        ("where: bought > '2020-01-01'", "where: count(*) > 1", "m.yaml:8: count() is not allowed in a filter"),
        ("many: inventory", "mnay: inventory", "m.yaml:6: unknown key 'mnay'\n  → did you mean 'many'?"),
        ("rentals: {many: rentals, on: {inventory_id: id}}", "rentals: {many: rentals, on: {inventory_id: id}, group_by: id}", "unknown key 'group_by'"),
    ],
)  # fmt: skip
def test_each_mistake_is_reported_with_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(Fatal) as error:
        compiled(old, new)
    assert message in str(error.value)


def test_columns_of_groups_filters_orders_and_aggregates_are_used() -> None:
    model = compiled("order_by: count(*) desc", "order_by: max(at)")
    used = {use.path: use.used for use in model.table_uses}
    assert used["copies"] == {"id", "film_id", "store_id", "bought", "price", "at", "offer_id"}  # the last is a link
    assert used["copies.store"] == {"id", "name", "city_id"}
    assert used["copies.store.city"] == {"id", "name"}
    assert used["copies.offer"] == {"id"}


def test_a_comparison_of_expressions_marks_no_column_as_used() -> None:
    model = compiled("value: sum(price)", "value: max(case when store_id = 1 then price end)")
    plain = compiled("value: sum(price)", "value: max(price)")
    assert [use.used for use in model.table_uses] == [use.used for use in plain.table_uses]


def test_the_root_of_a_row_is_found_by_its_link() -> None:
    uses = {use.path: use for use in compiled().table_uses}
    lookup = uses["copies"].lookup
    assert lookup is not None and lookup.columns == ("film_id",) and lookup.sql is None
    assert uses["copies.store"].lookup is not None


def scan(model: Compiled) -> str:
    """Returns the part of the statement that groups the rows."""
    return model.render.partition("ARRAY(SELECT")[2]


@pytest.mark.parametrize(
    ("by", "expression", "sql"),
    [
        ("store_id", "store_id", "g0.k0"),
        ("store_id", "STORE_ID + 1", "(g0.k0 + 1)"),
        ("date_trunc('day', at, 'UTC')", "date_trunc('day', at, 'UTC') > '2024-01-01'", "(g0.k0 > '2024-01-01')"),
        ("price * 2 + 1", "(price * 2 + 1) / 3", "(g0.k0 / 3)"),
        ("coalesce(store_id, offer_id)", "coalesce(store_id, offer_id)", "g0.k0"),
        ("data ->> 'A'", "data ->> 'A'", "g0.k0"),
        ("offer.name", "lower(offer.name)", "pg_catalog.lower(g0.k0)"),
    ],
)
def test_an_expression_can_contain_a_group_expression(by: str, expression: str, sql: str) -> None:
    text = FILMS.replace("group_by: store_id", f'group_by: [store_id, "{by}"]').replace("sum(price)", expression)
    found = scan(compile(parse(text, "m.yaml"), TABLES))
    assert f'{sql.replace("k0", "k0" if by == "store_id" else "k1")} AS "value"' in found


@pytest.mark.parametrize(
    ("by", "expression", "missing"),
    [
        ("data ->> 'A'", "data ->> 'a'", "data"),
        ("date_trunc('day', at, 'UTC')", "date_trunc('hour', at, 'UTC')", "at"),
        ("price * 2 + 1", "1 + price * 2", "price"),
        ("price + 1", "price + 1 * 2", "price"),
        ("lower(note)", "note", "note"),
    ],
)
def test_a_similar_expression_is_not_the_group_expression(by: str, expression: str, missing: str) -> None:
    text = FILMS.replace("group_by: store_id", f'group_by: [store_id, "{by}"]').replace("sum(price)", expression)
    with pytest.raises(Fatal, match=f"`{missing}` is neither grouped nor aggregated"):
        compile(parse(text, "m.yaml"), TABLES)


def test_an_operand_of_a_group_expression_needs_its_parentheses() -> None:
    """PostgreSQL reads `price < 1 = true` in another way than a parser that compares from the left."""
    text = FILMS.replace("group_by: store_id", "group_by: [store_id, price < 1]")
    model = parse(text.replace("sum(price)", "price < 1 = true"), "m.yaml")
    with pytest.raises(Fatal, match="can be read in two ways"):
        compile(model, TABLES)


@pytest.mark.parametrize(
    ("by", "shown"),
    [
        ("store_id", 't2."store_id" AS k0'),
        ("tags", 't2."tags" AS k0'),
        ("price", '(pg_catalog.array_agg(t2."price" ORDER BY t2."id" ASC NULLS LAST))[1] AS k0'),
        ("note", '(pg_catalog.array_agg(t2."note" ORDER BY t2."id" ASC NULLS LAST))[1] AS k0'),
        ("lower(note)", '(pg_catalog.array_agg(pg_catalog.lower(t2."note") ORDER BY t2."id" ASC NULLS LAST))[1] AS k0'),
        ("length(note)", 'pg_catalog.length(t2."note") AS k0'),
        ("data", '(pg_catalog.array_agg(t2."data" ORDER BY t2."id" ASC NULLS LAST))[1] AS k0'),
    ],
)
def test_a_group_shows_the_value_of_its_first_row_where_equal_values_have_several_texts(by: str, shown: str) -> None:
    text = f"name: m\nroot: {{table: films}}\ndocument:\n  c: {{many: inventory, on: {{film_id: id}}, group_by: {by}, value: {by}}}\nsink: {{memory: {{}}}}\n"
    found = compile(parse(text, "m.yaml"), catalog(*(LOOSE if t is INVENTORY else t for t in TABLES.tables.values())))
    assert shown.replace("t2.", "t1.") in found.render


def test_the_group_expressions_make_the_order_unambiguous() -> None:
    model = compiled("group_by: store_id", "group_by: [store_id, at]")
    assert "ORDER BY g0.a0 DESC NULLS FIRST, g0.k0 ASC NULLS LAST, g0.k1 ASC NULLS LAST LIMIT 5" in model.render
    model = compiled(
        "group_by: store_id\n    order_by: count(*) desc", "group_by: [store_id, at]\n    order_by: [at desc]"
    )
    assert "ORDER BY g0.k1 DESC NULLS FIRST, g0.k0 ASC NULLS LAST LIMIT 5" in model.render


@pytest.mark.parametrize(
    "document",
    [
        "{s: store.name, c: store.city.name}",
        "{s: {one: stores, on: {id: store_id}, document: {n: name, staff: {many: staff, on: {store_id: id}, value: name}}}}",
        "{s: {one: stores, on: {id: store_id}, relations: {people: {many: staff, on: {store_id: id}}}, value: count(people)}}",
        "{o: {object: {s: store.name, n: count(*), o: {object: {most: max(offer.discount)}}}}}",
        "{n: count(offer), m: count(*) filter (where store.name <> ''), names: array(distinct offer.name), c: 1}",
    ],
)
def test_documents_of_groups(document: str) -> None:
    before, _, after = FILMS.partition("    document:\n")
    compile(parse(f"{before}    document: {document}\n{after[after.index('sink:') :]}", "m.yaml"), TABLES)


def test_a_relation_can_be_determined_by_its_own_side_of_the_link() -> None:
    text = FILMS.replace("group_by: store_id", "group_by: store.id").replace("store_id: store_id\n", "id: store.id\n")
    model = compile(parse(text, "m.yaml"), TABLES)
    assert 'LATERAL (SELECT g0.k0 AS "store_id")' in model.render


RELATED = """\
name: m
root: {{table: films}}
document:
  c:
    many: inventory
    on: {{film_id: id}}
    group_by: {by}
    relations: {{other: {{one: {table}, on: {on}, when: {when}}}}}
    value: other.name
sink: {{memory: {{}}}}
"""


@pytest.mark.parametrize(
    ("by", "table", "on", "when", "hint"),
    [
        ("[store_id, bought]", "stores", "{id: store_id}", "bought > '2020-01-01'", ""),
        ("[store_id]", "stores", "{id: store_id}", "bought > '2020-01-01'", "put bought in `group_by`, too, or"),
        (
            "[other.id]",
            "stores",
            "{id: store_id}",
            "bought > '2020-01-01'",
            "put store_id, bought in `group_by`, too, or",
        ),
        ("[other.id, bought]", "stores", "{id: store_id}", "bought > '2020-01-01'", ""),
        ("[store_id, price]", "stores", "{id: store_id}", "price::text = '1.0'", "use an aggregate"),
        ("[code]", "codes", "{id: 'code::text'}", "true", "use an aggregate"),
        ("[other.id]", "codes", "{id: 'code::text'}", "true", "put code in `group_by`, too, or"),
        ("[code::text]", "codes", "{id: 'code::text'}", "true", "put code in `group_by`, too, or"),
    ],
)
def test_a_relation_is_shared_only_if_its_whole_link_is_grouped(
    by: str, table: str, on: str, when: str, hint: str
) -> None:
    """Equal values of `citext` and `numeric` can have several texts, and a link or a condition can compare texts."""
    text = RELATED.format(by=by, table=table, on=on, when=json.dumps(when))
    if not hint:
        compile(parse(text, "m.yaml"), TABLES)
        return
    with pytest.raises(Fatal, match=f"`other.name` can differ among the rows of a group\n  → {hint}"):
        compile(parse(text, "m.yaml"), TABLES)


def test_relations_with_the_same_link_imply_its_value_together() -> None:
    """A filter may exclude the row of one of them, and the other one still has its row."""
    text = FILMS.replace("group_by: store_id", "group_by: [store.id, other.id]").replace(
        "store_id: store_id\n", "o: other.name\n"
    )
    text = text.replace(
        "      offer:", "      other: {one: stores, on: {id: store_id}, where: name > 'm'}\n      offer:"
    )
    model = compile(parse(text, "m.yaml"), TABLES)
    assert 'LATERAL (SELECT coalesce(g0.k0, g0.k1) AS "store_id")' in model.render


def test_aggregates_of_the_outer_row_use_all_rows() -> None:
    model = compiled("title: title", "title: count(copies)")
    assert 'pg_catalog.count(*) AS a0 FROM "public"."inventory"' in model.render.partition("GROUP BY")[0]


def test_sinks_derive_the_types_of_the_fields() -> None:
    (field,) = [field for field in compiled().fields if field.name == "copies"]
    assert field.many and field.type == "object"
    assert [(f.name, f.type, f.many) for f in field.fields] == [
        ("store_id", "integer", False),
        ("store", "text", False),
        ("city", "text", False),
        ("copies", "bigint", False),
        ("value", "numeric", False),
    ]
    mapping = derive(compiled().fields)["copies"]["properties"]
    assert mapping["store_id"] == {"type": "long"} and mapping["copies"] == {"type": "long"}
    assert types({}, compiled().fields)["copies"] == "jsonb"
    (field,) = [
        f
        for f in compiled(
            """    document:
      store_id: store_id
      store: store.name
      city: store.city.name
      copies: count(*)
      value: sum(price)
""",
            "    value: count(*)\n",
        ).fields
        if f.name == "copies"
    ]
    assert (field.type, field.many) == ("bigint", True)
    assert types({}, [field]) == {"copies": "jsonb"}


def test_each_expression_can_be_compiled_alone() -> None:
    """PostgreSQL's errors are attributed to an expression by compiling reduced read models."""
    model = parse(FILMS, "m.yaml")
    found = dict(places(model))
    assert found["document", "copies", "group_by"] == "store_id"
    for part in (bare(model), *(alone(model, place) for place in found), *(without(model, place) for place in found)):
        compile(part, TABLES)
    assert "GROUP BY" not in compile(bare(model), TABLES).render
    assert "GROUP BY" in compile(alone(model, ("document", "copies", "group_by")), TABLES).render


def test_the_hash_of_other_declarations_is_the_same() -> None:
    plain = (
        FILMS.replace("    group_by: store_id\n    order_by: count(*) desc\n", "")
        .replace("count(*)", "1")
        .replace("sum(price)", "price")
    )
    model = parse(plain, "m.yaml")
    assert "group_by" not in model.declaration.model_dump_json(exclude_defaults=True)
