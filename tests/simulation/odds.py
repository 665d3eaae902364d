"""What a schedule's world is like: how likely is each kind of accident there to be possible at all.

Few kinds at a time reach further than all of them at once ("swarm testing"), and some troubles need
company: a forgotten delete harms only with a write that is late. So there are themes, and one in which
everything may happen.
"""

from __future__ import annotations

from typing import NamedTuple


class Odds(NamedTuple):
    """Each of 256, except `writes`."""

    window: int = 128
    """Transactions stay invisible for a while after their commit."""
    asynchronous: int = 40
    """Commits are visible before they are on disk."""
    crashes: int = 0
    """PostgreSQL's."""
    restores: int = 0
    """PostgreSQL goes on from an earlier state."""
    rollbacks: int = 32
    """Of each transaction."""
    moves: int = 128
    """Partitions go from one process to another, and processes freeze."""
    kills: int = 30
    """Of processes, and orderly restarts."""
    waits: int = 30
    """Nothing happens for long."""
    slow_writes: int = 60
    """Writes to the sink take longer than anything else."""
    sinks_fail: int = 40
    kafka_fails: int = 30
    repeats: int = 40
    """The connector publishes again what it had published."""
    small: int = 30
    """Pieces of one document; fan-outs of two roots go to the work topic."""
    truncates: int = 0
    untold: int = 0
    """Updates of items do not tell the old row."""
    backfills: int = 20
    restarts_primary: int = 0
    """The sink forgets deletes."""
    loses_writes: int = 0
    """The sink goes back behind writes that it had acknowledged."""
    loses_rows: int = 0
    """The connector loses rows when it resumes."""
    writes: tuple[int, int, int] = (4, 4, 2)
    """Out of ten statements, how many change orders, items, products."""


THEMES = {
    "visibility": Odds(window=256, asynchronous=0, moves=200, slow_writes=30, repeats=128, writes=(2, 4, 4), untold=60),
    "crashes": Odds(asynchronous=256, crashes=256, rollbacks=90, window=60, backfills=60),
    "late writes and deletes": Odds(moves=256, waits=256, slow_writes=200, sinks_fail=100, window=30, writes=(7, 2, 1)),
    "large work": Odds(small=128, truncates=100, backfills=128, kafka_fails=80, sinks_fail=80, untold=60),
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
