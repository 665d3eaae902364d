"""Runs the workload of `tests/convergence` on real servers while servers crash, stall and lose responses.

    servers.py     the faults: of the servers, and of the connections between them and the syncer
    faults.py      chooses a fault every few seconds, from a seed
    slot.py        drops the replication slot, the one fault that needs an operator
    own_writes.py  writes, waits and reads: no answer about freshness may be false
    big_group.py   groups of up to a million rows: every kind of partials, and a grouped root
    samples.py     writes to these groups
    round.py       one round: writes and faults, then no faults, then the comparison of every document
    autopsy.py     the files that are written when documents differ at the end
    __main__.py    many rounds: `make torture SEED=… MINUTES=…`

A short round is part of `make test` (`tests/integration/test_torture.py`).
"""
