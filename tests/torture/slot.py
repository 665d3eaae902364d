"""The one fault that nobody mends by itself: the slot is gone, and with it changes. It has to be told, with
the commands; and those have to make everything right again."""

from __future__ import annotations

import time

from tests.convergence.deployment import MODELS, Deployment
from tests.convergence.workload import Workload
from tests.harness.database import drop_slots
from tests.harness.waiting import remaining

NOTICED_WITHIN = 60.0


def lose_slot(deployment: Deployment, workload: Workload) -> None:
    """Drop it, write what never arrives, wait until every read model says so, and do as it says."""
    with deployment.database.connect() as admin:
        drop_slots(admin, deployment.database.name)
    for name in ("add many", "forget many", "add a project"):
        workload.do(name)
    for _ in remaining(time.monotonic() + NOTICED_WITHIN, pause=1.0):
        models = deployment.status(expect=(0, 1))
        told = {model["model"]: f"{model['last_error']} → {model['hint']}" for model in models}
        if all(f"syncer resync {model}" in error for model, error in told.items()):
            break
    else:
        raise AssertionError(f"a lost slot was not noticed within {NOTICED_WITHIN:.0f} s: {told}")
    deployment.run("connectors", "reset", "--yes")
    for model in MODELS:
        deployment.run("resync", deployment.model(model), "--yes")
