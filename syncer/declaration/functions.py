"""Lists the functions and operators that expressions can use, and the type that each returns.

A function is listed if its result depends only on its arguments and on the parameters that the session sets. It must
not depend on the clock, the transaction, the user, other rows or a random source. PostgreSQL's volatility category
`stable` does not decide this: both `now()` and `jsonb_build_object` are stable. All functions are in `pg_catalog`.

Result types are names as in `Column.base`. They are used to derive mappings. `=1` stands for the type of the first
argument. `?` stands for a type that only PostgreSQL knows.
"""

from __future__ import annotations

from sqlglot import exp

_BY_RESULT = {
    "text": """
        lower upper initcap btrim ltrim rtrim concat concat_ws format left right lpad rpad repeat replace
        reverse split_part substr substring translate to_char to_hex md5 chr encode convert_from quote_ident
        quote_literal quote_nullable regexp_replace regexp_substr array_to_string jsonb_typeof jsonb_pretty
        jsonb_extract_path_text host abbrev normalize unistr overlay""",
    "integer": """
        length char_length character_length octet_length bit_length ascii strpos array_length array_ndims
        array_upper array_lower array_position cardinality jsonb_array_length num_nulls num_nonnulls
        regexp_count regexp_instr width_bucket scale min_scale get_byte family masklen""",
    "boolean": """
        starts_with isfinite isempty lower_inc upper_inc lower_inf upper_inf jsonb_path_exists
        jsonb_path_match jsonb_exists jsonb_exists_any jsonb_exists_all
        jsonb_contains jsonb_contained regexp_like
        jsonb_path_exists_tz jsonb_path_match_tz""",
    "jsonb": """
        to_jsonb jsonb_build_object jsonb_build_array jsonb_object jsonb_set jsonb_set_lax jsonb_insert
        jsonb_strip_nulls jsonb_extract_path jsonb_path_query_first jsonb_path_query_array
        jsonb_path_query_first_tz jsonb_path_query_array_tz jsonb_concat""",
    "double precision": """
        pi degrees radians sin cos tan cot asin acos atan atan2 sind cosd tand cotd asind acosd atand atan2d
        sinh cosh tanh asinh acosh atanh cbrt date_part""",
    "interval": "age justify_days justify_hours justify_interval make_interval",
    "date": "to_date make_date",
    "timestamp without time zone": "make_timestamp",
    "timestamp with time zone": "to_timestamp make_timestamptz",
    "time without time zone": "make_time",
    "bytea": "decode convert_to sha224 sha256 sha384 sha512 set_byte",
    "array": "string_to_array regexp_match regexp_split_to_array array_positions array_fill",
    "range": "int4range int8range numrange tsrange tstzrange daterange",
    "=1": """
        abs array_append array_cat array_remove array_replace trim_array trim_scale range_merge coalesce
        nullif greatest least""",
    "?": """
        ceil ceiling floor round trunc mod div power sqrt exp ln log sign gcd lcm factorial date_trunc
        date_bin timezone array_prepend multirange network netmask broadcast""",
}

FUNCTIONS = {name: result for result, names in _BY_RESULT.items() for name in names.split()}

KEYWORDS = frozenset({"coalesce", "nullif", "greatest", "least", "row"})
"""These look like functions, but are part of the grammar. They cannot be qualified with a schema."""

AGGREGATES = {
    "count": "`count(items)` counts rows. `count(items.note)` counts values that are not null.",
    "sum": "The sum of the values.",
    "avg": "The average of the values.",
    "min": "The smallest value.",
    "max": "The largest value.",
    "first": "The value of the first row in the order of the relation.",
    "last": "The value of the last row in the order of the relation.",
    "array_agg": "A list of the values in the order of the relation. Without rows, it is an empty list.",
    "array": "Another name of `array_agg`.",
    "string_agg": "`string_agg(items.sku, ', ')` joins texts in the order of the relation.",
    "bool_and": "Whether all values are true.",
    "bool_or": "Whether at least one value is true.",
    "every": "Another name of `bool_and`.",
}
"""Aggregates over the rows of a `many` relation, with their description for docs/read-models.md."""

_CLOCK_HINT = "a document depends only on rows; compare times where you read the document"
_ROWS_ONLY = "a document depends only on rows"
SEE_REFERENCE = "docs/read-models.md lists what an expression can use"

WRONG = {
    "now": _CLOCK_HINT,
    "random": _ROWS_ONLY,
    "json_build_object": "use jsonb_build_object",
    "json_build_array": "use jsonb_build_array",
    "to_json": "use to_jsonb",
    "row_to_json": "use `object:` or jsonb_build_object",
    "json_agg": "use array_agg",
    "jsonb_agg": "use array_agg",
    "json_object_agg": "use `group_by`",
    "jsonb_object_agg": "use `group_by`",
    "unnest": "a function that returns several rows is not a value",
    "generate_series": "a function that returns several rows is not a value",
    "extract": "write extract(FIELD from value)",
}
"""Hints for functions that users often try."""

NOT_BUILT_IN = (
    "your own functions and those of other extensions are not allowed. Compute the value in PostgreSQL and use the new"
    " column: ALTER TABLE … ADD COLUMN … GENERATED ALWAYS AS ({}(…)) STORED. If the function is not immutable, fill the"
    " column by a trigger"
)


REFUSED: dict[type[exp.Expr], tuple[str, str]] = {
    exp.Subquery: ("cannot use a subquery", "declare a relation"),
    exp.Select: ("cannot use a subquery", "declare a relation"),
    exp.Exists: ("cannot use a subquery", "declare a relation and use count(relation) > 0"),
    exp.Window: ("cannot use a window function", "use an aggregate over a relation"),
    exp.Placeholder: ("cannot use a parameter", "write the value itself"),
    exp.Parameter: ("cannot use a parameter", "write the value itself"),
    exp.CurrentDate: ("cannot use current_date", _CLOCK_HINT),
    exp.CurrentTime: ("cannot use current_time", _CLOCK_HINT),
    exp.CurrentTimestamp: ("cannot use current_timestamp", _CLOCK_HINT),
    exp.Localtime: ("cannot use localtime", _CLOCK_HINT),
    exp.Localtimestamp: ("cannot use localtimestamp", _CLOCK_HINT),
    exp.CurrentUser: ("cannot use current_user", _ROWS_ONLY),
    exp.SessionUser: ("cannot use session_user", _ROWS_ONLY),
    exp.CurrentSchema: ("cannot use current_schema", _ROWS_ONLY),
    exp.CurrentCatalog: ("cannot use current_catalog", _ROWS_ONLY),
}
"""Class of a refused node → what is wrong, and what to write instead."""


def result_type(name: str, arguments: list[str]) -> str:
    """Returns the result type of a function for these argument types. Empty if only PostgreSQL knows it."""
    result = FUNCTIONS.get(name, "?")
    first = next((a for a in arguments if a), "")
    if name in ("lower", "upper") and first not in ("text", "character varying", "literal"):
        return ""
    if name in ("ceil", "ceiling", "floor", "round", "trunc", "sign"):
        return {"numeric": "numeric", "double precision": "double precision"}.get(first, "")
    if name == "date_trunc" and len(arguments) > 1:
        return "timestamp with time zone" if arguments[1] == "date" else arguments[1]
    if name == "mod" and len(set(arguments)) == 1:
        return first
    return "" if result == "?" else first if result == "=1" else result


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


_OTHER_PRECEDENCE: dict[type[exp.Expr], int] = {
    exp.Not: NOT,
    exp.Is: IS,
    exp.Between: PATTERN,
    exp.In: PATTERN,
    exp.Escape: PATTERN,
    exp.MatchAgainst: OTHER,
    exp.BitwiseNot: OTHER,
    exp.Sqrt: OTHER,
    exp.Cbrt: OTHER,
    exp.AtTimeZone: 12,
    exp.Collate: 13,
    exp.Neg: UNARY,
    exp.Bracket: SUBSCRIPT,
    exp.Cast: CAST,
}


def precedence(node: exp.Expr) -> int:
    """Returns how tightly a node binds its operands. Names, constants and calls are atoms."""
    if type(node) in BINARY:
        return BINARY[type(node)][1]
    return _OTHER_PRECEDENCE.get(type(node), ATOM)
