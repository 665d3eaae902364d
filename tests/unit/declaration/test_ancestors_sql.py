"""The SQL of ancestors. `tests/engine/test_trees.py` runs it on PostgreSQL."""

from syncer.declaration.ancestors_sql import ancestors, depth_of, path_up, rows_below
from syncer.declaration.binding import bind
from syncer.declaration.model import parse
from syncer.declaration.node import Node
from tests.harness.catalogs import catalog, table


def node(columns: str, limit: int = 5) -> Node:
    """Returns the node of the ancestors in a tree with these columns."""
    text = "name: m\nroot: {table: t}\ndocument: {a: {up: t, on: {k: p}, limit: LIMIT, value: k}}\nsink: {m: {}}"
    root = bind(parse(text.replace("LIMIT", str(limit)), "m.yaml"), catalog(table("t", columns)), [])
    found = root.links["a"]
    assert isinstance(found, Node)
    return found


def test_the_depth_has_a_name_that_no_column_of_the_table_has() -> None:
    assert depth_of(node("k int key, p int")) == "depth"
    tree = node("k int key, p int, depth int, depth_ int, seen text")
    assert depth_of(tree) == "depth__"
    assert ' AS "depth__", ' in path_up(tree, "t0") and ' AS "seen_" ' in path_up(tree, "t0")


def test_the_look_up_goes_down_one_level_less_than_the_limit() -> None:
    found, columns = rows_below(node("k int key, p int", 5), ["v.v0"])
    assert columns == ["k0"] and "2 AS depth" in found and "WHERE w.depth < 5" in found
    assert rows_below(node("k int key, p int", 1), ["v.v0"]) == ("LATERAL (SELECT v.v0 AS k0)", ["k0"])


def test_a_path_that_starts_in_its_tree_is_longer_than_the_limit_if_the_row_has_more_ancestors() -> None:
    found = ancestors(node("k int key, p int", 5), "v", ["v.v0"])
    assert "r.depth > 6" in found.search and "max(r.depth) - 1" in found.search
