"""Loads read models and registers them.

`loader.py` compiles declarations against the catalog. `registry.py` records where each read model began, its epoch and
its generation, and gives access to the storage of `ports.Backend`. `records/` lists everything that is kept there;
`state.py` reads and writes it. `backends.py` chooses the backend. `names.py` names topics and consumer groups.
"""
