"""Compiles lists that are linked through other relations: their mistakes, look-ups and used columns."""

from __future__ import annotations

import pytest

from syncer.declaration.catalog import SortColumn
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse
from syncer.errors import Fatal
from tests.harness.catalogs import SOCIAL

FEED = """\
name: feed
root: {table: users}
relations:
  follows: {many: follows, on: {follower_id: id}, where: not muted}
document:
  posts:
    many: posts
    on: {author_id: follows.followee_id}
    order_by: id desc
    limit: 50
    document: {id: id, likes: count(likes)}
    relations:
      likes: {many: likes, on: {post_id: id}}
sink: {memory: {}}
"""


def compiled(old: str = "", new: str = "") -> Compiled:
    assert old in FEED
    return compile(parse(FEED.replace(old, new, 1) if old else FEED, "m.yaml"), SOCIAL)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "follows.followee_id",
            "folows.followee_id",
            "m.yaml:8: public.users has no relation 'folows' here\n  → did you mean 'follows'?",
        ),
        (
            "follows.followee_id",
            "follows.folowee_id",
            "m.yaml:8: public.follows has no column or relation 'folowee_id' here\n  → did you mean 'followee_id'?",
        ),
        (
            "follows.followee_id",
            "follows.followee.id",
            "m.yaml:8: public.follows has no relation 'followee' here",
        ),
        (
            "follows.followee_id}",
            "follows.followee_id}\n    when: name = 'x'",
            "m.yaml:8: a link through other relations cannot have `when`\n  → put the condition into `where` of one of",
        ),
        (
            "follows.followee_id",
            '"follows.followee_id::int8"',
            "m.yaml:8: cannot link public.posts.author_id and public.follows.followee_id: a link cannot cast",
        ),
        ("follows.followee_id", "posts.author_id", "m.yaml:8: relations link to each other in a circle"),
        ("follows.followee_id", "name.id", "m.yaml:8: 'name' is a column, not a relation"),
        ("follows.followee_id", "follows. x", "m.yaml:8: 'follows. x' is not a name"),
        (
            "follows.followee_id",
            "follows.muted",
            "m.yaml:8: cannot link public.posts.author_id (bigint) and public.follows.muted (boolean)",
        ),
        (
            "{author_id: follows.followee_id}",
            "{author_id: follows.followee_id, id: id}",
            "m.yaml:8: the columns of a link belong to different rows\n  → link all columns to the same row",
        ),
        (
            "    many: posts\n    on: {author_id: follows.followee_id}\n    order_by: id desc\n    limit: 50\n",
            "    one: posts\n    on: {id: follows.followee_id}\n",
            "m.yaml:8: the link of a `one` relation cannot go through another relation\n  → declare it in",
        ),
        (
            "many: follows",
            "many: folows",
            "m.yaml:4: there is no table public.folows\n  → did you mean 'public.follows'?",
        ),
    ],
)
def test_each_mistake_is_reported_with_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(Fatal) as error:
        compiled(old, new)
    assert message in str(error.value)
    assert "mistakes" not in str(error.value), "a mistake has no consequences"


def test_the_look_ups_go_through_the_relations_on_the_way() -> None:
    found = {use.path: use for use in compiled().table_uses}
    assert list(found) == ["", "follows", "posts", "posts.likes"]
    assert found["follows"].lookup and found["follows"].lookup.sql is None, "the link is the key of the user"
    posts, likes = found["posts"].lookup, found["posts.likes"].lookup
    assert posts and posts.columns == ("author_id",) and posts.sql
    assert '"followee_id" = v.v0' in posts.sql and '"users"' not in posts.sql
    assert [found[path].through for path in ("follows", "posts", "posts.likes")] == ["", "follows", ""]
    assert found["posts"].parent == found["follows"].table and found["posts"].parent_columns == ("followee_id",)
    assert likes and likes.sql and likes.sql.count("DISTINCT") == 3, "the posts of an author have the same followers"


def test_each_relation_on_the_way_is_a_level_of_look_ups() -> None:
    assert compiled().lookup_levels == 2


def test_the_rows_on_the_way_use_their_filters_and_the_end_of_the_path() -> None:
    found = {use.path: use.used for use in compiled().table_uses}
    assert found["follows"] == {"follower_id", "followee_id", "muted"}
    assert found["posts"] == {"id", "author_id"}


def test_the_order_of_a_list_with_a_limit_is_known_for_an_index() -> None:
    def listed_by(order: str, limit: str = "limit: 50") -> object:
        text = FEED.replace("order_by: id desc", f"order_by: {order}").replace("limit: 50", limit)
        uses = compile(parse(text, "m.yaml"), SOCIAL).table_uses
        return next(use for use in uses if use.path == "posts").listed_by

    newest = SortColumn("id", descending=True, nulls_first=True)
    assert listed_by("id desc") == (newest,)
    assert listed_by("[lang, id desc]") == (SortColumn("lang"), newest)
    assert listed_by("lang desc nulls last") == (SortColumn("lang", descending=True), SortColumn("id"))
    assert listed_by("lower(lang)") == ()
    assert listed_by("id desc", "where: lang = 'en'") is None


def test_relations_on_the_way_may_be_declared_later_nested_and_linked_through_others() -> None:
    text = """\
name: n
root: {table: users}
document:
  o: {object: {fans: {many: users, on: {id: liked.user_id}, value: name}}}
  liked: {many: likes, on: {post_id: o2.posts.id}, value: user_id}
  o2: {object: {posts: {many: posts, on: {author_id: id}, value: id}}}
  fan_count: count(o.fans)
sink: {memory: {}}
"""
    uses = compile(parse(text, "m.yaml"), SOCIAL).table_uses
    assert [use.path for use in uses] == ["", "o2.posts", "liked", "o.fans"], "parents come first"


def test_a_path_may_end_at_a_text() -> None:
    found = compiled("{author_id: follows.followee_id}", '{text: "follows.followee_id::text"}')
    assert '"followee_id"::pg_catalog.text AS v0' in found.render
    posts = next(use for use in found.table_uses if use.path == "posts")
    assert posts.lookup and 'p0."followee_id" = CASE WHEN' in (posts.lookup.sql or "")
