"""Drops the replication slot, the one fault that needs an operator: changes are lost with it.

The syncer must report it with the commands to run. These commands must repair all read models.
"""

from __future__ import annotations

import time

from tests.convergence.deployment import Deployment
from tests.convergence.workload import Workload
from tests.harness.database import drop_slots
from tests.harness.waiting import remaining

DETECTION_TIMEOUT = 60.0


def lose_slot(deployment: Deployment, workload: Workload) -> None:
    """Drops the slot and writes rows that Kafka never receives. Then runs the commands that the status names.

    Raises AssertionError if a read model does not report the loss in time.
    """
    with deployment.database.connect() as admin:
        drop_slots(admin, deployment.database.name)
    for name in ("add many", "forget many", "add a project"):
        workload.do(name)
    for _ in remaining(time.monotonic() + DETECTION_TIMEOUT, pause=1.0):
        models = deployment.status(expect=(0, 1))
        errors = {model["model"]: f"{model['last_error']} → {model['hint']}" for model in models}
        if all(f"syncer resync {model}" in error for model, error in errors.items()):
            break
    else:
        raise AssertionError(f"the lost slot was not reported within {DETECTION_TIMEOUT:.0f} s: {errors}")
    deployment.run("connectors", "reset", "--yes")
    for model in deployment.models:
        deployment.run("resync", deployment.model(model), "--yes")
