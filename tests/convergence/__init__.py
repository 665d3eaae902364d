"""Tests convergence: random writes and process faults on real servers, checked by an independent oracle.

    schema.sql       tables with the features that make read models difficult
    readmodels/      four read models over these tables, with six sinks
    deployment.py    the processes of the syncer, with their own settings and connector
    operations.py    the operations of the application on the tables
    operation_mix.py the relative frequency of each operation
    values.py        random values for these operations
    workload.py      concurrent writers, which run the operations in transactions and roll some of them back
    faults.py        daemons are killed, frozen, stopped and added; a backfill is killed and resumed
    oracle.py        the expected documents, computed in Python from plain SELECT statements
    documents.py     the actual documents, and their differences from the expected ones
    compare.py       the comparison of all documents in all sinks

`tests/integration/test_convergence.py` runs them. `tests/torture` adds faults of the servers.
"""
