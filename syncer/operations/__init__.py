"""Implements what operators ask for: backfill, resync, verify, repair, replay and status.

The commands in `cli/` parse arguments and print results. The work itself is here.
"""
