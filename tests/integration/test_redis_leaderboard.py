"""The example `readmodels/leaderboard/` on the whole way from PostgreSQL through Debezium, with two daemons.

The boards are compared with the SQL of the example, which does not use the syncer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from demo.examples.leaderboard import Leaderboard
from tests.harness.system import System
from tests.harness.waiting import until

EXAMPLE = Path(__file__).parents[2] / "readmodels" / "leaderboard"


class Example:
    """The example in the schema of a test, with a prefix for all keys."""

    def __init__(self, system: System, client: Any) -> None:
        self.system, self.client = system, client
        self.model, self.keys = f"{system.prefix}-leaderboard", f"{system.prefix}:"
        self.boards = Leaderboard(client, self.keys)
        for path in system.folder.joinpath("models").iterdir():
            path.unlink()
        for name in ("schema.sql", "rows.sql"):
            system.execute(*self.read(name).split(";\n")[:-1])
        self.declare(self.read("leaderboard.yaml"))

    def read(self, name: str) -> str:
        return (EXAMPLE / name).read_text().replace("public.", f"{self.system.schema}.")

    def declare(self, text: str) -> None:
        text = text.replace("name: leaderboard", f"name: {self.model}")
        for key in ("player:", "board:", "badge:"):
            text = text.replace(f"{key}{{", f"{self.keys}{key}{{")
        (self.system.folder / "models" / "leaderboard.yaml").write_text(text)

    def expected(self) -> dict[int, list[tuple[str, float]]]:
        """Returns game → its players with their points, the best first."""
        found: dict[int, list[tuple[str, float]]] = {}
        for game, id, points in self.system.database.query(self.read("boards.sql").rstrip().rstrip(";")):
            found.setdefault(game, []).append((id, float(points)))
        return found

    def actual(self) -> dict[int, list[tuple[str, float]]]:
        found = {}
        for key in self.client.scan_iter(f"{self.keys}board:*", count=1000):
            members = self.client.zrange(key, 0, -1, desc=True, withscores=True)
            found[int(key.rpartition(":")[2])] = [(id, float(points)) for id, points in members]
        return found

    def until_in_sync(self) -> None:
        until(
            lambda: self.actual() == self.expected(),
            lambda: f"{self.actual()}\n{self.expected()}\n{self.system.daemons[-1].log.read_text()[-2000:]}",
        )

    def verify(self, *options: str, expect: int = 0, patience: int = 2) -> dict[str, Any]:
        output = self.system.run("verify", *options, "--patience", str(patience), "--json", self.model, expect=expect)
        [report] = json.loads(output[output.index("[\n") :])
        assert isinstance(report, dict)
        return report


@pytest.fixture
def example(system: System) -> Any:
    with redis.Redis.from_url(system.stack.redis, decode_responses=True) as client:
        yield Example(system, client)


def test_boards_follow_the_tables(example: Example) -> None:
    system, client, boards = example.system, example.client, example.boards
    assert "0 errors, 0 warnings" in system.run("check")
    system.run("backfill")
    assert example.actual() == example.expected()
    daemons = [system.start(), system.start()]
    # Points, a move to another game, a deleted player, a new player and other badges.
    system.execute(
        "UPDATE {schema}.matches SET points = points - 40 WHERE player_id % 5 = 0",
        "DELETE FROM {schema}.matches WHERE player_id = 12",
        "UPDATE {schema}.players SET game_id = 1 + game_id % 3 WHERE id % 2 = 0",
        "DELETE FROM {schema}.badges WHERE player_id = 12",
        "DELETE FROM {schema}.players WHERE id = 12",
        "INSERT INTO {schema}.players VALUES (99, 1, 'Newcomer')",
        "INSERT INTO {schema}.matches VALUES (999, 99, 100000)",
        "UPDATE {schema}.badges SET badge = 'legend' WHERE player_id = 1 AND badge = 'veteran'",
    )
    example.until_in_sync()
    until(lambda: client.smembers(f"{example.keys}badge:legend") == {"1"})
    assert "12" not in client.smembers(f"{example.keys}badge:veteran")
    application(example)
    daemons[0].kill()
    system.execute("UPDATE {schema}.players SET game_id = 1 + game_id % 3", "UPDATE {schema}.matches SET points = 7")
    example.until_in_sync()
    assert example.verify(patience=60)["equal"]
    damage_is_found_and_repaired(example)
    resync(example)
    system.execute("UPDATE {schema}.players SET game_id = 2 WHERE id < 10")
    until(lambda: len(client.smembers(f"{example.keys}players:2")) > 20)
    assert boards.page(2) == []
    assert example.verify(patience=60)["equal"]


def application(example: Example) -> None:
    """The application's queries agree with SQL."""
    boards, expected = example.boards, example.expected()[1]
    assert [(entry.id, entry.points) for entry in boards.page(1)] == expected[:10]
    assert [(entry.id, entry.points) for entry in boards.page(1, first=11)] == expected[10:20]
    assert boards.page(1)[0] == (1, "99", 100000.0, "Newcomer")
    assert boards.rank(1, "99") == 1
    assert boards.rank(2, "99") is None
    assert [entry.rank for entry in boards.around(1, expected[4][0])] == [3, 4, 5, 6, 7]
    assert boards.with_badges("veteran", "champion") == ["Player 13", "Player 25", "Player 37", "Player 49"]


def damage_is_found_and_repaired(example: Example) -> None:
    system, client, keys = example.system, example.client, example.keys
    board = {id: f"{keys}board:{game}" for game, players in example.expected().items() for id, _ in players}
    client.zrem(board["1"], "1")
    client.zincrby(board["2"], 1, "2")
    client.zadd(f"{keys}board:777", {"3": 3, "12": 12})  # a player in another game, and a deleted one
    mark = f"version:{{{keys}player:4}}"
    client.set(mark, client.get(mark).partition("\n")[0])
    client.srem(f"{keys}badge:veteran", "5")
    report = example.verify(expect=1)
    assert (report["differing"], report["orphaned"], report["missing"]) == (["1", "2", "3", "4", "5"], ["12"], [])
    output = system.run("trace", example.model, "3", expect=1)
    assert f"{keys}board:777" in output and "unexpected member" in output
    assert example.verify("--repair")["repaired"] == 6
    assert example.actual() == example.expected()
    assert example.verify()["equal"]


def resync(example: Example) -> None:
    """Another declaration: the boards go, and sets of players come."""
    text = example.read("leaderboard.yaml")
    begin, end = text.index("      - sorted_set"), text.index("      - set")
    index = f'      - set: {{key: "{example.keys}players:{{game_id}}"}}\n'
    example.declare(text[:begin] + index + text[end:])
    example.system.run("resync", example.model, "--yes")
    assert example.actual() == {}
    until(lambda: example.system.is_healthy(example.model), lambda: example.system.status_of(example.model))
