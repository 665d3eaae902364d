"""Leaderboards: pages of a board, the rank of a player, and the players with some badges. They read Redis only."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import psycopg
import redis

from demo import screen
from demo.examples import ROOT, Example, Servers, expect_equal

_FOLDER = ROOT / "readmodels" / "leaderboard"


class Entry(NamedTuple):
    rank: int
    """1 is the best."""
    id: str
    points: float
    name: str


class Leaderboard:
    """Reads the boards. client: with `decode_responses=True`. prefix: of all keys."""

    def __init__(self, client: Any, prefix: str = "") -> None:
        self._client, self._prefix = client, prefix

    def page(self, game: int, first: int = 1, size: int = 10) -> list[Entry]:
        """Returns the players from this rank on. Players with equal points are in descending order of their ids."""
        found = self._client.zrange(self._board(game), first - 1, first + size - 2, desc=True, withscores=True)
        return self._with_names(first, found)

    def rank(self, game: int, id: str) -> int | None:
        """Returns the rank of a player. None if the player does not play this game."""
        found = self._client.zrevrank(self._board(game), id)
        return None if found is None else int(found) + 1

    def around(self, game: int, id: str, neighbours: int = 2) -> list[Entry]:
        """Returns a player with the players above and below."""
        rank = self.rank(game, id)
        if rank is None:
            return []
        first = max(1, rank - neighbours)
        return self.page(game, first, rank + neighbours - first + 1)

    def with_badges(self, *badges: str) -> list[str]:
        """Returns the names of the players that have all these badges."""
        ids = self._client.sinter([f"{self._prefix}badge:{badge}" for badge in badges])
        return sorted(player["name"] for player in self._players(ids))

    def _board(self, game: int) -> str:
        return f"{self._prefix}board:{game}"

    def _players(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        keys = [f"{self._prefix}player:{id}" for id in ids]
        # A player may disappear between the two reads.
        return [json.loads(text) if text else {"name": "(gone)"} for text in (self._client.mget(keys) if keys else ())]

    def _with_names(self, first: int, found: list[tuple[str, float]]) -> list[Entry]:
        players = self._players(id for id, _ in found)
        return [
            Entry(first + number, id, points, player["name"])
            for number, ((id, points), player) in enumerate(zip(found, players, strict=True))
        ]


def _fill(connection: psycopg.Connection[Any]) -> None:
    connection.execute((_FOLDER / "rows.sql").read_bytes())


def _use(dsn: str, seconds: float) -> None:
    """Plays matches, and moves some players to other games."""
    screen.note(f"matches for {seconds:g} s; now and then a player moves to another game or gets a badge")
    chosen, end = random.Random(1), time.monotonic() + seconds
    with psycopg.connect(dsn, autocommit=True) as connection:
        [(match,)] = connection.execute("SELECT max(id) FROM matches").fetchall()
        while time.monotonic() < end:
            match, player = match + 1, chosen.randint(1, 60)
            connection.execute("INSERT INTO matches VALUES (%s, %s, %s)", (match, player, chosen.randint(0, 99)))
            if match % 10 == 0:
                connection.execute("UPDATE players SET game_id = 1 + game_id %% 3 WHERE id = %s", (player,))
            if match % 25 == 0:
                connection.execute("INSERT INTO badges VALUES (%s, 'veteran') ON CONFLICT DO NOTHING", (player,))
            time.sleep(0.01)


def _show(servers: Servers) -> None:
    with redis.Redis.from_url(servers.stack.redis, decode_responses=True) as client:
        boards = Leaderboard(client)
        _board("ZRANGE board:1 0 9 REV WITHSCORES", "the top 10 of game 1", boards.page(1))
        _board("ZRANGE board:1 10 19 REV WITHSCORES", "the next page", boards.page(1, first=11))
        some = boards.page(1, first=5, size=1)[0]
        _board(f"ZREVRANK board:1 {some.id}", f"around {some.name}", boards.around(1, some.id))
        screen.note("the players that have both badges")
        screen.command("redis-cli SINTER badge:veteran badge:champion")
        screen.show(boards.with_badges("veteran", "champion"))
        shown = [(game, one.id, one.points) for game in (1, 2, 3) for one in boards.page(game, size=100)]
    with psycopg.connect(servers.dsn) as connection:
        rows = connection.execute((_FOLDER / "boards.sql").read_bytes()).fetchall()
    expect_equal("all boards", shown, [(game, id, float(points)) for game, id, points in rows])


def _board(query: str, title: str, entries: list[Entry]) -> None:
    screen.note(title)
    screen.command(f"redis-cli {query}")
    for entry in entries:
        screen.note(f"{entry.rank:4}. {entry.name:<12}{entry.points:8,.0f}")


EXAMPLE = Example("leaderboard", "pages of a board, a rank, and players with badges, in Redis", _use, _show, _fill)
