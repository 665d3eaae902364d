"""The form of a read model: what it accepts, what it refuses, and the line in each error."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from syncer.declaration import form, located_yaml, model
from syncer.declaration.form import Many, One
from syncer.declaration.model import meant, parse, possible_tables, tables
from syncer.declaration.names import spellings
from syncer.errors import Fatal
from syncer.events import TableName

ORDERS = """\
name: orders
root: {table: public.orders}
where: status <> 'draft'
document:
  order_id: id
  one: 1
  address: {object: {street: street, country: {one: countries, on: {code: country}, value: name}}}
  items:
    many: public.order_items
    on: {order_id: id}
    order_by: [position, id desc]
    limit: 50
    document:
      product:
        one: public.products
        on: {id: product_id}
        document: {sku: sku}
  tags:
    many: shop.product_tags
    on: {product_id: id}
    relations: {tag: {one: '"Tags"', on: {id: tag_id}}}
    value: tag.name
  by_status: {value: sum(items.quantity), group_by: items.status}
sink:
  elasticsearch: {index: orders, shards: 2, refresh: yes, mapping: {dynamic: false}}
"""


def mistakes(text: str) -> str:
    with pytest.raises(Fatal) as error:
        model.parse(text, "m.yaml")
    return str(error.value)


def test_a_declaration_is_a_tree_with_the_line_of_each_part() -> None:
    found = model.parse(ORDERS, "orders.yaml")
    items = found.declaration.document["items"]
    assert isinstance(items, Many) and items.document
    assert items.order == ["position", "id desc"]
    assert items.limit == 50
    assert isinstance(items.document["product"], One)
    assert found.at(("document", "items", "document", "product", "on", "id")) == "orders.yaml:16"
    assert found.at(("document", "items", "order_by", 1)) == "orders.yaml:11"
    assert found.at(("document", "items", "nowhere")) == "orders.yaml:8"


def test_scalars_stay_text_except_in_the_settings_of_sinks() -> None:
    found = model.parse(ORDERS, "orders.yaml").declaration
    assert found.document["one"] == "1"
    settings = found.sink["elasticsearch"]
    assert settings == {"index": "orders", "shards": 2, "refresh": "yes", "mapping": {"dynamic": False}}


def test_tables_include_every_possible_spelling() -> None:
    assert model.tables(model.parse(ORDERS, "orders.yaml")) == {
        TableName("public", "orders"),
        TableName("public", "countries"),
        TableName("public", "order_items"),
        TableName("public", "products"),
        TableName("shop", "product_tags"),
        TableName("public", "Tags"),
    }
    assert spellings("Shop.Orders") == [TableName("Shop", "Orders"), TableName("shop", "orders")]
    assert spellings('shop."A.b ""c"""') == [TableName("shop", 'A.b "c"')]
    for wrong in ("", "a.b.c", "a b", 'a."b', "a."):
        with pytest.raises(ValueError, match="name"):
            spellings(wrong)


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("name: orders", "name: Orders", 1, "'name': must be a lower-case letter, followed by"),
        ("where: status", "wehre: status", 3, "unknown key 'wehre'\n  → did you mean 'where'?"),
        ("    many: public.order_items", "    mnay: public.order_items", 9, "did you mean 'many'?"),
        ("    limit: 50", "    limit: 0", 12, "'limit': must be greater than 0\n  → Maximum length of the list"),
        ("    limit: 50", "    limit: few", 12, "'limit': must be a whole number\n  → Maximum length of the list"),
        ("    order_by: [position, id desc]", "    oder_by: id", 11, "did you mean 'order_by'?"),
        ("        on: {id: product_id}\n", "", 14, "the key 'on' is missing"),
        ("        document: {sku: sku}\n", "", 14, "give either `document` or `value`"),
        ("    value: tag.name", "    value: tag.name\n    document: {a: a}", 18, "give either `document` or"),
        (
            "{tag: {one: '\"Tags\"', on: {id: tag_id}}}",
            "{tag: id}",
            21,
            "'tag' is not a relation\n  → write a mapping with `one`, `many` or `up`",
        ),
        ("  order_id: id", "  order_id:", 5, "'order_id': must not be empty"),
        ("[position, id desc]", "[]", 11, "m.yaml:11: 'order_by': must not be empty"),
        (
            "[position, id desc]",
            "{a: b}",
            11,
            "m.yaml:11: 'order_by': must be an expression, or a list of expressions\n  → The order,",
        ),
        ("[position, id desc]", "[position, {a: b}]", 11, "m.yaml:11: 'order_by.1': must be a text\n  → The order,"),
        ("[position, id desc]", "''", 11, "m.yaml:11: 'order_by': must not be empty"),
        ("  order_id: id", "  order_id: [id]", 5, "'order_id' is neither an expression nor a known mapping"),
        ("  one: 1", "  order_id: id", 6, "the key 'order_id' is duplicated\n  → see line 5; keep one"),
        ("  one: 1", "  ? [a]\n  : b", 6, "a key has to be a single word or text"),
        ("{table: public.orders}", "{tabel: public.orders}", 2, "did you mean 'table'?"),
        ("  order_id: id", "  order_id: 'id", 21, "this is not valid YAML"),
    ],
)
def test_each_mistake_is_reported_with_its_line(old: str, new: str, line: int, what: str) -> None:
    assert old in ORDERS
    text = mistakes(ORDERS.replace(old, new, 1))
    assert what in text
    assert f"m.yaml:{line}: " in text


@pytest.mark.parametrize("order", ["[]", "{a: b}", "[position, {a: b}]", "''"])
def test_a_wrong_list_or_text_is_one_mistake(order: str) -> None:
    """A text and a list are two alternatives. Only the one that was meant is reported."""
    text = mistakes(ORDERS.replace("[position, id desc]", order, 1))
    assert "mistakes" not in text and text.count("m.yaml:") == 1


def test_all_mistakes_are_reported_together() -> None:
    text = mistakes("name: 1x\nroot: {table: t, schema: s}\ndocument: {a: {one: b, value: c, limit: 1}}\n")
    assert text.startswith("5 mistakes\n")
    for what in (
        "m.yaml:1: 'name'",
        "m.yaml:2: unknown key 'schema'",
        "the key 'on' is missing",
        "unknown key 'limit'",
    ):
        assert what in text
    assert "m.yaml:1: the key 'sink' is missing" in text


@pytest.mark.parametrize("text", ["", "- a", "just text", "a: &x [*x]", "a: 1\n---\nb: 2", "\t- x"])
def test_text_that_is_not_a_declaration_is_refused_with_the_file(text: str) -> None:
    assert mistakes(text).startswith("m.yaml")


def test_a_folder_is_loaded_in_the_order_of_names_and_all_its_mistakes_are_reported(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(ORDERS.replace("name: orders", "name: zebra"))
    (tmp_path / "c.yml").write_text(ORDERS)
    (tmp_path / "notes.txt").write_text("not read")
    assert [m.name for m in model.load_all(tmp_path)] == ["orders", "zebra"]
    (tmp_path / "d.yaml").write_text(ORDERS)
    (tmp_path / "e.yaml").write_text("name: e")
    with pytest.raises(Fatal) as error:
        model.load_all(tmp_path)
    taken = f"{tmp_path}/d.yaml:1: the name 'orders' is already taken: {tmp_path}/c.yml has it too"
    assert taken in str(error.value)
    assert "the key 'document' is missing" in str(error.value)
    for wrong in (tmp_path / "nowhere", tmp_path / "nowhere.yaml"):
        with pytest.raises(Fatal, match="nowhere"):
            model.load(wrong) if wrong.suffix else model.load_all(wrong)


def test_the_json_schema_is_current_and_accepts_the_same_declarations() -> None:
    schema = json.loads(form.json_schema())
    assert Path("config/readmodel.schema.json").read_text() == form.json_schema(), (
        "run: python -c 'from syncer.declaration.form import json_schema; print(json_schema(), end=\"\")'"
        " > config/readmodel.schema.json"
    )
    validator = jsonschema.Draft202012Validator(schema)
    # An editor reads YAML 1.2, where `on` is text. PyYAML reads YAML 1.1, where it is a boolean.
    plain, _ = located_yaml.read(ORDERS, "m.yaml", located_yaml.text_except_under({"document", "sink"}))
    assert list(validator.iter_errors(plain)) == []
    for old, new in (("many: p", "mnay: p"), ("limit: 50", "limit: few"), ("name: orders", "name: O")):
        wrong = yaml.safe_load(ORDERS.replace(" on:", ' "on":').replace(old, new))
        assert list(validator.iter_errors(wrong))


def test_the_first_spelling_that_exists_is_meant() -> None:
    upper, lower = TableName("public", "Orders"), TableName("public", "orders")
    found = parse("name: t\nroot: {table: Orders}\ndocument: {id: id}\nsink: {m: {}}", "m.yaml")
    assert possible_tables(found) == [(upper, lower)] and tables(found) == {upper, lower}
    for existing, right in (({upper, lower}, upper), ({lower}, lower)):
        assert meant(possible_tables(found), existing) == {right}
    assert meant(possible_tables(found), set()) == set()
