"""Compiles a read model from YAML to SQL. Pure: the catalog is passed in, and no module here does I/O.

`model.py` validates the YAML. `binding.py` binds names to tables. `expressions.py`, `aggregates.py` and `scope.py`
write SQL. `compile.py` returns the `Compiled` read model that the pipeline runs.
"""
