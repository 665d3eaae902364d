"""A feed on PostgreSQL: the entries that a render reads from the index, and the check that asks for the index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from syncer.checks import check_model
from syncer.declaration.compile import compile
from syncer.declaration.model import parse, tables
from syncer.postgres.catalog import load
from syncer.postgres.session import PINNED
from tests.harness import Database

FOLLOWEES, POSTS, LIMIT = 20, 2000, 5
SCHEMA = f"""
CREATE TABLE users (id bigint PRIMARY KEY);
CREATE TABLE follows (follower_id bigint, followee_id bigint, PRIMARY KEY (follower_id, followee_id));
CREATE TABLE posts (id bigint PRIMARY KEY, author_id bigint, at timestamptz, text text);
ALTER TABLE posts REPLICA IDENTITY FULL;
CREATE INDEX ON follows (followee_id);
CREATE INDEX ON posts (author_id);
INSERT INTO users SELECT n FROM generate_series(1, 50) n;
INSERT INTO follows SELECT 50, n FROM generate_series(1, {FOLLOWEES}) n;
INSERT INTO posts SELECT n, 1 + n % 40, 'epoch'::timestamptz + n * interval '1 s', repeat('x', 100)
  FROM generate_series(1, {POSTS * 40}) n;
VACUUM ANALYZE"""
FEED = f"""\
name: feed
root: {{table: public.users}}
relations:
  follows: {{many: public.follows, on: {{follower_id: id}}}}
document:
  posts:
    many: public.posts
    on: {{author_id: follows.followee_id}}
    order_by: [at desc, id desc]
    limit: {LIMIT}
    document: {{id: id, text: text}}
sink: {{memory: {{}}}}
"""


@pytest.fixture
def social(database: Database) -> Database:
    database.execute(*SCHEMA.split(";"))
    return database


def findings(database: Database) -> list[Any]:
    model = parse(FEED, "m.yaml")
    with database.connect() as connection:
        catalog = load(connection, tables(model))
    return check_model("m.yaml", compile(model, catalog), catalog)


def plan(database: Database) -> dict[str, Any]:
    """Returns the executed plan that renders the feed of user 50."""
    model = parse(FEED, "m.yaml")
    with database.connect() as connection:
        for name, value in PINNED.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        compiled = compile(model, load(connection, tables(model)))
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled.render}".encode()
        [([found],)] = connection.execute(explain, [["50"]]).fetchall()
    return dict(found["Plan"])


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from nodes(below)


def test_a_render_reads_at_most_the_limit_for_each_followee(social: Database) -> None:
    [finding] = findings(social)
    assert finding.code == "no-index" and finding.severity == "warning"
    assert finding.fix == "CREATE INDEX CONCURRENTLY ON public.posts (author_id, at, id);"
    social.execute(finding.fix.rstrip(";"), "VACUUM ANALYZE posts")
    assert not findings(social)

    scans = [node for node in nodes(plan(social)) if node.get("Relation Name") == "posts"]
    read = {node["Node Type"]: node["Actual Rows"] * node["Actual Loops"] for node in scans}
    assert read == {"Index Only Scan": FOLLOWEES * LIMIT, "Index Scan": LIMIT}
