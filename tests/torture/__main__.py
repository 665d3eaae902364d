"""Many rounds, each with a seed of its own: `make torture SEED=… MINUTES=…`.

The seed repeats a round's random choices, not its timing. Figures go to build/torture.jsonl, a line a
round; what faults there were and what the syncer said, to build/torture/SEED/logs.
Exit status 1 at the first round in which a document is wrong in the end.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import click
import orjson

import devstack
from tests.conftest import servers, temporary_home
from tests.torture.round import Report, play

_FIGURES = Path("build/torture.jsonl")


@click.command()
@click.option("--seed", type=int, help="Of the first round; the next ones count up.  [default: random]")
@click.option("--minutes", type=float, default=5.0, show_default=True, help="Begin no round after so long.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Of faults and writes, a round.")
def main(seed: int | None, minutes: float, seconds: float) -> None:
    """Writes and faults on the real servers; then every document is compared with what PostgreSQL says."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began, first = time.monotonic(), seed if seed is not None else random.SystemRandom().randrange(10**6)
    stack = devstack.start(temporary_home(), ephemeral=True)
    print(servers(stack.versions()), flush=True)
    reports: list[Report] = []
    try:
        while not reports or time.monotonic() - began < minutes * 60:
            number = str(first + len(reports))
            print(f"seed {number} …", flush=True)
            folder = _FIGURES.parent / "torture" / number
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            reports.append(play(stack, number, seconds, folder.absolute()))
            print(reports[-1], flush=True)
            with _FIGURES.open("ab") as figures:
                figures.write(orjson.dumps(reports[-1].as_dict()) + b"\n")
    finally:
        stack.remove()
        print(_sum(reports), flush=True)


def _sum(reports: list[Report]) -> str:
    faults: Counter[str] = sum((Counter(report.faults) for report in reports), Counter())
    each = "".join(f"\n  {count:5}  {name}" for name, count in faults.most_common())
    rows = sum(report.rows for report in reports)
    return f"{len(reports)} rounds ended equal: {faults.total()} faults, {rows:,} rows written{each}"


if __name__ == "__main__":
    main()
