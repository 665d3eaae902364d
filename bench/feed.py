"""Measures one post that reaches the feeds of very many followers, and the posts of others meanwhile.

The read model is that of the example `social_feed`.
"""

from __future__ import annotations

from collections.abc import Callable

import redis

from bench import tables
from bench.arena import ROOT, Arena
from bench.daemon import following
from bench.latency import percentile
from bench.report import Figure, Report
from demo.examples import social_feed

STEP = "feed"
_FOLDER = ROOT / "readmodels" / "social_feed"
_MODEL = "feeds"
_FAN_OUT = 500
"""A change of more feeds than this is rendered in the background, as the example has it."""
_GOAL = 1.0
"""Seconds: the p99 of other posts."""


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    followers = arena.sizes.followers
    fill = tables.run_script(_FOLDER / "rows.sql", followers=followers)
    settings = {"SYNCER_PIPELINE__FAN_OUT": str(_FAN_OUT)}
    with (
        tables.added(arena, _FOLDER / "schema.sql", fill, _FOLDER, settings),
        following(arena, _MODEL),
        redis.from_url(arena.stack.redis) as client,
    ):
        took, others = social_feed.reach(arena.dsn, client, followers, arena.sizes.write_seconds / 2)
        arena.no_dead_letters()
        arena.syncer("verify", _MODEL)
    echo(f"{followers:,} feeds in {took:.1f} s; {len(others)} other posts, p99 {percentile(others, 99):.2f} s")
    what = "other posts meanwhile, commit to GET"
    report.add(
        Figure(STEP, f"one post, commit until all {followers:,} feeds have it", [took], "s"),
        Figure(STEP, "feeds that have it", [followers / took], "feeds/s"),
        Figure(STEP, f"{what}, p50", [percentile(others, 50)], "s", note=f"{len(others)} posts"),
        Figure(STEP, f"{what}, p99", [percentile(others, 99)], "s", "goal", _GOAL, "≤ 1.0"),
    )
