"""A read model whose documents have members in sorted sets and sets of Redis.

The game and the points of an order come from its note, and the tags are the names of its products. So an order changes
its boards when it, its items or its products change.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import orjson

from syncer.declaration.compile import Compiled
from syncer.document import Row
from syncer.events import Key
from syncer.sinks.redis.settings import Settings
from tests.simulation import application
from tests.simulation.database import Rows
from tests.simulation.read_models import Orders

GAMES = 3


def compiled() -> Compiled:
    return application.compiled()


@cache
def settings(*, clustered: bool) -> Settings:
    """Returns the block of the sink. On a cluster, the id is the hash tag of all keys."""
    tag = "{{{id}}}" if clustered else ""
    return Settings.model_validate(
        {
            "key": "order:{{{id}}}" if clustered else "order:{id}",
            "indexes": [
                {"sorted_set": {"key": f"board{tag}:{{game}}", "score": "points"}},
                {"sorted_set": {"key": f"all{tag}", "score": "points"}},
                {"set": {"key": f"tag{tag}:{{tags}}"}},
            ],
        }
    )


def place(settings: Settings, id: str, game: int) -> str:
    """Returns the key of a board."""
    return settings.indexes[0].key.fill({"id": id, "game": str(game)})


def id_of(key: str) -> str:
    """Returns the id in the key of a document or of a version."""
    found = re.search(r"order:\{?(\d+)", key)
    if found is None:
        raise AssertionError(key)
    return found[1]


def short(key: str) -> str:
    """Returns the key of an index without its hash tag."""
    return re.sub(r"{.*}", "", key)


def document(rows: Rows, id: int, items: int) -> dict[str, Any] | None:
    """Returns the document of an order. None if it has none."""
    order = rows.get(("orders", id))
    if order is None or order["hidden"]:
        return None
    own = [row for item in range(1, items + 1) if (row := rows.get(("items", item))) and row["order_id"] == id]
    products = [rows.get(("products", row["product_id"])) for row in own]
    tags = sorted({str(product["name"]) for product in products if product})
    return {"game": order["note"] % GAMES, "points": order["note"], "tags": tags, "n": [row["n"] for row in own]}


def members(body: bytes) -> dict[str, float | None]:
    """Returns the members that a document should have: key → score, None in a set. Uses no code of the sink."""
    found = orjson.loads(body)
    scores = dict.fromkeys(["all", f"board:{found['game']}"], float(found["points"]))
    return scores | dict.fromkeys(f"tag:{tag}" for tag in found["tags"])


class Boards(Orders):
    """The read model."""

    def render(self, rows: Rows, key: Key) -> Row:
        id = key[0]
        found = document(rows, int(id), self.sizes.items)
        return Row(id, id if ("orders", int(id)) in rows else None, orjson.dumps(found) if found else None)

    def documents(self, rows: Rows) -> dict[str, bytes]:
        found = {str(id): document(rows, id, self.sizes.items) for id in range(1, self.sizes.orders + 1)}
        return {id: orjson.dumps(body) for id, body in found.items() if body}
