"""What is asked of a syntax tree before anything is written: its names, its aggregates, and why it is unfit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp

from syncer.lined_yaml import Path
from syncer.names import Word


class Unfit(Exception):
    """An expression that cannot be used: what is wrong with it, and a hint. The caller knows the line."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.place: Path | None = None
        """Where it is declared, if not where it is used: the filter or the order of a relation."""


@dataclass(frozen=True)
class Aggregate:
    """A call such as `sum(distinct items.quantity) filter (where items.quantity > 1)`, not resolved yet."""

    name: str
    arguments: tuple[exp.Expr, ...]
    distinct: bool
    order: tuple[exp.Ordered, ...]
    filter: exp.Expr | None

    def paths(self) -> list[tuple[Word, ...]]:
        """The names in it, in reading order."""
        parts = [*self.arguments, *self.order, *([self.filter] if self.filter else [])]
        return [path for part in parts for path in paths(part)]


def paths(tree: exp.Expr) -> Iterator[tuple[Word, ...]]:
    """Every dotted name in a tree."""
    if (path := path_of(tree)) is not None:
        yield path
        return
    for child in tree.iter_expressions():
        yield from paths(child)


def path_of(node: exp.Expr) -> tuple[Word, ...] | None:
    """The words of a name: of a Column, or of the Dots that sqlglot puts around one when a name has over four words."""
    if isinstance(node, exp.Column):
        parts = [node.args.get(k) for k in ("catalog", "db", "table", "this")]
        return tuple(_word(p) for p in parts if p is not None)
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Identifier):
        around = path_of(node.this)
        return None if around is None else (*around, _word(node.expression))
    return None


def _word(node: exp.Expr) -> Word:
    if not isinstance(node, exp.Identifier):
        raise Unfit("`*` names no column", "name each field")
    return Word(node.name, bool(node.args.get("quoted")))


def aggregate_of(name: str, node: exp.Expr, filter: exp.Expr | None) -> Aggregate:
    arguments, order, distinct = list(node.expressions), (), False
    if arguments and isinstance(arguments[-1], exp.Order):
        order = tuple(arguments[-1].expressions)
        arguments[-1:] = [arguments[-1].this]
    if arguments and isinstance(arguments[0], exp.Distinct):
        distinct = True
        arguments[:1] = arguments[0].expressions
    return Aggregate(name, tuple(arguments), distinct, order, filter)


def told(node: exp.Expr) -> str:
    """A piece of an expression for an error message."""
    try:
        return f"`{node.sql('postgres')}`"
    except (ValueError, RecursionError):
        return f"`{type(node).__name__}`"
