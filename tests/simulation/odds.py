"""Which kinds of accidents are possible in a schedule's world, and how likely each of them is possible at all.

A few kinds at a time find more than all at once ("swarm testing"). But some faults need two kinds: a forgotten delete
does harm only together with a late write. So there are themes that combine kinds, and one theme with all of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Odds(NamedTuple):
    """Probabilities out of 256, except `writes`."""

    window: int = 128
    """Transactions stay invisible for a while after their commit."""
    asynchronous: int = 40
    """Commits are visible before they are flushed."""
    crashes: int = 0
    """PostgreSQL crashes."""
    restores: int = 0
    """PostgreSQL continues from an earlier state."""
    rollbacks: int = 32
    """Each transaction may be rolled back."""
    moves: int = 128
    """Partitions move from one process to another, and processes freeze."""
    kills: int = 30
    """Processes are killed, or restart in order."""
    waits: int = 30
    """No actor runs for a long time."""
    slow_writes: int = 60
    """Writes to the sink take longer than all other work."""
    sinks_fail: int = 40
    kafka_fails: int = 30
    repeats: int = 40
    """The connector publishes events again."""
    small: int = 30
    """Write batches have one document, and fan-outs of two roots go to the work topic."""
    truncates: int = 0
    lacks_old_row: int = 0
    """Updates of items lack the old row."""
    backfills: int = 20
    restarts_primary: int = 0
    """The sink forgets deletes."""
    loses_writes: int = 0
    """The sink loses writes that it had acknowledged."""
    loses_rows: int = 0
    """The connector loses rows when it resumes."""
    writes: tuple[int, int, int] = (4, 4, 2)
    """How many of ten statements change orders, items and products."""


THEMES = {
    "visibility": Odds(
        window=256, asynchronous=0, moves=200, slow_writes=30, repeats=128, writes=(2, 4, 4), lacks_old_row=60
    ),
    "crashes": Odds(asynchronous=256, crashes=256, rollbacks=90, window=60, backfills=60),
    "late writes and deletes": Odds(moves=256, waits=256, slow_writes=200, sinks_fail=100, window=30, writes=(7, 2, 1)),
    "large work": Odds(small=128, truncates=100, backfills=128, kafka_fails=80, sinks_fail=80, lacks_old_row=60),
    "sinks that forget": Odds(
        moves=180,
        slow_writes=160,
        restarts_primary=180,
        loses_writes=128,
        kafka_fails=50,
        small=50,
        writes=(6, 3, 1),
    ),
    "a connector that loses rows": Odds(
        loses_rows=256,
        window=256,
        asynchronous=0,
        moves=40,
        kills=100,
        waits=0,
        kafka_fails=100,
        repeats=60,
        slow_writes=0,
        sinks_fail=20,
    ),
    "everything": Odds(
        crashes=60,
        restores=40,
        kills=100,
        waits=60,
        small=50,
        truncates=30,
        backfills=50,
        restarts_primary=30,
        loses_writes=30,
        loses_rows=30,
        kafka_fails=60,
        sinks_fail=70,
        asynchronous=100,
    ),
}

OF_GROUPS = {
    "rows that move": Odds(
        moves=200, kills=100, slow_writes=160, sinks_fail=90, kafka_fails=40, repeats=60, window=60, writes=(2, 7, 1)
    ),
    "roots that come and go": Odds(
        moves=200, waits=200, slow_writes=128, sinks_fail=60, backfills=40, window=30, truncates=40, writes=(6, 3, 1)
    ),
    "sinks that forget": Odds(
        moves=180, slow_writes=160, loses_writes=200, waits=60, kills=60, small=50, writes=(3, 6, 1)
    ),
    "everything": THEMES["everything"]._replace(lacks_old_row=60, restores=0, writes=(3, 5, 2)),
}
"""The themes of worlds whose documents are groups or are combined from partials."""

OF_BOARDS = {
    "members that move": Odds(
        moves=200, kills=100, slow_writes=160, sinks_fail=200, kafka_fails=40, repeats=60, window=30, writes=(6, 2, 2)
    ),
    "roots that come and go": Odds(
        moves=200, waits=200, slow_writes=128, sinks_fail=160, backfills=40, window=30, truncates=40, writes=(8, 1, 1)
    ),
    "sinks that forget": Odds(
        moves=180, slow_writes=160, sinks_fail=100, loses_writes=200, waits=60, kills=60, small=50, writes=(6, 2, 2)
    ),
    "everything": THEMES["everything"]._replace(restores=0, restarts_primary=0, writes=(6, 2, 2)),
}
"""The themes of worlds whose documents have members in indexes of Redis."""
