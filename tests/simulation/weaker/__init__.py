"""Rules that look sufficient and are not. The schedules must detect each of them, or they prove nothing.

A weaker rule replaces methods of the syncer during a test, or changes the world. The syncer itself has no switch for
it. Each rule names the fault that it causes.
"""

from __future__ import annotations

from tests.simulation.weaker import (
    divided_groups,
    documents,
    hot_roots,
    indexes,
    partials,
    refreshes,
    resumes,
    topics,
    watermarks,
    writing,
)
from tests.simulation.weaker.rule import Weaker

WEAKER: dict[str, Weaker] = {
    **documents.RULES,
    **writing.RULES,
    **resumes.RULES,
    **topics.RULES,
    **refreshes.RULES,
    **watermarks.RULES,
    **hot_roots.RULES,
    **partials.RULES,
    **divided_groups.RULES,
    **indexes.RULES,
}
