"""Measures throughput, latency and memory of the syncer on real servers, and the limits of these servers alone.

    make bench                                   all steps; writes docs/benchmarks.md
    python -m bench --quick                      small tables, a few minutes; to compare a change
    python -m bench --only limits,backfill       some of the steps

One run measures everything on one machine. It uses the command line of the syncer, except for the limits, which use
the servers directly.

Reading order:

    __main__     the steps and their order
    arena        the servers, the shop's data, and the commands of the syncer
    limits       the limits of PostgreSQL and Elasticsearch alone
    backfill     `syncer backfill`
    streaming    a large transaction
    latency      single-row updates at a steady rate, written by `client`
    summaries    the read model in Redis
    groups       one changed row in groups of a thousand to a million rows
    telemetry    readings of devices, 10,000 a second
    hot          a row that changes 1,000 times a second
    feed         a post that reaches very many feeds
    tables       the tables of the last four, in the shop's database
    daemon       `syncer run` as a process, and the CPU time of all processes
    machine      CPU and memory from /proc
    report       the table, JSON and docs/benchmarks.md
"""
