"""Turns facts about trees (`up`) into findings: cycles, and paths that are longer than the limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from syncer.checks.finding import Finding, quote, quote_table
from syncer.declaration.compiled import Ancestors
from syncer.declaration.form import MOST_ANCESTORS
from syncer.events import TableName
from syncer.quantities import counted


@dataclass(frozen=True, slots=True)
class TreeFacts:
    """The result of a search in one tree."""

    path: str
    """Of the relation in the read model."""
    table: TableName
    ancestors: Ancestors
    searched: bool = False
    """Whether the search ended in time. The other facts are unknown if it did not."""
    circular: int = 0
    """Rows on a cycle or below one."""
    too_deep: int = 0
    """Rows whose path is longer than the limit."""
    longest: int = 0
    """Ancestors on the longest path."""
    cycle: tuple[str, ...] = ()
    """The keys of one cycle. Its first key is repeated at the end. Empty if it is unknown."""

    def found(self, circular: int, too_deep: int, longest: int, path: Sequence[str]) -> TreeFacts:
        """Returns the facts after a search. path: the keys from some row to the first repeated key."""
        cycle = tuple(path[path.index(path[-1]) :]) if path else ()
        facts = replace(self, circular=circular, too_deep=too_deep, longest=longest, cycle=cycle)
        return replace(facts, searched=True)


def check_trees(where: str, trees: Iterable[TreeFacts]) -> list[Finding]:
    """Returns the findings of each tree. where: the file of the declaration."""
    return [finding for facts in trees for finding in _check(f"{where}: {facts.path}", facts)]


def _check(at: str, facts: TreeFacts) -> Iterator[Finding]:
    limit = facts.ancestors.climb.limit
    if not facts.searched:
        what = f"the search for cycles in {facts.table} took too long"
        why = "cycles that a change closes are still reported: syncer_tree_cycles_total"
        yield Finding("note", "tree-search", at, what, why, f"{facts.ancestors.search};")
    if facts.circular:
        example = f", such as {' → '.join(facts.cycle)}" if facts.cycle else ""
        cycle = f"on a cycle or below one{example}"
        pairs = " AND ".join(f"{quote(own)} = …" for own, _ in facts.ancestors.climb.step)
        parent = ", ".join(f"{quote(other)} = NULL" for _, other in facts.ancestors.climb.step)
        yield Finding(
            "warning",
            "tree-cycle",
            at,
            counted(facts.circular, f"row of {facts.table} is {cycle}", f"rows of {facts.table} are {cycle}"),
            "their paths are cut at the first repeated row",
            f"change the parent of one row of each cycle, for example:\n"
            f"UPDATE {quote_table(facts.table)} SET {parent} WHERE {pairs};",
        )
    if facts.too_deep:
        deeper = f"more than {counted(limit, 'ancestor')}"
        yield Finding(
            "note",
            "tree-depth",
            at,
            counted(facts.too_deep, f"row of {facts.table} has {deeper}", f"rows of {facts.table} have {deeper}"),
            f"`limit` leaves out the farthest ones; the longest path has {counted(facts.longest, 'ancestor')}",
            f"limit: {facts.longest}" if facts.longest <= MOST_ANCESTORS else "",
        )
