"""Implements the operations that an operator starts: backfill, resync, verify, repair, replay and status.

The commands in `cli/` parse arguments and print results. They call this package for the work.
"""
