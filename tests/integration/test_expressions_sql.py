"""Compares the value of each expression with the value of the same text in PostgreSQL."""

import json
from typing import Any

import pytest

from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import compile
from syncer.declaration.model import parse, tables
from syncer.errors import Fatal
from syncer.postgres.catalog import load
from syncer.postgres.session import PINNED
from tests.harness import Database

SCHEMA = [
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
    """CREATE TABLE probe (
        id int PRIMARY KEY, a int, b int, s smallint, big bigint, n numeric, m numeric(10, 2),
        f float8, r real, t text, v varchar(20), c char(5), flag boolean, d date, ts timestamp,
        tz timestamptz, tm time, i interval, u uuid, j json, jb jsonb, arr int[],
        tags text[], by bytea, md mood,
        rng int4range,
        addr inet, bits bit(4), "Größe" int, "select" text, "mixed Case" text, position int, year int)""",
    """INSERT INTO probe VALUES (
        1, 7, 2, 3, 9007199254740993, 1.10, 12.50, 0.1, 1.5, 'It''s 100% a\\b', 'Straße', 'ab', true,
        '2024-02-29', '2024-02-29 12:34:56.789', '2024-02-29 23:30:00+02', '10:00',
        '1 year 2 mons 3 days 04:05:06',
        '00000000-0000-0000-0000-000000000001', E'{"a": {"b.c": [1, 2]},\\n "0": "zero", "x": null}',
        '{"a": {"b.c": [1, 2]}, "0": "zero", "k": "v", "n": 1.50}', '{1,2,3}', '{a,NULL,"c d"}',
        '\\xdeadbeef',
        'ok', '[1,5)', '10.0.0.1/8', B'1010', 42, 'word', 'X', 5, 1999)""",
    "INSERT INTO probe (id) VALUES (2)",
]

EXPRESSIONS = """
a + b * 2 - 1
a / b
a % b
-a % b
- a ^ 2
a::numeric / b
a / b::numeric(10,4)
(a + b) * (a - b)
n * m
n + 1
big
big * 2
f + 0.2
f + n
r
a & b | 1
a # b
~a
a << 2
t || ' x'
t || a
a || t
t || v || c
'a' || 'b' = 'ab'
coalesce(t || null, 'none')
E'it\\'s\\ta \\\\ tab'
$$dollar 'quoted'$$
$x$with $$ inside$x$
'plain \\ backslash'
'100%'
t like '%100\\%%'
t like 'It%' and v not like 'x%'
v ilike 'STRA%'
t like 'It''s 100!% %' escape '!'
v ~ '^S.*e$'
v !~ 'x'
v ~* '^s' and v !~* '^x'
v similar to '(S|T)%'
a between 1 and 10
a not between 1 and b
a in (1, 7)
v not in ('x', 'y')
a = any(arr)
2 = any(array[1, 2])
a <> all(arr)
a = some(array[7])
arr @> array[1]
array[1] <@ arr
arr && '{3,4}'
arr || 4
arr[1]
arr[a - 5]
arr[2:3]
tags[3]
array[a, b]
array[[1,2],[3,4]]
array[]::int[]
'{1,2}'::int[]
array_length(arr, 1)
array_to_string(tags, ',', '?')
cardinality(arr)
j->'a'->'b.c'->0
j->>'0'
j->'x'
jb->'a'->'b.c'->>1
jb->'a'->'b.c'->>-1
jb->>'k' || '!'
(jb->>'n')::numeric + 1
jb #> '{a,b.c}'
jb #>> '{a,b.c,0}'
jb ? 'k'
jb ?| array['zz', 'k']
jb ?& array['a', 'zz']
jb @> '{"k": "v"}'
'{"k": "v"}'::jsonb <@ jb
jb - 'a'
jb #- '{a,b.c}'
jb || '{"z": 1}'
jb @? '$.a'
jb @@ '$.n > 1'
jb['k']
jsonb_build_object('a', a, 'nested', jsonb_build_array(t, n, null))
jsonb_typeof(jb->'a')
to_jsonb(d)
case when a > 5 then 'big' when a is null then 'none' else 'small' end
case b when 2 then t end
nullif(a, 7)
greatest(a, b, 3)
least(d, date '2020-01-01')
a is null
a is not null
flag is true
flag is not false
flag is unknown
not flag or a > 1 and b > 1
not a = b
a is distinct from b
a is not distinct from null
a isnull
(a, b) = (7, 2)
row(a, b) < row(7, 3)
(a, b) in ((1, 2), (7, 2))
d
d + 1
d - date '2024-01-01'
d + interval '1 day'
ts + interval '1 year 2 mons 3 days 04:05:06.7'
ts - interval '1-2'
ts + interval 'P1Y2M'
interval '1 day 02:03:04' * 2
'1.5 hours'::interval
ts - timestamp '2024-01-01 00:00'
i
i * 2
-i
tz
tz at time zone 'Europe/Berlin'
ts at time zone 'America/New_York'
date_trunc('month', ts)
date_trunc('day', tz, 'Europe/Berlin')
extract(year from d)
extract(epoch from ts - '2024-01-01'::timestamp)
extract(dow from d)
date_part('hour', ts)
age(ts, timestamp '2000-01-01')
to_char(ts, 'YYYY-MM-DD"T"HH24:MI')
to_char(n, 'FM990.000')
to_date('20240102', 'YYYYMMDD')
to_timestamp(0)
make_date(2024, 1, 2)
tm + interval '30 minutes'
tz::date
ts::date::text
d::timestamp
'2024-01-01'::timestamptz
timestamp with time zone '2024-01-01 00:00+01'
a::text
a::text || 'x'
a::bigint::numeric(12, 3)
n::int
m::varchar(2)
v::char(3)
t::varchar
cast(a + b as text)
cast(m as int)
flag::int
md
md = 'ok'
md > 'sad'
'happy'::mood
md::text || '!'
u
u::text
upper(t)
lower(v) || '-' || initcap(t)
length(t) + char_length(v)
substring(t from 1 for 4)
substring(t, 2, 3)
substring(t for 2)
substring(v from 'S(t)r')
position('s' in t)
trim(both ' ' from '  x ')
trim('  x ')
trim(leading 'S' from v)
overlay(t placing 'XX' from 2 for 1)
replace(t, '''', '"')
split_part('a|b|c', '|', 2)
left(t, 2) || right(t, 2)
lpad(a::text, 5, '0')
regexp_replace(v, 'ß', 'ss')
regexp_match(v, '(a)(ß)')
string_to_array('a,b', ',')
concat(a, '-', t, null)
concat_ws('/', a, b)
format('%s of %s%%', a, b)
md5(t)
encode(by, 'hex')
encode(sha256(by), 'base64')
decode('beef', 'hex')
by
round(n, 1)
round(f)
ceil(n)
floor(-n)
trunc(12.345, 1)
abs(-a)
sign(n)
mod(a, b)
power(a, 2)
sqrt(16)
|/ 16
a ^ b
a ^ b ^ b
2 ^ -1
1e3
1.50
.5
00123
123456789012345678901234567890
-9223372036854775808
rng
rng @> 3
lower(rng)
int4range(1, 3) && rng
rng -|- int4range(5, 6)
addr
host(addr)
addr << inet '10.0.0.0/7'
bits
bits::text
B'101'
null
null::int
true
'text'
"Größe" + 1
Größe * 2
"select"
"mixed Case" || T
position
position + 1
year - 1
pg_catalog.upper(t)
UPPER(T)
t collate "C" < 'a'
t ^@ 'It'
a = b is null
a + b || 'x'
'now'::text
'the order is now ' || t
num_nulls(a, null, b)
""".strip().splitlines()


@pytest.fixture
def catalog(database: Database) -> Catalog:
    database.execute(*SCHEMA)
    with database.connect() as conn:
        return load(conn, tables(model("id")))


def model(*expressions: str) -> Any:
    fields = "\n".join(f"  f{i}: {json.dumps(text)}" for i, text in enumerate(expressions))
    return parse(f"name: probe\nroot: {{table: probe}}\ndocument:\n{fields}\nsink: {{memory: {{}}}}\n", "probe.yaml")


def test_every_expression_has_the_value_of_its_text(database: Database, catalog: Catalog) -> None:
    wrong: list[tuple[object, ...]] = []
    with database.connect() as conn:
        for name, value in PINNED.items():
            if name != "search_path":
                conn.execute("SELECT set_config(%s, %s, false)", (name, value))
        for text in EXPRESSIONS:
            try:
                compiled = compile(model(text), catalog)
            except Fatal as error:
                wrong.append((text, str(error), ""))
                continue
            conn.execute("SET search_path = public")
            plain = text.replace("Größe *", '"Größe" *')
            plain = plain.replace("j->", "j::jsonb->") if plain.startswith("j->") else plain
            expected = conn.execute(
                f"SELECT row_to_json(x)::text FROM (SELECT {plain} AS f0 FROM probe ORDER BY id) x".encode()
            )
            rows = [row[0] for row in expected.fetchall()]
            conn.execute("SET search_path = pg_catalog")
            found = [row[2] for row in conn.execute(compiled.render.encode(), [["1", "2"]]).fetchall()]
            if found != rows:
                wrong.append((text, found, rows))
    assert not wrong, "\n".join(map(str, wrong))


def test_derived_field_types_equal_those_of_postgresql(database: Database, catalog: Catalog) -> None:
    """Derived types must be correct, but may be unknown."""
    wrong: list[tuple[object, ...]] = []
    with database.connect() as conn:
        for text in EXPRESSIONS:
            field = compile(model(text), catalog).fields[0]
            plain = text.replace("Größe *", '"Größe" *')
            plain = plain.replace("j->", "j::jsonb->") if plain.startswith("j->") else plain
            (actual,) = conn.execute(f"SELECT pg_typeof({plain})::text FROM probe LIMIT 1".encode()).fetchone() or ("",)
            derived = field.type + ("[]" if field.many else "")
            known = {"enum": "mood", "range": "int4range"}.get(derived, derived)
            if field.type != "unknown" and known != actual and (derived, actual) not in _SAME:
                wrong.append((text, derived, actual))
    assert not wrong, "\n".join(map(str, wrong))


_SAME = {("text", "unknown"), ("composite", "record"), ("numeric", "bigint")}
