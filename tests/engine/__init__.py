"""Tests the pipeline with arbitrary read models and histories on a real PostgreSQL. See test_engine.py.

Declarations: `schema` (tables), `tree` (read models over them), `arbitrary` (Hypothesis strategies for both).
Events: `statements` (of the application), `application` (its sessions), `changes` (the change events that Debezium
would write), `world` (time, topics, sink). Expected documents: `oracle`. One example: `play`.
"""
