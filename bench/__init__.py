"""How fast, how late, how large: the product on real servers, beside what those servers can do alone.

    make bench                                   everything; writes docs/benchmarks.md
    python -m bench --quick                      a few minutes, small tables; to see whether a change helps
    python -m bench --only limits,backfill       some of the steps

Everything is measured on one machine in one run, through the command line of the product; only the limits
go to the servers directly. Reading order: `__main__` (the steps), `arena` (the servers and the shop), then a
file `limits`, `backfill`, `streaming`, `latency`, `summaries`; `machine` reads /proc, `report` writes.
"""
