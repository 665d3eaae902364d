"""Compares rendered documents with documents built in Python from plain SELECTs, and look-ups with brute force."""

import json
import random
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from syncer.declaration.binding import bind
from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse, tables
from syncer.declaration.node import Node
from syncer.document import Row, document_id
from syncer.postgres.catalog import load
from syncer.postgres.session import PINNED
from syncer.postgres.snapshot_reader import SnapshotReader
from tests.harness import Database

SCHEMA = [
    'CREATE SCHEMA "Größe"',
    "CREATE SCHEMA shop",
    "CREATE TYPE shop.\"Mood\" AS ENUM ('sad', 'so so', 'happy')",
    """CREATE TABLE "Größe"."Kund\"\"en" (
        "Id" uuid PRIMARY KEY, "Naïve Name" text, mood shop."Mood", boss_id uuid, unused text)""",
    """CREATE TABLE shop.orders (
        region text, no int, customer_id uuid, status text NOT NULL, net numeric, vat numeric(6, 2),
        gross numeric GENERATED ALWAYS AS (net + vat) STORED, placed_at timestamptz, flags text[], data json,
        unused int, PRIMARY KEY (region, no)) PARTITION BY LIST (region)""",
    "CREATE TABLE shop.orders_eu PARTITION OF shop.orders FOR VALUES IN ('eu', 'e|u')",
    "CREATE TABLE shop.orders_rest PARTITION OF shop.orders DEFAULT",
    """CREATE TABLE shop.lines (
        region text, order_no int, pos smallint, product_id int, quantity int, unit_price numeric, prio int,
        unused text, PRIMARY KEY (pos, order_no, region))""",
    "CREATE TABLE shop.products (id int PRIMARY KEY, sku text, size float8, label text, price numeric)",
    "CREATE TABLE shop.product_tags (product_id int, tag_id int, rank int, PRIMARY KEY (product_id, tag_id))",
    "CREATE TABLE public.tags (id int PRIMARY KEY, name text, kind text)",
    "CREATE INDEX ON shop.lines (region, order_no)",
    "CREATE INDEX ON shop.product_tags (product_id)",
]

ORDERS = """\
name: orders
root: {table: shop.orders}
where: status <> 'draft' or customer.mood = 'happy'
relations:
  all_lines: {many: shop.lines, on: {order_no: no, region: region}, order_by: prio desc}
document:
  ref: region || '/' || no
  gross: gross
  at: {object: {time: placed_at, year: extract(year from placed_at), first_flag: 'flags[1]'}}
  data: data
  customer:
    one: '"Größe"."Kund""en"'
    on: {'"Id"': customer_id}
    relations:
      orders:
        many: shop.orders
        on: {customer_id: '"Id"'}
        relations: {lines: {many: shop.lines, on: {region: region, order_no: no}}}
    document:
      name: '"Naïve Name"'
      mood: mood
      order_count: count(orders)
      bought: sum(orders.lines.quantity) filter (where orders.status <> 'draft')
      boss:
        one: '"Größe"."Kund""en"'
        on: {'"Id"': boss_id}
        where: mood <> 'sad'
        document: {name: '"Naïve Name"', boss_too: boss_id is not null}
      team: {many: '"Größe"."Kund""en"', on: {boss_id: '"Id"'}, value: '"Naïve Name"'}
  lines:
    many: shop.lines
    on: {region: region, order_no: no}
    where: quantity > 0 and (product.sku <> 'gone' or product.sku is null)
    order_by: [prio desc, quantity]
    document:
      quantity: quantity
      line_total: quantity * unit_price
      product:
        one: shop.products
        on: {id: product_id}
        document:
          sku: sku
          size: size
          tags:
            many: shop.product_tags
            on: {product_id: id}
            relations: {tag: {one: tags, on: {id: tag_id}}}
            order_by: rank desc nulls last
            limit: 2
            value: tag.name
          tag_count: count(tags)
  top:
    many: shop.lines
    on: {region: region, order_no: no}
    order_by: quantity desc
    limit: 2
    document: {pos: pos, sku: product.sku, tags: count(tags)}
    relations:
      product: {one: shop.products, on: {id: product_id}}
      tags: {many: shop.product_tags, on: {product_id: product_id}}
  line_count: count(lines)
  total: sum(lines.quantity * lines.unit_price)
  twice: coalesce(sum(lines.quantity), 0) * 2 + no
  priciest: max(lines.unit_price)
  average: avg(all_lines.quantity)
  sizes: sum(lines.product.size)
  first_sku: first(lines.product.sku)
  last_sku: last(lines.product.sku)
  skus: array_agg(distinct lines.product.sku)
  all_quantities: array(all_lines.quantity)
  prices: array_agg(distinct lines.unit_price)
  tag_names: >-
    array_agg(distinct lines.product.tags.tag.name)
    filter (where lines.product.tags.tag.name is not null)
  tag_rows: count(lines.product.tags)
  products: count(lines.product)
  distinct_products: count(distinct all_lines.product_id)
  big: count(lines) filter (where lines.quantity > 2)
  all_big: bool_and(lines.quantity > 2)
  by_prio: {value: sum(all_lines.quantity), group_by: all_lines.prio}
sink: {memory: {}}
"""

REGIONS = ["eu", "e|u", "us\\", "a\\|b", 'q"']


class Plain(dict[str, list[dict[str, Any]]]):
    """All rows of all tables, as `row_to_json` returns them."""


def read(conn: psycopg.Connection[Any], names: list[str]) -> Plain:
    found = Plain()
    for name in names:
        rows = conn.execute(f"SELECT row_to_json(t)::text FROM {name} t".encode()).fetchall()
        found[name] = [json.loads(row[0], parse_float=Decimal) for row in rows]
    return found


NAMES = [
    '"Größe"."Kund""en"',
    "shop.orders",
    "shop.lines",
    "shop.products",
    "shop.product_tags",
    "public.tags",
]


def fill(conn: psycopg.Connection[Any], seed: int) -> None:
    rnd = random.Random(seed)

    def maybe(value: Any, chance: float = 0.2) -> Any:
        return None if rnd.random() < chance else value

    people = [f"00000000-0000-0000-0000-{i:012d}" for i in range(12)]
    insert = conn.cursor().executemany
    insert(
        'INSERT INTO "Größe"."Kund""en" VALUES (%s, %s, %s::shop."Mood", %s, %s)',
        [
            (p, maybe(f'N"{i}\n'), maybe(rnd.choice(["sad", "so so", "happy"])), maybe(rnd.choice(people)), "u")
            for i, p in enumerate(people)
        ],
    )
    insert(
        "INSERT INTO shop.products VALUES (%s, %s, %s, %s, %s)",
        [(i, maybe(rnd.choice(["gone", f"sku{i // 2}"])), maybe(rnd.random()), "l", 1) for i in range(15)],
    )
    insert("INSERT INTO public.tags VALUES (%s, %s, 'k')", [(i, maybe(f"tag{i // 2}")) for i in range(8)])
    links = {(rnd.randrange(17), rnd.randrange(9)) for _ in range(40)}
    insert(
        "INSERT INTO shop.product_tags VALUES (%s, %s, %s)",
        [(*k, maybe(rnd.randrange(3))) for k in sorted(links)],
    )
    orders = sorted({(rnd.choice(REGIONS), rnd.randrange(8)) for _ in range(30)})
    insert(
        "INSERT INTO shop.orders (region, no, customer_id, status, net, vat, placed_at, flags, data, unused)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s::json, 1)",
        [
            (
                *k,
                maybe(rnd.choice([*people, people[0].replace("0", "f")])),
                rnd.choice(["draft", "paid"]),
                maybe(Decimal(rnd.randrange(1000)).scaleb(-rnd.randrange(3))),
                maybe(Decimal("1.5")),
                maybe(f"2024-0{rnd.randrange(1, 9)}-01 12:00:00.123+02"),
                maybe(["a", "b"]),
                maybe('{"a":\n [1, 2.50]}'),
            )
            for k in orders
        ],
    )
    keys = {(rnd.choice(REGIONS), rnd.randrange(9), rnd.randrange(6)) for _ in range(120)}
    insert(
        "INSERT INTO shop.lines VALUES (%s, %s, %s, %s, %s, %s, %s, 'u')",
        [
            (
                *k,
                maybe(rnd.randrange(17)),
                maybe(rnd.randrange(5)),
                maybe(rnd.choice(["1.0", "1.00", "2.5", "10"])),
                maybe(rnd.randrange(3)),
            )
            for k in sorted(keys)
        ],
    )


def expected(rows: Plain) -> dict[str, Any]:
    """Builds the expected documents from the declaration in the simplest way."""
    people, orders, lines, products, links, tags = (rows[n] for n in NAMES)

    def one(table: list[dict[str, Any]], **on: Any) -> dict[str, Any] | None:
        found = [r for r in table if all(v is not None and r[k] == v for k, v in on.items())]
        return found[0] if found else None

    def person(id: Any) -> dict[str, Any] | None:
        return one(people, Id=id)

    def total(values: list[Any]) -> Any:
        known = [v for v in values if v is not None]
        return sum(known[1:], known[0]) if known else None

    def down(value: Any, *, last: bool = True) -> tuple[bool, Any]:
        """Returns a sort key for `desc`, with NULLs first by default."""
        return ((value is None) if last else (value is not None), -(value or 0))

    def up(value: Any) -> tuple[bool, Any]:
        return (value is None, value or 0)

    def key(line: dict[str, Any]) -> tuple[Any, ...]:
        return (line["pos"], line["order_no"], line["region"])

    def show_product(id: Any) -> Any:
        product = one(products, id=id)
        if product is None:
            return None
        mine = [t for t in links if t["product_id"] == product["id"]]
        mine.sort(key=lambda t: (*down(t["rank"]), t["product_id"], t["tag_id"]))
        names = [(one(tags, id=t["tag_id"]) or {"name": None})["name"] for t in mine]
        return {"sku": product["sku"], "size": product["size"], "tags": names[:2], "tag_count": len(mine)}

    def show_customer(id: Any) -> Any:
        found = person(id)
        if found is None:
            return None
        own = [o for o in orders if o["customer_id"] == found["Id"]]
        bought = [
            line["quantity"]
            for o in own
            for line in lines
            if (line["region"], line["order_no"]) == (o["region"], o["no"]) and o["status"] != "draft"
        ]
        boss = person(found["boss_id"])
        if boss is not None and boss["mood"] not in ("so so", "happy"):
            boss = None
        team = sorted((p for p in people if p["boss_id"] == found["Id"]), key=lambda p: str(p["Id"]))
        return {
            "name": found["Naïve Name"],
            "mood": found["mood"],
            "order_count": len(own),
            "bought": total(bought),
            "boss": boss and {"name": boss["Naïve Name"], "boss_too": boss["boss_id"] is not None},
            "team": [p["Naïve Name"] for p in team],
        }

    documents = {}
    for o in orders:
        customer = person(o["customer_id"])
        if o["status"] == "draft" and (customer or {"mood": None})["mood"] != "happy":
            continue
        every = [x for x in lines if (x["region"], x["order_no"]) == (o["region"], o["no"])]
        every.sort(key=lambda x: (*_nulls_first(down(x["prio"])), *key(x)))
        mine = []
        for x in every:
            sku = (one(products, id=x["product_id"]) or {"sku": None})["sku"]
            if (x["quantity"] or 0) > 0 and sku != "gone":
                mine.append(x)
        mine.sort(key=lambda x: (*_nulls_first(down(x["prio"])), *up(x["quantity"]), *key(x)))
        top = sorted(every, key=lambda x: (*_nulls_first(down(x["quantity"])), *key(x)))[:2]
        bought = [one(products, id=x["product_id"]) for x in mine]
        skus = [p and p["sku"] for p in bought]
        products_tags = [
            t
            for x in mine
            if x["product_id"] is not None and one(products, id=x["product_id"])
            for t in links
            if t["product_id"] == x["product_id"]
        ]
        names = {(one(tags, id=t["tag_id"]) or {"name": None})["name"] for t in products_tags} - {None}
        prices = dict.fromkeys(x["unit_price"] for x in mine)  # the first of equal values
        quantities = [x["quantity"] for x in every if x["quantity"] is not None]
        groups: dict[str, list[Any]] = {}
        for x in every:
            if x["prio"] is not None:
                groups.setdefault(str(x["prio"]), []).append(x["quantity"])
        sizes = [p["size"] for p in bought if p and p["size"] is not None]
        documents[document_id((o["region"], str(o["no"])))] = {
            "ref": f"{o['region']}/{o['no']}",
            "gross": o["gross"],
            "at": {
                "time": o["placed_at"],
                "year": o["placed_at"] and 2024,
                "first_flag": o["flags"] and o["flags"][0],
            },
            "data": o["data"],
            "customer": show_customer(o["customer_id"]),
            "lines": [
                {
                    "quantity": x["quantity"],
                    "line_total": None if x["unit_price"] is None else Decimal(x["quantity"]) * x["unit_price"],
                    "product": show_product(x["product_id"]),
                }
                for x in mine
            ],
            "top": [
                {
                    "pos": x["pos"],
                    "sku": (one(products, id=x["product_id"]) or {"sku": None})["sku"],
                    "tags": len([t for t in links if t["product_id"] == x["product_id"]]),
                }
                for x in top
            ],
            "line_count": len(mine),
            "total": total([x["unit_price"] and x["quantity"] * x["unit_price"] for x in mine]),
            "twice": sum(x["quantity"] for x in mine) * 2 + o["no"],
            "priciest": _largest([x["unit_price"] for x in mine]),
            "average": (sum(quantities), len(quantities)) if quantities else None,
            "sizes": sizes,
            "first_sku": skus[0] if skus else None,
            "last_sku": skus[-1] if skus else None,
            "skus": [*sorted({str(s) for s in skus if s is not None}), *([None] if None in skus else [])],
            "all_quantities": [x["quantity"] for x in every],
            "prices": [*sorted(v for v in prices if v is not None), *([None] if None in prices else [])],
            "tag_names": sorted(names),
            "tag_rows": len(products_tags),
            "products": len([p for p in bought if p]),
            "distinct_products": len({x["product_id"] for x in every} - {None}),
            "big": len([x for x in mine if x["quantity"] > 2]),
            "all_big": all(x["quantity"] > 2 for x in mine) if mine else None,
            "by_prio": {k: total(v) for k, v in sorted(groups.items())},
        }
    return documents


def _nulls_first(key: tuple[bool, Any]) -> tuple[bool, Any]:
    return (not key[0], key[1])


def _largest(values: list[Any]) -> Any:
    """Returns the last one of equal values."""
    found = None
    for value in values:
        if value is not None and (found is None or value >= found):
            found = value
    return found


def exact(value: Any) -> Any:
    """Converts decimals to text, so that 1.0 and 1.00 differ, and sorts the keys of objects."""
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        return f"number {value}"
    if isinstance(value, dict):
        return [(k, exact(v)) for k, v in value.items()]
    return [exact(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    database.execute(*SCHEMA)
    with database.connect() as session:
        fill(session, seed=1)
        pin(session)
        yield session


def pin(conn: psycopg.Connection[Any]) -> None:
    for name, value in PINNED.items():
        if name != "default_transaction_read_only":
            conn.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


def compiled(conn: psycopg.Connection[Any], text: str = ORDERS) -> Compiled:
    return compile(parse(text, "m.yaml"), catalog(conn, text))


def catalog(conn: psycopg.Connection[Any], text: str = ORDERS) -> Catalog:
    return load(conn, tables(parse(text, "m.yaml")))


def render(conn: psycopg.Connection[Any], model: Compiled, keys: list[tuple[str, ...]]) -> list[tuple[Any, ...]]:
    columns = [[key[i] for key in keys] for i in range(len(model.key))]
    return conn.execute(model.render.encode(), columns).fetchall()


def every_key(conn: psycopg.Connection[Any]) -> list[tuple[str, ...]]:
    return conn.execute("SELECT region, no::text FROM shop.orders").fetchall()


@pytest.mark.parametrize("seed", range(2, 8))
def test_documents_equal_those_built_in_python_from_the_same_rows(conn: psycopg.Connection[Any], seed: int) -> None:
    for name in NAMES:
        conn.execute(f"TRUNCATE {name}".encode())
    fill(conn, seed)
    rows = read(conn, NAMES)
    documents = expected(rows)
    assert len(documents) > 5
    found = {}
    for asked, id, text in render(conn, compiled(conn), every_key(conn)):
        assert asked == id
        if text is not None:
            assert "\n" not in text and '": ' not in text.replace('"data":{"a": ', "")
            found[id] = json.loads(text, parse_float=Decimal)
    assert found.keys() == documents.keys()
    for id, document in documents.items():
        sizes, average = document["sizes"], document["average"]
        document["sizes"], document["average"] = found[id]["sizes"], found[id]["average"]
        assert exact(found[id]) == exact(document), id
        assert sum(map(float, sizes)) == pytest.approx(float(found[id]["sizes"] or 0))
        if average:
            assert Decimal(average[0]) / average[1] == pytest.approx(found[id]["average"])


def test_rendering_returns_one_row_for_every_requested_key(conn: psycopg.Connection[Any]) -> None:
    model = compiled(conn)
    some, other = every_key(conn)[:2]
    missing = ("no|where\\", "007")
    found = render(conn, model, [some, missing, other, some])
    assert sorted(r[0] for r in found) == sorted(map(document_id, [some, some, other, ("no|where\\", "7")]))
    assert {r[1] for r in found if r[0] == document_id(("no|where\\", "7"))} == {None}
    assert render(conn, model, []) == []


def test_ranges_cover_the_table_exactly_once(conn: psycopg.Connection[Any]) -> None:
    model = compiled(conn)
    keys = conn.execute("SELECT region, no::text FROM shop.orders ORDER BY region, no").fetchall()
    whole = {r[0]: r for r in render(conn, model, keys)}
    for size in (1, 3, 7, len(keys), 1000):
        bounds = conn.execute(model.boundaries.encode(), [size]).fetchall()
        assert bounds == [k for i, k in enumerate(keys, 1) if i % size == 0 or i == len(keys)]
        found = conn.execute(model.render_upto.encode(), bounds[0]).fetchall()
        for low, high in pairwise(bounds):
            found += conn.execute(model.render_between.encode(), [*low, *high]).fetchall()
        assert len(found) == len(keys)
        assert {r[0]: r for r in found} == whole


def test_keys_are_in_key_order_for_any_column_names(database: Database) -> None:
    """The names contain `%`, which psycopg interprets, and the name of an output column, which ORDER BY prefers."""
    database.execute('CREATE TABLE things ("k%s" int PRIMARY KEY)')
    database.execute("INSERT INTO things VALUES (9), (10), (11)")
    declared = "name: m\nroot: {table: things}\ndocument: {id: '\"k%s\"'}\nsink: {memory: {}}"
    with database.connect() as session:
        rows = SnapshotReader({"conninfo": database.dsn}, compiled(session, declared))
    with closing(rows), rows.view() as view:
        assert view.first_keys(2) == [("9",), ("10",)]
        assert view.keys_in_range(("9",), ("11",)) == [("10",), ("11",)]
        assert view.keys_in_range(None, ("10",)) == [("9",), ("10",)]


def test_lookups_find_the_roots_whose_tree_contains_the_row(conn: psycopg.Connection[Any]) -> None:
    for seed in range(10, 14):
        for name in NAMES:
            conn.execute(f"TRUNCATE {name}".encode())
        fill(conn, seed)
        model = compiled(conn)
        nodes = {".".join(n.path): n for n in bind(parse(ORDERS, "m.yaml"), catalog(conn), []).walk()}
        rows = read(conn, NAMES)
        for occurrence in model.table_uses:
            lookup, node = occurrence.lookup, nodes[occurrence.path]
            if lookup is None:
                continue
            holding = _holding(node, rows)
            for place, row in enumerate(_rows(node, rows)):
                values = [row[c] for c in lookup.columns]
                found = set()
                if None not in values:
                    texts = [[str(v)] for v in values]
                    found = {tuple(str(v) for v in values)}
                    if lookup.sql is not None:
                        answer = conn.execute(lookup.sql.encode(), texts).fetchall()
                        found = set(answer)
                        assert len(found) == len(answer)
                keys = {(o["region"], str(o["no"])) for o in rows["shop.orders"]}
                assert found & keys == holding.get(place, set()), (occurrence.path, row)


def _rows(node: Node, rows: Plain) -> list[dict[str, Any]]:
    return next(
        v for k, v in rows.items() if k.replace('""', "\0").replace('"', "").replace("\0", '"') == str(node.table.name)
    )


def _holding(node: Node, rows: Plain) -> dict[int, set[tuple[str, str]]]:
    """Returns, for each row of a node's table, the roots whose tree contains it. Filters are ignored."""
    if node.parent is None:
        return {i: {(o["region"], str(o["no"]))} for i, o in enumerate(_rows(node, rows))}
    above = _holding(node.parent, rows)
    found: dict[int, set[tuple[str, str]]] = {}
    for place, parent in enumerate(_rows(node.parent, rows)):
        for i, row in enumerate(_rows(node, rows)):
            if all(row[a] is not None and row[a] == parent[b] for a, b in node.on):
                found.setdefault(i, set()).update(above.get(place, set()))
    return {i: roots for i, roots in found.items() if roots}


def test_unused_columns_do_not_change_documents(conn: psycopg.Connection[Any]) -> None:
    model = compiled(conn)
    before = sorted(render(conn, model, every_key(conn)))
    used: dict[Any, set[str]] = {}
    for occurrence in model.table_uses:
        used.setdefault(occurrence.table, set()).update(occurrence.used)
    unused = {str(t): set(catalog(conn).tables[t].columns) - columns for t, columns in used.items()}
    assert unused == {
        'Größe.Kund"en': {"unused"},
        "shop.orders": {"unused"},
        "shop.lines": {"unused"},
        "shop.products": {"label", "price"},
        "shop.product_tags": set(),
        "public.tags": {"kind"},
    }
    conn.execute('UPDATE "Größe"."Kund""en" SET unused = \'other\'')
    conn.execute("UPDATE shop.orders SET unused = 2")
    conn.execute("UPDATE shop.lines SET unused = 'other'")
    conn.execute("UPDATE shop.products SET label = 'other', price = 2")
    conn.execute("UPDATE public.tags SET kind = 'other'")
    assert sorted(render(conn, model, every_key(conn))) == before
    root = model.table_uses[0]
    assert {"gross", "net", "vat"} <= root.used


def test_hazard_13_the_same_rows_give_the_same_bytes_in_any_physical_order(conn: psycopg.Connection[Any]) -> None:
    model = compiled(conn)
    before = sorted(render(conn, model, every_key(conn)))
    for name in NAMES:
        conn.execute(f"CREATE TEMP TABLE copy AS SELECT * FROM {name} ORDER BY random()".encode())
        columns = (
            "region, no, customer_id, status, net, vat, placed_at, flags, data, unused" if "orders" in name else "*"
        )
        conn.execute(f"TRUNCATE {name}".encode())
        target = f"{name} ({columns})" if columns != "*" else name
        conn.execute(f"INSERT INTO {target} SELECT {columns} FROM copy".encode())
        conn.execute("DROP TABLE copy")
    conn.execute("ANALYZE")
    assert sorted(render(conn, model, every_key(conn))) == before


def test_hazard_13_settings_of_role_and_database_do_not_change_documents(database: Database) -> None:
    """The syncer pins session settings. `now()` is refused (tests/unit/declaration/test_expressions.py)."""
    database.execute(*SCHEMA)
    with database.connect() as session:
        fill(session, seed=1)
        model, keys = compiled(session), every_key(session)

    def documents() -> list[Row]:
        with closing(SnapshotReader({"conninfo": database.dsn}, model)) as rows, rows.view() as view:
            return sorted(view.render(keys), key=lambda row: row.asked)

    before = documents()
    assert len(before) > 5
    for setting in (
        "TimeZone = 'Asia/Kathmandu'",
        "DateStyle = 'German'",
        "extra_float_digits = -5",
        "search_path = shop",
        "IntervalStyle = 'postgres'",
        "bytea_output = 'escape'",
    ):
        database.execute(f"ALTER DATABASE {database.name} SET {setting}")
    assert database.query("SHOW TimeZone") == [("Asia/Kathmandu",)]
    assert documents() == before
