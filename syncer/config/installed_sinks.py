"""Finds the installed sinks. The configuration has one section for each of them.

A package in `syncer/sinks/` is a sink. A package of another distribution is a sink if the distribution names it in
the entry point group `syncer.sinks`. This module imports none of them.
"""

from __future__ import annotations

import pkgutil
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple

from syncer.errors import Fatal

GROUP = "syncer.sinks"
_SECTIONS = {"postgres": "postgres_sink"}
"""Kind → section, where the section of that name belongs to the source."""
_FOLDER = Path(__file__).parents[1] / "sinks"


class SinkOrigin(NamedTuple):
    """Where a kind of sink comes from."""

    module: str
    """Dotted name of the sink's package."""
    distribution: str = ""
    """Name and version of the distribution, such as `acme-sinks 1.2`. Empty: the sink is built in."""


def sink_modules() -> dict[str, str]:
    """Returns kind → dotted name of the sink's package. The kind is the name under `sink:` in a read model.

    Raises Fatal when two distributions provide the same kind.
    """
    return {kind: origin.module for kind, origin in sink_origins().items()}


def section_of(kind: str) -> str:
    """Returns the section of the configuration with the connection of a kind of sink."""
    return _SECTIONS.get(kind, kind)


def sink_origins() -> dict[str, SinkOrigin]:
    """Returns kind → origin, sorted by kind.

    A built-in sink wins over one of another distribution: a dependency must not replace it without notice.
    Raises Fatal when two distributions provide the same kind.
    """
    found = {m.name: SinkOrigin(f"syncer.sinks.{m.name}") for m in pkgutil.iter_modules([str(_FOLDER)]) if m.ispkg}
    built_in = frozenset(found)
    for entry in entry_points(group=GROUP):
        if entry.name in built_in:
            continue
        origin = SinkOrigin(entry.value, _distribution(entry))
        other = found.setdefault(entry.name, origin)
        if other != origin:
            raise Fatal(
                f"two distributions provide the sink {entry.name!r}",
                where=f"entry point group {GROUP}",
                why=f"{other.distribution} has {other.module}, {origin.distribution} has {origin.module}",
                hint=f"pip uninstall {origin.distribution.partition(' ')[0]}, or the other one",
            )
    return dict(sorted(found.items()))


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown distribution"
