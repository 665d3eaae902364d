"""Runs many simulated schedules, or shows the events of one: `python -m tests.simulation`."""

from __future__ import annotations

import argparse
import os
import random
import sys

from tests.simulation.rounds import replay, report, rounds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, help="seed of the first schedule; random by default")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", type=int, metavar="SEED", help="show the events of this failing schedule")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        print(replay(arguments.replay))
        return 0
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 40)
    print(f"seed {seed}", flush=True)
    done = rounds(seed, arguments.schedules, arguments.processes, lambda line: print(line, flush=True))
    print(*report(done), sep="\n", flush=True)
    if done.failed is None:
        return 0
    print(f"\nschedule {done.failed} fails:\n{replay(done.failed)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
