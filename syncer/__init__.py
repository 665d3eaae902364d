"""Keeps read models (Elasticsearch, Redis) in step with PostgreSQL, from its change stream.

Read `pipeline/lane.py` first: it is the life of one batch, in order.
"""

__version__ = "0.1.0"
