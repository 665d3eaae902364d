"""Compiles read models with a hand-written catalog: messages, look-ups, used columns, types, hashes and SQL."""

# ruff: noqa: E501 - each case is one line

from dataclasses import replace

import pytest

from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import Compiled, Field, compile, form_of
from syncer.declaration.model import parse
from syncer.errors import Fatal
from syncer.events import TableName
from tests.harness.catalogs import SHOP, catalog, table

ORDERS = """\
name: orders
root: {table: orders}
where: status <> 'draft'
document:
  id: id
  customer: {one: customers, on: {id: customer_id}, document: {name: name}}
  items:
    many: order_items
    on: {order_id: id}
    where: quantity > 0
    order_by: unit_price desc
    document:
      quantity: quantity
      product: {one: products, on: {id: product_id}, document: {sku: sku, name: name}}
  total: sum(items.quantity * items.unit_price)
  first: first(items.product.name)
sink: {memory: {}}
"""


def compiled(text: str = ORDERS) -> Compiled:
    return compile(parse(text, "m.yaml"), SHOP)


def mistakes(old: str, new: str, text: str = ORDERS) -> str:
    assert old in text
    with pytest.raises(Fatal) as error:
        compiled(text.replace(old, new, 1))
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{table: orders}",
            "{table: order}",
            "m.yaml:2: there is no table public.order\n  → did you mean 'public.orders'?",
        ),
        ("many: order_items", "many: items", "m.yaml:8: there is no table public.items"),
        ("many: order_items", "many: k.T Mixed", "quote a word that contains spaces, as in 'k.\"T Mixed\"'"),
        ("many: order_items", "many: a.b.c", "m.yaml:8: 'a.b.c' is not the name of a table"),
        (
            "{order_id: id}",
            "{ordr_id: id}",
            "m.yaml:9: public.order_items has no column ordr_id\n  → did you mean 'order_id'?",
        ),
        ("{order_id: id}", "{order_id: idd}", "m.yaml:9: public.orders has no column idd\n  → did you mean 'id'?"),
        ("{order_id: id}", "{order_id: status}", "m.yaml:9: cannot link public.order_items.order_id (bigint) and"),
        (
            "{order_id: id}",
            "{order_id: status}",
            'give both columns the same type: ALTER TABLE "public"."orders" ALTER "status" TYPE bigint USING "status"::bigint',
        ),
        ("{order_id: id}", "{order_id: data}", "values have exactly one text each"),
        (
            "{id: customer_id}",
            "{name: status}",
            "m.yaml:6: public.customers can have many rows with the same value of (name)",
        ),
        (
            "  id: id\n",
            "  id: idd\n",
            "m.yaml:5: public.orders has no column or relation 'idd' here\n  → did you mean 'id'?",
        ),
        (
            "  id: id\n",
            "  id: custmer.name\n",
            "m.yaml:5: public.orders has no relation 'custmer' here\n  → did you mean 'customer'?",
        ),
        (
            "  id: id\n",
            "  id: customer.nme\n",
            "public.customers has no column or relation 'nme' here\n  → did you mean 'name'?",
        ),
        ("  id: id\n", "  id: customer\n", "m.yaml:5: `customer` is a relation, not a value"),
        ("  id: id\n", "  id: status.x\n", "'status' is a column, not a relation"),
        ("  id: id\n", "  id: items.quantity\n", "m.yaml:5: `items.quantity` has many values\n  → use an aggregate"),
        (
            "  id: id\n",
            "  id: sum(id)\n",
            "m.yaml:5: sum() needs a name that goes through a `many` relation\n  → relations here: items",
        ),
        ("  id: id\n", "  id: count(*)\n", "m.yaml:5: count() needs a name that goes through"),
        ("  id: id\n", "  id: sum(items.quantity, 2)\n", "sum() takes one argument, not 2"),
        (
            "  id: id\n",
            "  id: sum(count(items))\n",
            "is not allowed in a filter, an order, a grouping or another aggregate",
        ),
        ("  id: id\n", "  id: lenght(status)\n", "m.yaml:5: lenght() is not among"),
        ("  id: id\n", "  id: now()\n", "m.yaml:5: now() is not among"),
        ("  id: id\n", "  id: m\n", "m.yaml:5: the column m has the type money, whose text depends on the session"),
        (
            "  id: id\n",
            "  id: a b\n",
            "m.yaml:5: `a b` has a syntax error near 'b'\n  → a constant needs SQL quotes inside the YAML quotes: \"'a b'\"",
        ),
        ("  id: id\n", "  id: is it open?\n", "m.yaml:5: `is it open?` has a syntax error near"),
        (
            "  id: id\n",
            "  id: id +\n",
            "has a syntax error near '+'\n  → write one SQL expression; docs/read-models.md",
        ),
        (
            "  id: id\n",
            "  id: status is\n",
            "has a syntax error near 'is'\n  → write one SQL expression; docs/read-models.md",
        ),
        (
            "where: status <> 'draft'",
            "where: count(items) > 0",
            "m.yaml:3: count() is not allowed in a filter, an order, a grouping or another aggregate\n  → use columns of the row",
        ),
        (
            "where: status <> 'draft'",
            "where: statsu <> 'draft'",
            "m.yaml:3: public.orders has no column or relation 'statsu'",
        ),
        ("where: status <> 'draft'", "where: status", "m.yaml:3: `status` is not a condition: its type is text"),
        (
            "where: quantity > 0",
            "where: qantity > 0",
            "m.yaml:10: public.order_items has no column or relation 'qantity'",
        ),
        ("unit_price desc", "price desc", "m.yaml:11: public.order_items has no column or relation 'price'"),
        ("unit_price desc", "'1'", "m.yaml:11: ordering by the constant 1 has no effect"),
        (
            "unit_price desc",
            "id limit 3",
            "m.yaml:11: the order `id limit 3` has a syntax error near 'limit'\n  → write columns or expressions",
        ),
        ("  id: id\n", f"  {'ä' * 32}: id\n", "is longer than 63 bytes"),
        ("  id: id\n", '  "a\\0": id\n', "contains a control character"),
        (
            "  id: id\n",
            "  id: array(distinct items.id order by items.quantity)\n",
            "DISTINCT sorts the values itself",
        ),
        ("  id: id\n", "  a.b: {one: customers, on: {id: customer_id}, value: name}\n", "contains a dot"),
        (
            "document:\n  id: id",
            "relations: {items: {many: order_items, on: {order_id: id}}}\ndocument:\n  id: id",
            "the relation 'items' is declared twice",
        ),
        ("  id: id\n", "  id: {value: status, group_by: items.quantity}\n", "needs an aggregate"),
        ("  id: id\n", "  id: {value: count(items), group_by: itms.quantity}\n", "did you mean 'items'?"),
    ],
)
def test_each_mistake_is_reported_with_its_line_and_the_nearest_name(old: str, new: str, message: str) -> None:
    assert message in mistakes(old, new)


def test_all_mistakes_are_reported_together_and_each_once() -> None:
    text = ORDERS.replace("  id: id\n", "  id: idd\n  n: count(items)\n").replace("quantity > 0", "quanty > 0")
    assert mistakes("sku: sku", "sku: skew", text).startswith("3 mistakes\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "view"},
            "public.t is a view, and PostgreSQL logs no changes of it\n  → declare the tables behind the view: their rows as relations",
        ),
        ({"kind": "materialized view"}, "PostgreSQL logs no changes of it\n  → declare the tables behind the view"),
        (
            {"kind": "foreign table"},
            "PostgreSQL logs no changes of it\n  → copy its rows into a table of this database",
        ),
        (
            {"persistence": "unlogged"},
            'public.t is unlogged, and PostgreSQL does not log its changes\n  → ALTER TABLE "public"."t" SET LOGGED',
        ),
        ({"inherits": True}, "public.t is part of an inheritance tree"),
        (
            {"primary_key": ()},
            'public.t has no primary key; the unique index on (id) is not enough for the root table\n  → ALTER TABLE "public"."t" ADD PRIMARY KEY ("id")',
        ),
        (
            {"primary_key": (), "indexes": ()},
            'public.t has no primary key\n  → ALTER TABLE "public"."t" ADD PRIMARY KEY (…)',
        ),
        ({"primary_key": ("j",)}, "the primary key column public.t.j has the unsupported type jsonb"),
        ({"primary_key": ("ci",)}, "the primary key column public.t.ci has the unsupported type citext"),
    ],
)
def test_hazard_05_tables_that_cannot_be_followed_are_refused(changes: dict[str, object], message: str) -> None:
    wrong = replace(table("t", "id int key, j jsonb, ci citext"), **changes)  # type: ignore[arg-type]
    with pytest.raises(Fatal) as error:
        compile(parse("name: t\nroot: {table: t}\ndocument: {id: id}\nsink: {m: {}}", "m.yaml"), catalog(wrong))
    assert message in str(error.value)


def test_several_roots_are_refused_and_a_search_can_name_several_indexes() -> None:
    with pytest.raises(Fatal, match="a read model has exactly one root table") as error:
        parse("name: t\nroot: [{table: a}, {table: b}]\ndocument: {id: id}\nsink: {m: {}}", "m.yaml")
    assert error.value.where == "m.yaml:2" and "GET /orders,invoices/_search" in error.value.hint


def test_mistakes_in_names_are_reported_together_without_their_consequences() -> None:
    text = ORDERS.replace("many: order_items", "many: order_item").replace("one: products", "one: product")
    text = text.replace("id: id\n", "id: idd\n", 1).replace("{id: customer_id}", "{ident: customer_id}")
    with pytest.raises(Fatal) as error:
        compiled(text)
    assert str(error.value).splitlines() == [
        "4 mistakes",
        "m.yaml:5: public.orders has no column or relation 'idd' here",
        "  → did you mean 'id'?",
        "m.yaml:6: public.customers has no column ident",
        "  → one of: id, name, email",
        "m.yaml:8: there is no table public.order_item",
        "  → did you mean 'public.order_items'?",
        "m.yaml:14: there is no table public.product",
        "  → did you mean 'public.products'?",
    ]


def test_a_table_of_another_schema_is_suggested() -> None:
    other = Catalog({}, others=(TableName("public", "order"), TableName("sales", "orders")))
    with pytest.raises(Fatal) as error:
        compile(parse("name: o\nroot: {table: orders}\ndocument: {id: id}\nsink: {m: {}}", "m.yaml"), other)
    assert "there is no table public.orders\n  → did you mean 'sales.orders'?" in str(error.value)


def test_each_use_of_a_table_has_its_look_up_and_its_used_columns() -> None:
    found = {o.path: o for o in compiled().table_uses}
    assert list(found) == ["", "customer", "items", "items.product"]
    assert found[""].lookup is None
    assert found[""].used == found[""].comparable == {"id", "status", "customer_id"}
    assert found["items"].lookup and found["items"].lookup.sql is None
    assert found["items"].lookup.columns == ("order_id",)
    assert found["items"].used == {"id", "order_id", "product_id", "quantity", "unit_price"}
    assert found["items"].comparable == frozenset()
    product = found["items.product"].lookup
    assert product and product.sql and product.columns == ("id",) and product.types == ("bigint",)
    assert '"order_items"' in product.sql and '"orders"' not in product.sql
    assert found["items.product"].used == {"id", "sku", "name"}


def test_the_levels_of_look_ups() -> None:
    """The product of an item is looked up in the items, and an item names its order itself."""
    assert compiled().lookup_levels == 1
    text = "name: c\nroot: {table: customers}\ndocument:\n  orders: {many: orders, on: {customer_id: id}, "
    alone = text + "value: id}\nsink: {memory: {}}\n"
    nested = text + "document: {id: id, items: {many: order_items, on: {order_id: id}, document: {id: id, product: "
    nested += "{one: products, on: {id: product_id}, value: name}}}}}\nsink: {memory: {}}\n"
    assert (compiled(alone).lookup_levels, compiled(nested).lookup_levels) == (0, 2)


def test_hazard_02_where_an_update_has_to_carry_the_old_row() -> None:
    """An update has to carry it if the link is not part of the key, and FULL makes PostgreSQL always send it."""
    text = "name: c\nroot: {table: customers}\ndocument:\n  orders: {many: orders, on: {customer_id: id}, "
    text += "document: {id: id, customer: {one: customers, on: {id: customer_id}, value: name}}}\n"
    text += "  items: {many: order_items, on: {order_id: id}, value: id}\nsink: {memory: {}}\n"
    found = {o.path: o.needs_before for o in compiled(text).table_uses}
    assert found == {"": False, "orders": True, "orders.customer": False, "items": False}


def test_the_columns_of_an_order_are_used_only_where_the_order_affects_the_result() -> None:
    text = "name: n\nroot: {table: orders}\ndocument:\n  x: FUNCTION(items.quantity)\nrelations:\n"
    text += "  items: {many: order_items, on: {order_id: id}, order_by: unit_price}\nsink: {memory: {}}\n"
    for function, ordered in (
        ("sum", False),
        ("max", False),
        ("count", False),
        ("first", True),
        ("array", True),
    ):
        used = compiled(text.replace("FUNCTION", function)).table_uses[1].used
        assert ("unit_price" in used) == ordered, function


def test_a_relation_that_is_not_shown_has_used_columns_too() -> None:
    text = ORDERS.replace(
        "document:\n  id: id",
        "relations:\n  buyer: {one: customers, on: {email: status}}\ndocument:\n  id: buyer.name",
    )
    found = {o.path: o for o in compiled(text).table_uses}
    assert found["buyer"].used == {"id", "email", "name"}


def test_fields_have_types() -> None:
    assert compiled().fields == (
        Field("id", "bigint", False),
        Field("customer", "object", False, (Field("name", "text", False),)),
        Field(
            "items",
            "object",
            True,
            (
                Field("quantity", "integer", False),
                Field("product", "object", False, (Field("sku", "text", False), Field("name", "text", False))),
            ),
        ),
        Field("total", "numeric", False),
        Field("first", "text", False),
    )
    text = ORDERS.replace(
        "  id: id\n",
        "  l: array(distinct items.quantity)\n  c: count(items)\n  s: status || 'x'\n  a: avg(items.quantity)\n",
    )
    assert [(f.type, f.many) for f in compiled(text).fields[:4]] == [
        ("integer", True),
        ("bigint", False),
        ("text", False),
        ("numeric", False),
    ]


def test_the_hash_changes_with_the_documents_and_not_with_the_spelling() -> None:
    first = compiled().hash
    form, _, digest = first.partition("-")
    assert form == form_of(first) and len(digest) == 16 and int(digest, 16) >= 0
    assert form_of("4542d2d63a034822") == "", "a hash of a version that wrote no form"
    assert compiled(ORDERS.replace("{order_id: id}", "\n      order_id: id  # theirs: ours")).hash == first
    for old, new in (
        ("sku: sku", "sku: lower(sku)"),
        ("memory", "other"),
        ("unit_price desc", "unit_price"),
        ("sku: sku, name: name", "name: name, sku: sku"),
    ):
        assert compiled(ORDERS.replace(old, new)).hash != first


ITEMS = "id {0} key, order_id {1}, product_id bigint, quantity {2}, unit_price numeric"


def test_widening_a_column_within_its_family_changes_only_the_fields() -> None:
    """No resync is needed. For a key or a link, even the SQL stays the same."""

    def of(items: str, orders: str) -> Compiled:
        others = [t for t in SHOP.tables.values() if t.name.name not in ("order_items", "orders")]
        rest = "customer_id bigint, status text, placed_at timestamptz, data json, m money"
        return compile(
            parse(ORDERS, "m.yaml"),
            catalog(*others, table("order_items", items), table("orders", f"id {orders} key, {rest}", full=True)),
        )

    first = of(ITEMS.format("int", "int", "int"), "int")
    keys = of(ITEMS.format("bigint", "bigint", "int"), "bigint")
    assert replace(keys, fields=()) == replace(first, fields=())
    half = of(ITEMS.format("int", "bigint", "int"), "int")  # the state between two statements of a migration
    assert replace(half, fields=()) == replace(first, fields=())
    value = of(ITEMS.format("int", "int", "bigint"), "int")
    assert value.fields != first.fields and replace(value, fields=first.fields) == first

    def key(type: str, other: str = "text") -> Compiled:
        text = "name: t\nroot: {table: t}\ndocument: {v: v, c: {one: c, on: {k: v}, value: k}}\nsink: {m: {}}"
        tables = table("t", f"id {type} key, v {other}"), table("c", f"k {other} key")
        return compile(parse(text, "m.yaml"), catalog(*tables))

    assert replace(key("varchar", "varchar"), fields=()) == replace(key("text"), fields=())
    assert key("smallint").hash == key("bigint").hash != key("numeric").hash
    assert key("int").hash != key("text").hash, "the form of the ids differs"


def test_placeholders_are_the_only_percent_signs() -> None:
    sql = compiled(ORDERS.replace("  id: id\n", "  id: id % 10 || '%s'\n")).render
    assert sql.replace("%%", "").count("%") == sql.count("%s::") == 1


def test_aggregates_over_one_relation_share_one_scan() -> None:
    sql = compiled().render
    assert sql.count('"public"."order_items"') == 1  # including the list, because it has no limit
    limited = compiled(ORDERS.replace("    where: q", "    limit: 5\n    where: q")).render
    assert limited.count('"public"."order_items"') == 2


@pytest.mark.parametrize(
    ("link", "altered"), [("{number: id}", '"lines" ALTER "number"'), ("{id: number}", '"bills" ALTER "number"')]
)
def test_the_advice_for_a_link_of_other_types_keeps_an_integer_key(link: str, altered: str) -> None:
    known = catalog(table("bills", "id bigint key, number float8"), table("lines", "id bigint key, number float8"))
    text = f"name: bills\nroot: {{table: bills}}\ndocument: {{lines: {{many: lines, on: {link}, value: id}}}}\nsink: {{memory: {{}}}}\n"
    with pytest.raises(Fatal) as caught:
        compile(parse(text, "m.yaml"), known)
    assert f'ALTER TABLE "public".{altered} TYPE bigint' in str(caught.value)
