"""One weaker rule: the fault that it causes, and the world that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from syncer.pipeline.lane import Lane


@dataclass(frozen=True, slots=True)
class Weaker:
    """wrong: the fault. patches: (class or module, function) → its replacement. The others: see `World`.

    first: the seed with which the search begins. For a rare fault it is a little before the first seed that showed it.
    If a change of the code moves that schedule, the search takes longer.
    """

    wrong: str
    patches: Mapping[tuple[Any, str], Any] = field(default_factory=dict)
    lane: type[Lane] = Lane
    remembers: float = 3600.0
    refuses: bool = False
    watermarks: bool = False
    refreshes: bool = False
    topic: bool = False
    hot: bool = False
    model: str = "orders"
    lookup_levels: int | None = None
    sinks: int = 1
    resumes: bool = False
    first: int = 0

    @property
    def world(self) -> dict[str, Any]:
        """Returns the arguments of `schedule.run` for this rule."""
        return {
            "lane": self.lane,
            "remembers": self.remembers,
            "refuses": self.refuses,
            "watermarks": self.watermarks,
            "refreshes": self.refreshes,
            "topic": self.topic,
            "hot": self.hot,
            "model": self.model,
            "lookup_levels": self.lookup_levels,
            "sinks": self.sinks,
            "resumes": self.resumes,
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for (owner, name), function in self.patches.items():
                stack.enter_context(patch.object(owner, name, function))
            yield
