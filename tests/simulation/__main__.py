"""`python -m tests.simulation`: many schedules; or one of them, shown."""

from __future__ import annotations

import argparse
import os
import random
import sys

from tests.simulation.rounds import report, rounds, told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, help="of the first schedule; a new one each time if not given")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", type=int, metavar="SEED", help="show what happens in this failing schedule")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        print(told(arguments.replay))
        return 0
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 40)
    print(f"seed {seed}", flush=True)
    done = rounds(seed, arguments.schedules, arguments.processes, lambda line: print(line, flush=True))
    print(*report(done), sep="\n", flush=True)
    if done.failed is None:
        return 0
    print(f"\nschedule {done.failed} fails:\n{told(done.failed)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
