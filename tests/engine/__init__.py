"""The engine against arbitrary read models and histories, on a real PostgreSQL; see test_engine.py.

What is declared: `schema` (tables), `tree` (read models over them), `arbitrary` (Hypothesis makes both).
What happens: `statements` (of the application), `changes` (what PostgreSQL logged of them, as Debezium tells
it), `world` (time, topics, sink). What should be: `oracle`.
"""
