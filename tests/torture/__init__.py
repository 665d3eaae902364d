"""The real servers under fire: everything that `tests/convergence` does, while servers die, stall and lie.

    servers.py     what is done to the servers, and to the connections between them and the syncer
    faults.py      which fault when: every few seconds, from a seed
    slot.py        the fault that only a person can mend: it has to be told, with the commands
    round.py       one round: writers and faults for a while; then all is left to settle, and is compared
    autopsy.py     what is written down when a document is wrong in the end
    __main__.py    many rounds: `make torture SEED=… MINUTES=…`

A short round is part of `make test` (`tests/integration/test_torture.py`).
"""
