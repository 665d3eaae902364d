"""Resolves links through other relations of the outer row, such as `on: {author_id: follows.followee_id}`.

Such a relation has the rows that are linked to any row at the end of the path. Each of them occurs once, however many
paths lead to it. So an order and a limit apply to the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from syncer.declaration.link_pairs import side, written
from syncer.declaration.names import Word, words
from syncer.declaration.sql_parser import UnsupportedExpression

T = TypeVar("T")
Follow = Callable[[tuple[Word, ...]], tuple[tuple[T, ...], str | None]]
"""Resolves a dotted name at the outer row, as `node.Node.follow` does: the relations on the way, and the column."""


def is_path(text: str) -> bool:
    """Returns whether the outer side of a link has several words. A text that is no name is not a path."""
    try:
        return len(words(side(text).column)) > 1
    except ValueError:
        return False


def goes_through(on: Mapping[str, str]) -> bool:
    """Returns whether a link goes through other relations."""
    return any(map(is_path, on.values()))


def resolve(on: Mapping[str, str], follow: Follow[T]) -> tuple[tuple[T, ...], dict[str, str]]:
    """Returns the relations that a link goes through, and the link to the rows at their end, with quoted names.

    Raises Misplaced for a path that leads to no column, and for paths to different rows.
    """
    found: list[tuple[T, ...]] = []
    pairs = {}
    for own, text in on.items():
        try:
            named = side(text)
            through, column = follow(tuple(words(named.column)))
            if column is None:
                raise UnsupportedExpression(
                    f"{text!r} is a relation, not a column", f"write one of its columns: {text}.…"
                )
            if found and found[0] != through:
                raise UnsupportedExpression(
                    "the columns of a link belong to different rows", "link all columns to the same row"
                )
        except ValueError as error:
            raise Misplaced(UnsupportedExpression(str(error)), own) from error
        except UnsupportedExpression as error:
            raise Misplaced(error, own) from error
        found.append(through)
        pairs[own] = written(column, named)
    return found[0], pairs


class Misplaced(Exception):
    """A mistake in one pair of a link."""

    def __init__(self, mistake: UnsupportedExpression, own: str) -> None:
        super().__init__(mistake.what)
        self.mistake = mistake
        self.own = own
        """The pair's column of the related table."""
