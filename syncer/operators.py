"""PostgreSQL's operators and how tightly they bind: what an expression may be built of."""

from __future__ import annotations

from sqlglot import exp

UNARY, SUBSCRIPT, CAST, ATOM = 14, 15, 16, 20
COMPARISON, NOT, IS, PATTERN, OTHER = 5, 3, 4, 6, 8

# Class → operator, precedence (PostgreSQL manual, "Operator Precedence", and gram.y), result type.
BINARY: dict[type[exp.Expr], tuple[str, int, str]] = {
    exp.Or: ("OR", 1, "boolean"),
    exp.And: ("AND", 2, "boolean"),
    exp.NullSafeEQ: ("IS NOT DISTINCT FROM", IS, "boolean"),
    exp.NullSafeNEQ: ("IS DISTINCT FROM", IS, "boolean"),
    exp.EQ: ("=", COMPARISON, "boolean"),
    exp.NEQ: ("<>", COMPARISON, "boolean"),
    exp.LT: ("<", COMPARISON, "boolean"),
    exp.LTE: ("<=", COMPARISON, "boolean"),
    exp.GT: (">", COMPARISON, "boolean"),
    exp.GTE: (">=", COMPARISON, "boolean"),
    exp.Like: ("LIKE", PATTERN, "boolean"),
    exp.ILike: ("ILIKE", PATTERN, "boolean"),
    exp.SimilarTo: ("SIMILAR TO", PATTERN, "boolean"),
    exp.RegexpLike: ("~", OTHER, "boolean"),
    exp.RegexpILike: ("~*", OTHER, "boolean"),
    exp.DPipe: ("||", OTHER, "||"),
    exp.JSONExtract: ("->", OTHER, "jsonb"),
    exp.JSONExtractScalar: ("->>", OTHER, "text"),
    exp.JSONBExtract: ("#>", OTHER, "jsonb"),
    exp.JSONBExtractScalar: ("#>>", OTHER, "text"),
    exp.JSONBDeleteAtPath: ("#-", OTHER, "jsonb"),
    exp.JSONBPathExists: ("@?", OTHER, "boolean"),
    exp.JSONBContainsTopKey: ("?", OTHER, "boolean"),
    exp.JSONBContainsAnyTopKeys: ("?|", OTHER, "boolean"),
    exp.JSONBContainsAllTopKeys: ("?&", OTHER, "boolean"),
    exp.ArrayContainsAll: ("@>", OTHER, "boolean"),
    exp.ArrayContainedBy: ("<@", OTHER, "boolean"),
    exp.ArrayOverlaps: ("&&", OTHER, "boolean"),
    exp.Adjacent: ("-|-", OTHER, "boolean"),
    exp.StartsWith: ("^@", OTHER, "boolean"),
    exp.BitwiseAnd: ("&", OTHER, "=1"),
    exp.BitwiseOr: ("|", OTHER, "=1"),
    exp.BitwiseXor: ("#", OTHER, "=1"),
    exp.BitwiseLeftShift: ("<<", OTHER, "?"),
    exp.BitwiseRightShift: (">>", OTHER, "?"),
    exp.Add: ("+", 9, "+"),
    exp.Sub: ("-", 9, "-"),
    exp.Mul: ("*", 10, "*"),
    exp.Div: ("/", 10, "/"),
    exp.Mod: ("%", 10, "%"),
    exp.Pow: ("^", 11, "?"),
}


def precedence(node: exp.Expr) -> int:
    if isinstance(node, exp.Escape):
        return PATTERN
    if type(node) in BINARY:
        return BINARY[type(node)][1]
    return {
        exp.Not: NOT, exp.Is: IS, exp.Between: PATTERN, exp.In: PATTERN, exp.MatchAgainst: OTHER,
        exp.BitwiseNot: OTHER, exp.Sqrt: OTHER, exp.Cbrt: OTHER, exp.AtTimeZone: 12, exp.Collate: 13,
        exp.Neg: UNARY, exp.Bracket: SUBSCRIPT, exp.Cast: CAST,
    }.get(type(node), ATOM)  # fmt: skip
