"""Makes the settings of a syncer that a test starts, as environment variables."""

from __future__ import annotations

import os
from pathlib import Path

from devstack import Stack
from tests.harness.database import Database

ROOT = Path(__file__).parents[2]


def environment(
    stack: Stack, database: Database, folder: Path, *, topic_prefix: str, group_prefix: str, state_topic: str
) -> dict[str, str]:
    """Returns the environment of a syncer on these servers.

    folder: has the read models in `models` and the connectors in `connectors`.
    """
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "SYNCER_MODELS": str(folder / "models"),
        "SYNCER_POSTGRES__DSN": database.dsn,
        "SYNCER_KAFKA__BOOTSTRAP_SERVERS": stack.kafka,
        "SYNCER_KAFKA__TOPIC_PREFIX": topic_prefix,
        "SYNCER_KAFKA__GROUP_PREFIX": group_prefix,
        "SYNCER_KAFKA__STATE_TOPIC": state_topic,
        "SYNCER_CONNECT__URL": stack.connect,
        "SYNCER_CONNECT__DEFINITIONS": str(folder / "connectors"),
        "SYNCER_ELASTICSEARCH__URL": stack.elasticsearch,
        "SYNCER_REDIS__URL": stack.redis,
    }
