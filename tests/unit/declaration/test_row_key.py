"""Tables without a primary key: which unique index identifies their rows, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from syncer.checks import check_model
from syncer.declaration.catalog import Index, Table
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse
from syncer.declaration.row_key import row_key
from syncer.errors import Fatal
from tests.harness.catalogs import catalog, table

POSTS = table("posts", "id bigint key, name text")
PAIRS = "post_id bigint not, tag_id bigint not, note text"
MODEL = """
name: m
root: {table: ROOT}
document:
  tags: {many: pairs, on: {post_id: id}, value: note}
sink: {memory: {}}
"""


def model(pairs: Table, root: str = "posts") -> Compiled:
    return compile(parse(MODEL.replace("ROOT", root), "m.yaml"), catalog(POSTS, pairs))


def pairs(*indexes: Index, columns: str = PAIRS, **more: Any) -> Table:
    """Returns a table with these indexes, and the key that `postgres/catalog.py` chooses."""
    made = replace(table("pairs", columns, **more), indexes=indexes)
    chosen = row_key(made.columns, indexes, made.leaves[0].identity_columns)
    return replace(made, primary_key=chosen.columns if chosen else (), key_index=chosen.name if chosen else "")


UNIQUE = Index("u", ("post_id", "tag_id"), True, False)


def test_the_columns_of_a_unique_index_complete_the_order_and_identify_the_rows() -> None:
    compiled = model(pairs(UNIQUE, full=True))
    assert 'ORDER BY t1."post_id" ASC NULLS LAST, t1."tag_id" ASC NULLS LAST' in compiled.render
    assert {"post_id", "tag_id"} <= compiled.table_uses[1].used


@pytest.mark.parametrize(
    ("index", "columns", "message", "hint"),
    [
        (replace(UNIQUE, partial=True), PAIRS, "u: it is partial", "ADD PRIMARY KEY (…)"),
        (replace(UNIQUE, deferrable=True), PAIRS, "u: it is deferrable", "ADD PRIMARY KEY (…)"),
        (replace(UNIQUE, unique=False, unique_expression=True), PAIRS, "u: it has an expression", "ADD PRIMARY KEY"),
        (
            UNIQUE,
            "post_id bigint not, tag_id bigint, note text",
            "u: tag_id can be NULL",
            'ALTER TABLE "public"."pairs" ALTER "tag_id" SET NOT NULL',
        ),
        (UNIQUE, "post_id bigint not, tag_id jsonb not, note text", "u: the type of tag_id cannot be a key", "ADD"),
    ],
)
def test_an_index_that_does_not_identify_a_row_is_refused(index: Index, columns: str, message: str, hint: str) -> None:
    with pytest.raises(Fatal) as error:
        model(pairs(index, columns=columns))
    start = f"m.yaml:5: public.pairs has no primary key, and no unique index identifies its rows ({message})"
    assert str(error.value).startswith(start)
    assert hint in error.value.hint


def test_a_table_without_any_unique_index_is_refused() -> None:
    with pytest.raises(Fatal, match=r"public\.pairs has no primary key\n"):
        model(pairs(Index("i", ("post_id",), False, False)))


@pytest.mark.parametrize("columns", [PAIRS, "post_id bigint, tag_id bigint not, note text"])
def test_a_root_table_needs_a_primary_key(columns: str) -> None:
    """The statement makes the columns NOT NULL, too."""
    with pytest.raises(Fatal) as error:
        model(pairs(UNIQUE, columns=columns), root="pairs")
    assert "m.yaml:3: public.pairs has no primary key; the unique index on (post_id, tag_id) is" in str(error.value)
    lines = str(error.value).splitlines()
    at = next(n for n, line in enumerate(lines) if "is not enough for the root table" in line)
    assert lines[at + 1].strip() == '→ ALTER TABLE "public"."pairs" ADD PRIMARY KEY ("post_id", "tag_id")'


def test_the_index_of_the_replica_identity_is_preferred_then_the_shortest() -> None:
    short, other = Index("s", ("tag_id",), True, False), Index("a", ("post_id",), True, False)
    columns = table("pairs", PAIRS).columns
    assert row_key(columns, [UNIQUE, short]) == short
    assert row_key(columns, [short, other]) == other
    assert row_key(columns, [UNIQUE, short], ("post_id", "tag_id")) == UNIQUE
    assert row_key(columns, []) is None


def fix(found: Table) -> str:
    findings = check_model("m.yaml", model(found), catalog(POSTS, found))
    [finding] = [finding for finding in findings if finding.severity == "error"]
    assert finding.code == "identity-nothing"
    return finding.fix


def test_check_prints_the_replica_identity_that_the_links_need() -> None:
    assert fix(pairs(UNIQUE)) == "ALTER TABLE public.pairs REPLICA IDENTITY USING INDEX u;"
    other = Index("other", ("tag_id",), True, False)
    assert fix(pairs(other)) == "ALTER TABLE public.pairs REPLICA IDENTITY FULL;", "the link is not in the index"
    leaf = replace(pairs(UNIQUE).leaves[0], identity="index", identity_columns=("post_id", "tag_id"))
    found = replace(pairs(UNIQUE), leaves=(leaf,))
    assert [f for f in check_model("m.yaml", model(found), catalog(POSTS, found)) if f.severity == "error"] == []


def test_new_partitions_of_a_table_without_a_primary_key_have_no_identity() -> None:
    found = replace(pairs(UNIQUE, full=True), kind="partitioned")
    [finding] = [f for f in check_model("m.yaml", model(found), catalog(POSTS, found)) if f.code == "new-partitions"]
    assert finding.what == "a new partition will have a replica identity that leaves out post_id, tag_id"
