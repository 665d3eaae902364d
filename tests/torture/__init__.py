"""The real servers under fire: everything that `tests/convergence` does, while servers die, stall and lie.

    servers.py     what is done to the servers, and to the connections between them and the syncer
    faults.py      which fault when: every few seconds, from a seed
    round.py       one round: writers and faults for a while; then all is left to settle, and is compared
    __main__.py    many rounds: `make torture SEED=… MINUTES=…`

Not yet part of `make test`: too few rounds have been seen.
"""
