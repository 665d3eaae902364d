"""Random writes through the real servers, faults meanwhile, and an oracle without the syncer's SQL.

    schema.sql       tables that have everything which makes this hard
    readmodels/      four read models over them, in five sinks
    deployment.py    the syncer's processes, with settings and a connector of their own
    operations.py    what an application may do to the tables
    workload.py      concurrent writers who do it, in transactions, some of which come to nothing
    faults.py        processes killed, frozen, stopped, doubled; a backfill begun, killed, resumed
    oracle.py        the documents that there should be, in plain Python from plain SELECTs
    documents.py     the documents that there are, and where they differ
    compare.py       all of them

`tests/integration/test_convergence.py` puts these together; `tests/torture` adds faults of the servers.
"""
