"""Social feed: pages of a user's feed from Redis, older posts from PostgreSQL, and a post that reaches many feeds.

`FOLLOWERS` is the number of followers of the celebrity, who is user 1.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, LiteralString

import orjson
import psycopg
import redis

from demo import screen
from demo.arrivals import Watch, reach_all
from demo.examples import ROOT, Example, Servers, expect_equal
from demo.screen import Failed

_FOLDER = ROOT / "readmodels" / "social_feed"
FOLLOWERS = int(os.environ.get("FOLLOWERS") or "5000")
PAGE, FEED = 20, 50
_BATCH = 1000

EXPECTED = f"""
SELECT u.id, coalesce((SELECT array_agg(id ORDER BY id DESC) FROM (
       SELECT p.id FROM follows f JOIN posts p ON p.author_id = f.followee_id
        WHERE f.follower_id = u.id ORDER BY p.id DESC LIMIT {FEED}) newest), '{{}}')
  FROM users u ORDER BY u.id"""
OLDER = f"""
SELECT p.id, p.author_id, u.name AS author, p.text
  FROM follows f JOIN posts p ON p.author_id = f.followee_id JOIN users u ON u.id = p.author_id
 WHERE f.follower_id = %s AND p.id < %s
 ORDER BY p.id DESC LIMIT {PAGE}"""
ALL: LiteralString = """
SELECT p.id, p.author_id, u.name AS author, p.text
  FROM follows f JOIN posts p ON p.author_id = f.followee_id JOIN users u ON u.id = p.author_id
 WHERE f.follower_id = %s ORDER BY p.id DESC"""


class Feed:
    """Reads the feed of a user. client: of Redis. connection: of the application's database, for older posts."""

    def __init__(self, client: Any, connection: psycopg.Connection[Any]) -> None:
        self._client, self._connection = client, connection

    def page(self, user: int, before: int | None = None) -> list[dict[str, Any]]:
        """Returns the newest posts, or those older than the post `before`. It is empty after the last page.

        A page is found by its last post, so a new post shifts nothing. Redis has the first 50 posts.
        """
        feed = self._feed(user)
        ids = [id for id in feed if before is None or id < before][:PAGE]
        found = self._posts(ids)
        if len(ids) == PAGE or len(feed) < FEED:
            return found
        return [*found, *self._older(user, ids[-1] if ids else before)][:PAGE]

    def pages(self, user: int) -> Iterator[list[dict[str, Any]]]:
        """Yields all pages of a user."""
        found = self.page(user)
        while found:
            yield found
            found = self.page(user, found[-1]["id"])

    def _feed(self, user: int) -> list[int]:
        feed = self._client.get(f"feed:{user}")
        return list(orjson.loads(feed)["posts"]) if feed else []

    def _posts(self, ids: list[int]) -> list[dict[str, Any]]:
        """Returns the posts of a page. A post that was just deleted is left out."""
        texts = self._client.mget([f"post:{id}" for id in ids]) if ids else []
        posts = [{"id": id} | orjson.loads(text) for id, text in zip(ids, texts, strict=True) if text]
        return [{name: post[name] for name in ("id", "author_id", "author", "text")} for post in posts]

    def _older(self, user: int, before: int | None) -> list[dict[str, Any]]:
        with self._connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute(OLDER.encode(), (user, before)).fetchall()


def _fill(connection: psycopg.Connection[Any]) -> None:
    for statement in (_FOLDER / "rows.sql").read_text("utf-8").format(followers=FOLLOWERS).split(";\n"):
        if statement.strip():
            connection.execute(statement.encode())


def _use(dsn: str, seconds: float) -> None:
    """Users post, follow and delete. In between, the celebrity posts once, and every feed is awaited."""
    screen.note(f"users post and follow; after {seconds / 2:g} s, user 1 writes a post for {FOLLOWERS:,} followers")
    client = redis.Redis.from_url(os.environ["SYNCER_REDIS__URL"])
    took, found = reach(dsn, client, FOLLOWERS, seconds)
    screen.note(f"the post reached {FOLLOWERS:,} feeds in {took:.1f} s: {FOLLOWERS / took:,.0f} feeds/s")
    if found:
        p50, p99 = found[len(found) // 2], found[len(found) * 99 // 100]
        screen.note(f"meanwhile, {len(found)} posts of others reached a feed: p50 {p50:.2f} s, p99 {p99:.2f} s")


def reach(dsn: str, client: Any, followers: int, seconds: float) -> tuple[float, list[float]]:
    """Lets users write, and the celebrity post once after half of the time.

    Returns the seconds until all feeds had this post, and those of each other post that was written meanwhile, sorted.
    """
    ended = threading.Event()
    with Watch(client) as others, psycopg.connect(dsn, autocommit=True) as connection:
        users = threading.Thread(target=_post, args=(dsn, followers, others, ended))
        users.start()
        try:
            time.sleep(seconds / 2)
            began = time.monotonic()
            post = _new_post(connection, 1)
            took = reach_all(client, post, range(2, followers + 2), timeout=60 + followers / 50)
            time.sleep(seconds / 2)
        finally:
            ended.set()
            users.join()
        others.wait(timeout=60)
    return took, others.seconds(began, began + took)


def _post(dsn: str, followers: int, others: Watch, ended: threading.Event) -> None:
    """Writes about 50 transactions a second until `ended`. `others` watches each new post."""
    chosen = random.Random(1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not ended.wait(0.02):
            user, other = chosen.randint(2, followers + 1), chosen.randint(2, followers + 1)
            match chosen.choices(["post", "follow", "unfollow", "delete", "rename"], [70, 12, 8, 8, 2])[0]:
                case "post":
                    readers = connection.execute(
                        "SELECT follower_id FROM follows WHERE followee_id = %s AND follower_id %% 2 = 0 LIMIT 1",
                        [user],
                    ).fetchall()
                    post = _new_post(connection, user)
                    if readers:
                        others.expect(readers[0][0], post)
                case "follow":
                    connection.execute("INSERT INTO follows VALUES (%s, %s) ON CONFLICT DO NOTHING", (user, other))
                case "unfollow" if user % 2:  # the feeds of the others are awaited
                    connection.execute("DELETE FROM follows WHERE follower_id = %s AND followee_id = %s", (user, other))
                case "delete":
                    connection.execute(
                        "DELETE FROM posts WHERE id = (SELECT min(id) FROM posts WHERE author_id = %s)", (user,)
                    )
                case "rename":
                    connection.execute("UPDATE users SET name = name || '!' WHERE id = %s", (user,))


def _new_post(connection: psycopg.Connection[Any], author: int) -> int:
    [(id,)] = connection.execute(
        "INSERT INTO posts (author_id, text) VALUES (%s, %s) RETURNING id", (author, f"A new post of user {author}")
    ).fetchall()
    return int(id)


def _show(servers: Servers) -> None:
    with (
        redis.Redis.from_url(servers.stack.redis) as client,
        psycopg.connect(servers.dsn, autocommit=True) as connection,
    ):
        feed, user = Feed(client, connection), FOLLOWERS // 2
        pages = list(feed.pages(user))
        screen.note(f"the first page of user {user}: the feed has the ids, a second command the posts")
        screen.command(f"redis-cli GET feed:{user}")
        keys = " ".join(f"post:{post['id']}" for post in pages[0][:3])
        screen.command(f"redis-cli MGET {keys} …")
        screen.show(pages[0][:3])
        screen.note("the third page begins after the last post, in Redis, and continues in PostgreSQL")
        screen.command(OLDER.strip())
        screen.show(pages[2][-3:])
        everything = servers.rows(ALL, user)
        expect_equal(
            f"all {len(everything)} posts on {len(pages)} pages", [p for page in pages for p in page], everything
        )
        _compare(client, connection)


def _compare(client: Any, connection: psycopg.Connection[Any]) -> None:
    """Compares every feed with SQL."""
    count = 0
    with connection.transaction(), connection.cursor("feeds") as cursor:
        cursor.itersize = _BATCH
        cursor.execute(EXPECTED.encode())
        while rows := cursor.fetchmany(_BATCH):
            feeds = client.mget([f"feed:{user}" for user, _ in rows])
            for (user, expected), feed in zip(rows, feeds, strict=True):
                found = orjson.loads(feed)["posts"] if feed else None
                if found != expected:
                    raise Failed(f"The feed of user {user} differs from PostgreSQL.\n{found}\n{expected}")
            count += len(rows)
    expect_equal(f"all {count:,} feeds", True, True)


def _settings(stack: object) -> dict[str, str]:
    """Renders the feeds of more than 500 users in the background, so that they do not delay other changes."""
    return {"SYNCER_PIPELINE__FAN_OUT": "500"}


EXAMPLE = Example("social_feed", "pages of a feed, from Redis and PostgreSQL", _use, _show, _fill, _settings)
