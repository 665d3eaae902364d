"""Lets applications read a new generation, in one sink after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from syncer.errors import Fatal, Retry
from syncer.operations.backfill import Progress
from syncer.pacing import poll_until
from syncer.ports import WritableSink

_PAUSE = 1.0  # seconds between two attempts


def switch_readers(
    sinks: Sequence[WritableSink], report: Callable[[Progress], None], *, pause: float = _PAUSE
) -> list[str]:
    """Activates the generation of every sink. Returns the targets that are obsolete now (`WritableSink.activate`).

    While a sink is busy or unreachable, tries again, without limit: the generation is complete, and giving up would
    leave readers of the sinks on two generations.

    Raises Fatal if a sink refuses. If other sinks have switched by then, the error names them.
    """
    obsolete: list[str] = []
    switched: list[str] = []
    for sink in sinks:
        try:
            obsolete += _activate(sink, report, pause)
        except Fatal as error:
            if not switched:
                raise
            raise Fatal(
                f"{error.what}. Applications read the new generation in {', '.join(switched)} only",
                where=error.where,
                why=error.why,
                hint=f"{error.hint}; then run the resync again" if error.hint else "run the resync again",
            ) from error
        switched.append(sink.name)
    return obsolete


def _activate(sink: WritableSink, report: Callable[[Progress], None], pause: float) -> list[str]:
    found: list[list[str]] = []

    def is_active() -> bool:
        try:
            found.append(sink.activate())
        except Retry as error:
            report(Progress("rendering", 0, 0, f"switching readers of {sink.name}, trying again: {error}"))
        return bool(found)

    poll_until(is_active, timeout=math.inf, interval=pause)
    return found[-1]
