"""Limits of a lane: how much one batch may hold, and how long a lane may wait."""

from __future__ import annotations

from dataclasses import dataclass

LATE_HINT = "write less at a time (pipeline.chunk_documents), or raise pipeline.max_age"
"""The advice if documents are older than `Limits.max_age` before they are written."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of section `pipeline` that a lane needs. `config/schema.py` describes each of them.

    Sizes are in bytes, times in seconds.
    """

    max_records: int = 5000
    max_bytes: int = 16 << 20
    chunk_documents: int = 2000
    chunk_bytes: int = 8 << 20
    fan_out: int = 20_000
    commit_interval: float = 1.0
    gate_timeout: float = 30.0
    max_age: float = 30.0
