"""Random values: text that needs quoting somewhere, exact decimals, times, and rows stored out of line."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any, Protocol

from psycopg.types.json import Jsonb

Row = tuple[Any, ...]
_WORDS = (
    "oak",
    "ölf",
    "lamp|x",
    "Straße",
    "кот",
    "'quoted'",
    '"double"',
    "back\\slash",
    "100%",
    "{brace}",
    "{{two}}",
    "new\nline",
    "tab\there",
    "🙂",
    "}",
    "|",
    "\\",
)


class Hand(Protocol):
    """What an operation works with; `workload.Writer` is one."""

    random: random.Random

    def run(self, statement: str, *values: Any) -> None:
        """Execute a statement."""
        ...

    def ask(self, statement: str, *values: Any) -> Row | None:
        """The first row of a query."""
        ...

    def copy(self, statement: str, rows: Iterable[Row]) -> None:
        """Execute a COPY … FROM STDIN."""
        ...

    def fresh(self) -> int:
        """A number that nobody else has."""
        ...


def maybe(hand: Hand, row: Row, chance: float = 0.8) -> Row:
    """The row, or NULLs."""
    return row if hand.random.random() < chance else (None,) * len(row)


def chance(hand: Hand) -> bool:
    return hand.random.random() < 0.8


def words(hand: Hand, most: int = 4) -> str:
    return " ".join(hand.random.choices(_WORDS, k=hand.random.randint(1, most)))


def word(hand: Hand) -> str:
    return hand.random.choice(_WORDS)


def badge(hand: Hand) -> str:
    """Of few, so that a project's lead may come, go, and be another person."""
    return f"№{hand.random.randint(1, 200)}"


def instant(hand: Hand) -> str:
    """A time with or without fractions of a second, in some time zone."""
    r = hand.random
    fraction = r.choice(("", ".5", ".120", ".123456", ".000001"))
    zone = r.choice(("Z", "+05:30", "-11", "+02"))
    return f"{day(hand)} {r.randint(0, 23):02}:{r.randint(0, 59):02}:{r.randint(0, 59):02}{fraction}{zone}"


def day(hand: Hand) -> str:
    r = hand.random
    return f"{r.randint(1990, 2040)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}"


def amount(hand: Hand) -> str:
    """A decimal that no binary number holds, now and then a very large one."""
    digits = hand.random.choice((2, 4, 9, 18))
    return f"{hand.random.randint(-(10**digits), 10**digits)}.{hand.random.randint(0, 10**10 - 1):010}"


def rate(hand: Hand) -> str:
    return f"{hand.random.randint(-(10**7), 10**7)}.{hand.random.randint(0, 9999):04}"


def hours(hand: Hand) -> str:
    return f"{hand.random.randint(-9999, 99999) / 100:.2f}"


def minutes(hand: Hand) -> int:
    return hand.random.randint(1, 120)


def rank(hand: Hand) -> str:
    return hand.random.choice(("Azubi", "Gesellin", "Meister"))


def state(hand: Hand) -> str:
    return hand.random.choice(("draft", "open", "on hold", "closed"))


def region(hand: Hand) -> str:
    return hand.random.choice(REGIONS)


REGIONS = ("north", "n|rd\\lich", "south", "west", "öst", "a\\|b")


def meta(hand: Hand) -> Jsonb | None:
    """An object with a number that has more digits than a double, sometimes too large for its page."""
    r = hand.random
    if r.random() < 0.2:
        return None
    flag, some = r.random() < 0.5, [r.randint(0, 9), [], {}, {"ü": "€"}]
    value: dict[str, Any] = {"words": words(hand), "flag": flag, "nothing": None, "list": some}
    if r.random() < 0.15:
        value["much"] = r.randbytes(r.randint(2000, 9000)).hex()
    return Jsonb(json.dumps(value)[:-1] + f', "exact": {amount(hand)}, "digits": 1.5000}}', dumps=str)


def note(hand: Hand) -> str | None:
    """Sometimes so long that it is left out of events that do not change it."""
    if hand.random.random() < 0.1:
        return hand.random.randbytes(hand.random.randint(1500, 6000)).hex()
    return maybe(hand, (words(hand),))[0]  # type: ignore[no-any-return]


def digest(hand: Hand) -> bytes | None:
    return hand.random.randbytes(hand.random.randint(0, 12)) if chance(hand) else None


def done(hand: Hand) -> bool | None:
    return hand.random.choice((True, False, False, None))
