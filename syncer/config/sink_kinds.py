"""Finds the sinks that are installed. The configuration has one section for each of them.

A package in `syncer/sinks/` is a sink. So is a package of another distribution that names itself in the entry point
group `syncer.sinks`. Nothing is imported here.
"""

from __future__ import annotations

import pkgutil
from importlib.metadata import entry_points
from pathlib import Path

GROUP = "syncer.sinks"
_FOLDER = Path(__file__).parents[1] / "sinks"


def sink_modules() -> dict[str, str]:
    """Returns kind → dotted name of the sink's package. The kind is the name under `sink:` in a read model."""
    own = {m.name: f"syncer.sinks.{m.name}" for m in pkgutil.iter_modules([str(_FOLDER)]) if m.ispkg}
    return dict(sorted(({e.name: e.value for e in entry_points(group=GROUP)} | own).items()))
