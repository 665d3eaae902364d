"""Keeps read models in Elasticsearch, Redis and Kafka in sync with PostgreSQL, from its change stream.

Start with `pipeline/__init__.py`: it lists the stages of one batch, in order.
"""

__version__ = "0.1.0"
