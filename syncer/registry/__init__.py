"""Loads read models and registers them.

`loader.py` compiles declarations against the catalog. `registry.py` records where each read model began, its epoch and
its generation.
"""
