"""Binds `up`: its steps, and the message for each mistake."""

# ruff: noqa: E501 - each case is one line

import pytest

from syncer.declaration.compile import Compiled, compile
from syncer.declaration.compiled import Climb
from syncer.declaration.model import parse
from syncer.errors import Fatal
from tests.harness.catalogs import catalog, table

SHOP = catalog(
    table("categories", "id bigint key, parent_id bigint, name text, code text, owner_id bigint", unique=("code",)),
    table("products", "id bigint key, category_id bigint, code text, name text", full=True),
    table("places", "region text key, no int key, up_region text, up_no int, name text"),
    table("owners", "id bigint key, name text"),
)
CATEGORIES = "name: m\nroot: {table: categories}\ndocument:\n  name: name\n  above: ABOVE\nsink: {m: {}}"
PRODUCTS = CATEGORIES.replace("categories", "products")
ABOVE = "{up: categories, on: {id: parent_id}, limit: 20, value: name}"


def compiled(above: str = ABOVE, text: str = CATEGORIES) -> Compiled:
    return compile(parse(text.replace("ABOVE", above), "m.yaml"), SHOP)


def climb(above: str = ABOVE, text: str = CATEGORIES) -> Climb:
    [found] = [use.ancestors for use in compiled(above, text).table_uses if use.ancestors]
    return found.climb


def test_the_step_defaults_to_the_link_of_the_outer_row_in_its_own_tree() -> None:
    assert climb() == Climb((("id", "parent_id"),), 20, farthest_first=True, starts_in_tree=True)
    nearest = ABOVE.replace("limit: 20", "limit: 3, first: nearest")
    assert climb(nearest) == Climb((("id", "parent_id"),), 3, farthest_first=False, starts_in_tree=True)


def test_a_row_of_another_table_names_the_step() -> None:
    above = "{up: categories, on: {id: category_id}, step: {id: parent_id}, limit: 20, value: name}"
    assert climb(above, PRODUCTS) == Climb((("id", "parent_id"),), 20, farthest_first=True, starts_in_tree=False)


def test_a_key_of_several_columns_has_the_order_of_the_link() -> None:
    above = (
        "{up: places, on: {no: up_no, region: up_region}, step: {region: up_region, no: up_no}, limit: 2, value: name}"
    )
    found = climb(above, CATEGORIES.replace("categories", "places"))
    assert found.step == (("no", "up_no"), ("region", "up_region")) and found.starts_in_tree


def test_only_the_key_of_a_changed_ancestor_is_looked_up_and_its_parent_counts_as_used() -> None:
    [_, use] = compiled().table_uses
    assert use.lookup and use.lookup.columns == ("id",) and use.lookup.sql is not None and not use.needs_before
    assert use.used == {"id", "parent_id", "name"}
    assert compiled().table_uses[0].used == {"id", "parent_id", "name"}, "the outer row's link"


def test_an_ancestor_can_show_its_relations_and_an_expression_can_use_the_path() -> None:
    above = "{up: categories, on: {id: parent_id}, limit: 9, document: {owner: {one: owners, on: {id: owner_id}, value: name}}}"
    text = CATEGORIES.replace("name: name\n", "trail: string_agg(above.name, ' > ')\n  depth: count(above)\n")
    found = compiled(above, text)
    assert [(field.name, field.type, field.many) for field in found.fields] == [
        ("trail", "text", False),
        ("depth", "bigint", False),
        ("above", "object", True),
    ]
    hidden = "relations: {above: {up: categories, on: {id: parent_id}, limit: 9}}\ndocument: {top: first(above.name)}"
    model = f"name: m\nroot: {{table: categories}}\n{hidden}\nsink: {{m: {{}}}}"
    assert len(compile(parse(model, "m.yaml"), SHOP).table_uses) == 2


@pytest.mark.parametrize(
    ("text", "above", "message"),
    [
        (PRODUCTS, "{up: categories, on: {id: category_id}, limit: 9, value: name}", "m.yaml:5: `step` is missing: it links each row of public.categories to the next ancestor\n  → write step: {id: parent_id}"),
        (PRODUCTS, "{up: categories, on: {code: code}, step: {id: parent_id}, limit: 9, value: name}", "`step` leads to other columns of public.categories than `on`\n  → use the columns of `on` as keys: code"),
        (PRODUCTS, "{up: categories, on: {id: category_id}, step: {id: id}, limit: 9, value: name}", "`step` leads from each row of public.categories to itself"),
        (PRODUCTS, "{up: categories, on: {id: category_id}, step: {id: parent}, limit: 9, value: name}", "public.categories has no column parent\n"),
        (PRODUCTS, "{up: categories, on: {id: category_id}, step: {id: name}, limit: 9, value: name}", "cannot link public.categories.id (bigint) and public.categories.name (text)\n  → use columns of one type; or give"),
        (CATEGORIES, "{up: categories, on: {id: name}, limit: 9, value: name}", "cannot link public.categories.id (bigint) and public.categories.name (text)\n  → use columns of one type; or give"),
        (CATEGORIES, "{up: categories, on: {name: code}, limit: 9, value: name}", "public.categories can have many rows with the same value of (name)\n  → make the value unique: CREATE UNIQUE INDEX"),
        (PRODUCTS, "{up: categories, on: {id: other.category_id}, step: {id: parent_id}, limit: 9, value: name}", "the link of a `up` relation cannot go through another relation\n  → declare it in the `relations`"),
        (PRODUCTS, "{up: categories, on: {'id::text': code}, step: {id: parent_id}, limit: 9, value: name}", "a path of ancestors cannot link public.categories.id (bigint) and public.products.code (text)"),
        (CATEGORIES, "{up: categories, on: {id: parent_id}, when: name = 'a', limit: 9, value: name}", "unknown key 'when'"),
        (CATEGORIES, "{up: categories, on: {owner_id: id}, where: name = 'a', limit: 9, value: name}", "many rows with the same value of (owner_id)"),
        (CATEGORIES, "{up: category, on: {id: parent_id}, limit: 9, value: name}", "there is no table public.category\n"),
        (CATEGORIES, "{up: categories, on: {id: parent_id}, value: name}", "the key 'limit' is missing"),
        (CATEGORIES, "{up: categories, on: {id: parent_id}, limit: 101, value: name}", "'limit': must be at most 100\n  → Maximum number of ancestors"),
        (CATEGORIES, "{up: categories, on: {id: parent_id}, limit: 9, first: top, value: name}", "'first': must be 'farthest' or 'nearest'\n  → Which ancestor comes first"),
        (CATEGORIES, "{up: categories, on: {id: parent_id}, limit: 9}", "give either `document` or `value`"),
        (CATEGORIES, "{up: categories, on: {id: parent_id}, limit: 9, order_by: id, value: name}", "unknown key 'order_by'"),
        (CATEGORIES, "{many: categories, up: categories, on: {parent_id: id}, value: name}", "unknown key 'up'\n  → a relation has either `one`, `many` or `up`"),
        (CATEGORIES, "{ups: categories, on: {id: parent_id}, limit: 9, value: name}", "unknown key 'ups'\n  → did you mean 'up'?"),
        (CATEGORIES, "{down: categories, on: {parent_id: id}, limit: 9, value: name}", "unknown key 'down'\n  → the descendants of a row cannot be listed to any depth"),
        (CATEGORIES, "{one: categories, on: {id: parent_id}, depth: 9, value: name}", "unknown key 'depth'\n  → write `up` for the ancestors of a row"),
        (CATEGORIES, "{many: categories, on: {parent_id: id}, descendants: 9, value: name}", "unknown key 'descendants'\n  → the descendants of a row cannot be listed to any depth"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_line_and_what_to_write(text: str, above: str, message: str) -> None:
    with pytest.raises(Fatal) as error:
        compiled(above, text)
    assert message in str(error.value) and "m.yaml:5" in str(error.value)


def test_the_levels_that_the_hint_suggests_work() -> None:
    levels = "{many: categories, on: {parent_id: id}, document: {name: name, children: {many: categories, on: {parent_id: id}, value: name}}}"
    assert len(compiled(levels).table_uses) == 3
