"""Generates random values: text that needs quoting, exact decimals, times, and values that are stored in TOAST."""

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


class Session(Protocol):
    """The interface of operations to a session of the application. `workload.Writer` implements it."""

    random: random.Random

    def run(self, statement: str, *values: Any) -> None:
        """Executes a statement."""
        ...

    def fetch_one(self, statement: str, *values: Any) -> Row | None:
        """Returns the first row of a query, or None."""
        ...

    def copy(self, statement: str, rows: Iterable[Row]) -> None:
        """Executes COPY … FROM STDIN."""
        ...

    def next_id(self) -> int:
        """Returns a number that no other session uses."""
        ...


def maybe(session: Session, row: Row, chance: float = 0.8) -> Row:
    """Returns the row, or with probability 1 - `chance` a row of NULLs."""
    return row if session.random.random() < chance else (None,) * len(row)


def chance(session: Session) -> bool:
    return session.random.random() < 0.8


def words(session: Session, most: int = 4) -> str:
    return " ".join(session.random.choices(_WORDS, k=session.random.randint(1, most)))


def word(session: Session) -> str:
    return session.random.choice(_WORDS)


def badge(session: Session) -> str:
    """Returns one of few badges, so that the lead of a project can appear, disappear and change."""
    return f"№{session.random.randint(1, 200)}"


def instant(session: Session) -> str:
    """Returns a time with or without fractions of a second, in a random time zone."""
    r = session.random
    fraction = r.choice(("", ".5", ".120", ".123456", ".000001"))
    zone = r.choice(("Z", "+05:30", "-11", "+02"))
    return f"{day(session)} {r.randint(0, 23):02}:{r.randint(0, 59):02}:{r.randint(0, 59):02}{fraction}{zone}"


def day(session: Session) -> str:
    r = session.random
    return f"{r.randint(1990, 2040)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}"


def amount(session: Session) -> str:
    """Returns a decimal without an exact binary representation. Some are very large."""
    digits = session.random.choice((2, 4, 9, 18))
    return f"{session.random.randint(-(10**digits), 10**digits)}.{session.random.randint(0, 10**10 - 1):010}"


def rate(session: Session) -> str:
    return f"{session.random.randint(-(10**7), 10**7)}.{session.random.randint(0, 9999):04}"


def hours(session: Session) -> str:
    return f"{session.random.randint(-9999, 99999) / 100:.2f}"


def minutes(session: Session) -> int:
    return session.random.randint(1, 120)


def rank(session: Session) -> str:
    return session.random.choice(("Azubi", "Gesellin", "Meister"))


def state(session: Session) -> str:
    return session.random.choice(("draft", "open", "on hold", "closed"))


def region(session: Session) -> str:
    return session.random.choice(REGIONS)


REGIONS = ("north", "n|rd\\lich", "south", "west", "öst", "a\\|b")


def meta(session: Session) -> Jsonb | None:
    """Returns a JSON object with a number that a double cannot represent. Some objects are stored in TOAST."""
    r = session.random
    if r.random() < 0.2:
        return None
    flag, some = r.random() < 0.5, [r.randint(0, 9), [], {}, {"ü": "€"}]
    value: dict[str, Any] = {"words": words(session), "flag": flag, "nothing": None, "list": some}
    if r.random() < 0.15:
        value["much"] = r.randbytes(r.randint(2000, 9000)).hex()
    return Jsonb(json.dumps(value)[:-1] + f', "exact": {amount(session)}, "digits": 1.5000}}', dumps=str)


def note(session: Session) -> str | None:
    """Returns a text. Long ones are stored in TOAST, so events that do not change them omit them."""
    if session.random.random() < 0.1:
        return session.random.randbytes(session.random.randint(1500, 6000)).hex()
    return maybe(session, (words(session),))[0]  # type: ignore[no-any-return]


def digest(session: Session) -> bytes | None:
    return session.random.randbytes(session.random.randint(0, 12)) if chance(session) else None


def done(session: Session) -> bool | None:
    return session.random.choice((True, False, False, None))
