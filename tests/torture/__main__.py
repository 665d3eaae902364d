"""Runs many rounds, each with its own seed: `make torture SEED=… MINUTES=…`.

A seed repeats the random choices of a round, but not its timing. Each round appends one line to build/torture.jsonl.
The log of the faults and the logs of the syncer are in build/torture/SEED/logs. The exit status is 1 after the first
round in which a document differs at the end.
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
from tests.torture.round import Report, run_round

_FIGURES = Path("build/torture.jsonl")


@click.command()
@click.option("--seed", type=int, help="Seed of the first round. Each next round adds 1.  [default: random]")
@click.option("--minutes", type=float, default=5.0, show_default=True, help="Start no further round after this time.")
@click.option(
    "--seconds", type=float, default=60.0, show_default=True, help="Duration of the faults and writes of one round."
)
@click.option("--group-rows", type=int, default=0, help="Rows of groups to add, such as 1000000.  [default: no groups]")
def main(seed: int | None, minutes: float, seconds: float, group_rows: int) -> None:
    """Write to real servers while they have faults. Then compare every document with PostgreSQL."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began, first = time.monotonic(), seed if seed is not None else random.SystemRandom().randrange(10**6)
    stack = devstack.start(temporary_home(), ephemeral=True)
    print(servers(stack.versions()), flush=True)
    reports: list[Report] = []
    try:
        while not reports or time.monotonic() - began < minutes * 60:
            number = str(first + len(reports))
            print(f"round with seed {number} …", flush=True)
            folder = _FIGURES.parent / "torture" / number
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            reports.append(run_round(stack, number, seconds, folder.absolute(), group_rows=group_rows))
            print(reports[-1], flush=True)
            with _FIGURES.open("ab") as figures:
                figures.write(orjson.dumps(reports[-1].as_dict(), option=orjson.OPT_NON_STR_KEYS) + b"\n")
    finally:
        stack.remove()
        print(_summary(reports), flush=True)


def _summary(reports: list[Report]) -> str:
    faults: Counter[str] = sum((Counter(report.faults) for report in reports), Counter())
    each = "".join(f"\n  {count:5}  {name}" for name, count in faults.most_common())
    rows = sum(report.rows for report in reports)
    summary = f"{len(reports)} rounds in which all documents became equal to PostgreSQL"
    return f"{summary}: {faults.total()} faults, {rows:,} rows written{each}"


if __name__ == "__main__":
    main()
