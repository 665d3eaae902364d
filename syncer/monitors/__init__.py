"""Detects what the lanes cannot see: lost changes, altered tables, and sinks that lost data.

A lane only sees the events that arrive. Each module here watches one thing that sends no event, and schedules repair
work or reports why a read model waits.
"""
