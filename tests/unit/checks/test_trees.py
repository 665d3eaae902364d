"""Findings about trees, from facts given as literals."""

from dataclasses import replace

from syncer.checks import check_model
from syncer.checks.trees import TreeFacts, check_trees
from syncer.declaration.catalog import Index
from syncer.declaration.compile import compile
from syncer.declaration.compiled import Ancestors, Climb
from syncer.declaration.model import parse
from syncer.events import TableName
from tests.harness.catalogs import catalog, table

CLIMB = Climb((("id", "parent_id"),), 20, farthest_first=True, starts_in_tree=True)
FACTS = TreeFacts("above", TableName("public", "nodes"), Ancestors(CLIMB, "", "SELECT 1", ""))


def test_a_sound_tree_has_no_findings() -> None:
    assert check_trees("m.yaml", [FACTS.found(0, 0, 20, ())]) == []


def test_a_cycle_is_a_warning_that_names_its_rows() -> None:
    [finding] = check_trees("m.yaml", [FACTS.found(12, 0, 4, ("9", "3", "7", "3"))])
    assert (finding.severity, finding.code, finding.where) == ("warning", "tree-cycle", "m.yaml: above")
    assert finding.what == "12 rows of public.nodes are on a cycle or below one, such as 3 → 7 → 3"
    assert finding.fix.endswith("UPDATE public.nodes SET parent_id = NULL WHERE id = …;")


def test_a_long_cycle_needs_no_example() -> None:
    [finding] = check_trees("m.yaml", [FACTS.found(5000, 0, 0, ())])
    assert finding.what == "5,000 rows of public.nodes are on a cycle or below one"


def test_a_path_beyond_the_limit_is_a_note_that_suggests_a_limit_if_one_is_large_enough() -> None:
    [finding] = check_trees("m.yaml", [FACTS.found(0, 3, 37, ())])
    assert (finding.severity, finding.code, finding.fix) == ("note", "tree-depth", "limit: 37")
    assert "3 rows of public.nodes have more than 20 ancestors" in finding.what
    [finding] = check_trees("m.yaml", [FACTS.found(0, 3, 137, ())])
    assert finding.fix == ""


def test_a_search_that_took_too_long_is_a_note_with_the_statement() -> None:
    [finding] = check_trees("m.yaml", [FACTS])
    assert (finding.severity, finding.code, finding.fix) == ("note", "tree-search", "SELECT 1;")


def test_the_step_needs_an_index() -> None:
    text = "name: m\nroot: {table: items}\ndocument: {above: ABOVE}\nsink: {m: {}}"
    above = "{up: nodes, on: {id: node_id}, step: {id: parent_id}, limit: 9, value: id}"
    nodes = table("nodes", "id bigint key, parent_id bigint")
    items = replace(
        table("items", "id bigint key, node_id bigint", full=True), indexes=(Index("i", ("node_id",), False, False),)
    )
    found = catalog(nodes, items)
    [finding] = check_model("m.yaml", compile(parse(text.replace("ABOVE", above), "m.yaml"), found), found)
    assert (finding.code, finding.what) == ("no-index", "public.nodes has no index on parent_id")
    assert finding.fix == "CREATE INDEX CONCURRENTLY ON public.nodes (parent_id);"
    once = compile(parse(text.replace("ABOVE", above.replace("limit: 9", "limit: 1")), "m.yaml"), found)
    assert check_model("m.yaml", once, found) == [], "a look-up for one ancestor needs no step"
