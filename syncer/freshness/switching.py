"""Decides whether readers may see the documents of another generation, because a resync is under way."""

from __future__ import annotations

import time

from syncer.errors import Retry
from syncer.registry.records import Registration, StateSlot
from syncer.registry.state import StateSnapshot


def find_switch(state: StateSnapshot, registration: Registration, *, in_place: bool) -> Retry | None:
    """Returns why a document that is fresh in this generation may not be the one that readers see; None if it is.

    An announced switch has no expiry. If the resync died after the announcement, nothing shows here whether readers
    use the next generation already. So the error names the command that ends this.

    in_place: whether a sink shares its documents between generations.
    """
    model = registration.model
    if switch := state.switch(registration.id):
        following, announced = switch
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(announced.at_ms / 1000))
        return Retry(
            "a resync is switching readers to another generation",
            where=model,
            why=f"generation {following} was announced at {since}",
            hint=f"send the request again in some seconds; if the resync was interrupted: syncer resync {model}",
        )
    if in_place and state.registration(model, StateSlot.NEXT):
        return Retry(
            "a resync is rebuilding the documents in place",
            where=model,
            why="a sink of the read model shares its documents between generations",
            hint=f"send the request again after the resync; if it was interrupted: syncer resync {model}",
        )
    return None
