"""Runs many schedules in several processes. Reports what they exercised, and the first failure, shortened."""

from __future__ import annotations

import gc
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from structlog.testing import capture_logs

from tests.simulation.choices import decisions
from tests.simulation.history import KINDS
from tests.simulation.schedule import Result, run
from tests.simulation.shrink import shrink
from tests.simulation.weaker.rule import Weaker

_PORTION = 2000
BOUND = 60_000
"""The number of schedules in which each weaker rule must be detected. Most need hundreds, the rarest some thousands.
Their seeds are fixed, so the result does not depend on chance."""
AS_IT_IS = Weaker("nothing: the unchanged pipeline")
MEASURING = Weaker("nothing: the unchanged watermark", watermarks=True)
REFUSING = Weaker("nothing: the unchanged pipeline, and a sink that refuses documents", refuses=True)
REFRESHING = Weaker("nothing: the unchanged pipeline, and callers who refresh documents", refreshes=True)
SINKS = Weaker("nothing: the unchanged pipeline, and two sinks", watermarks=True, sinks=2)
RESUMING = Weaker("nothing: the unchanged pipeline, and a connector that loses inserted rows", resumes=True)
HOT = Weaker("nothing: the unchanged pipeline, and roots that are delayed", watermarks=True, hot=True)
COMBINED = Weaker("nothing: the unchanged pipeline, and documents that are combined from partials", model="combined")
HOT_COMBINED = Weaker(
    "nothing: the unchanged pipeline, and documents with delayed partials", model="combined", hot=True
)
GROUPS = Weaker("nothing: the unchanged pipeline, and a grouped root", model="groups")
DIVIDED = Weaker("nothing: the unchanged pipeline, and a grouped root with partials", model="divided")
BOARDS = Weaker("nothing: the unchanged pipeline, and a sink with indexes in Redis", model="boards")
TOPIC = Weaker("nothing: the unchanged pipeline, and a documents topic", topic=True)


def unchanged(rule: Weaker) -> Weaker:
    """Returns the unchanged pipeline in the world of a weaker rule."""
    return Weaker(
        "nothing",
        refuses=rule.refuses,
        watermarks=rule.watermarks,
        refreshes=rule.refreshes,
        topic=rule.topic,
        hot=rule.hot,
        model=rule.model,
        lookup_levels=rule.lookup_levels,
        sinks=rule.sinks,
        resumes=rule.resumes,
    )


class Round(NamedTuple):
    """schedules: the number of schedules that ran. seen: by kind of event, the number of schedules that had it.
    failed: the seed of the failed schedule, or None. seconds: wall-clock time."""

    schedules: int
    seen: Counter[str]
    failed: int | None
    seconds: float


def portion(first: int, count: int, rule: Weaker = AS_IT_IS) -> tuple[int, Counter[str], int | None]:
    """Runs `count` schedules with the seeds from `first`, until one fails.

    Returns the number of schedules, the events that they had, and the seed of the failed one.
    """
    seen: Counter[str] = Counter()
    with rule.applied(), _seldom_collected(), capture_logs():
        for seed in range(first, first + count):
            result = run(decisions(seed), **rule.world)
            seen.update(kind for kind, times in result.seen.items() if times)
            if result.failure:
                return seed - first + 1, seen, seed
    return count, seen, None


def _run(chosen: bytes, rule: Weaker, *, lines: bool = False) -> Result:
    return run(chosen, lines=lines, lane=rule.lane, remembers=rule.remembers, refuses=rule.refuses, topic=rule.topic)


def rounds(seed: int, count: int, processes: int, progress: Callable[[str], None]) -> Round:
    """Runs `count` schedules with the seeds from `seed`, in several processes.

    progress: receives a line now and then.
    """
    began, done, seen = time.monotonic(), 0, Counter[str]()
    firsts = range(seed, seed + count, _PORTION)
    with ProcessPoolExecutor(processes) as pool:
        sizes = [min(_PORTION, seed + count - first) for first in firsts]
        for number, (ran, exercised, failed) in enumerate(pool.map(portion, firsts, sizes), 1):
            done += ran
            seen.update(exercised)
            if failed is not None:
                pool.shutdown(cancel_futures=True)
                return Round(done, seen, failed, time.monotonic() - began)
            if number % 25 == 0:
                progress(f"{done:,} schedules, {done / (time.monotonic() - began):,.0f} a second")
    return Round(done, seen, None, time.monotonic() - began)


def report(done: Round) -> Iterator[str]:
    """Yields lines: the events that the schedules had, and the time that they took."""
    yield f"{done.schedules:,} schedules in {done.seconds:.0f} s, with {_cpu(done)} of CPU; how many had:"
    for kind in KINDS:
        yield f"  {done.seen[kind]:>9,}  {kind}"


def _cpu(done: Round) -> str:
    own, theirs = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime
    return f"{seconds:.0f} s ({seconds / max(done.schedules, 1) * 1e6:.0f} µs each)"


def replay(seed: int, rule: Weaker = AS_IT_IS) -> str:
    """Shortens a failing schedule. Returns its events, one line each."""

    def failure(chosen: bytes) -> str:
        return run(chosen, **rule.world).failure

    with rule.applied(), capture_logs():
        short = shrink(decisions(seed), lambda chosen: bool(failure(chosen)))
        result = run(short, lines=True, **rule.world)
    return "\n".join([*result.lines, f"→ {result.failure}", f"seed {seed}: python -m tests.simulation --replay {seed}"])


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Makes the garbage collector run seldom.

    A schedule leaves thousands of objects in cycles. A collection in the middle of it takes a fifth of the time.
    """
    gc.collect()
    before = gc.get_threshold()
    gc.set_threshold(200_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)
