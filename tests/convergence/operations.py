"""What an application may do to the tables of `schema.sql`. Each operation is a few statements of one
transaction; which rows and values, the writer's seeded generator decides.

A statement may well fail (a foreign key, a deadlock between writers): then its transaction is rolled back, as
an application would do. `OPERATIONS`, at the end, says how often each is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.convergence.values import (
    REGIONS,
    Hand,
    Row,
    amount,
    badge,
    chance,
    day,
    digest,
    done,
    hours,
    instant,
    maybe,
    meta,
    minutes,
    note,
    rank,
    rate,
    region,
    state,
    word,
    words,
)

Operation = Callable[[Hand], None]
PERSON = '"Büro"."Person"'
KEYS = {
    "projects": "id",
    "tasks": "id, region",
    "entries": "id",
    "labels": "id",
    "tenants": "code, nr",
    "project_labels": "project_id, label_id",
    PERSON: '"Kürzel"',
}
COPY_PROJECTS = "COPY projects (id, title, state, created) FROM STDIN"


def pick(hand: Hand, table: str) -> Row:
    """The key of some row; NULLs if there is none."""
    key = KEYS[table]
    some = f"floor(%s::float8 * (SELECT count(*) FROM {table}))"
    found = hand.ask(f"SELECT {key} FROM {table} ORDER BY {key} OFFSET {some} LIMIT 1", hand.random.random())
    return found or (None,) * len(key.split(","))


def is_key(table: str) -> str:
    return " AND ".join(f"{column} = %s" for column in KEYS[table].split(", "))


# -- rows come --------------------------------------------------------------------------------------------


def add_project(hand: Hand) -> None:
    id, lead = (
        hand.fresh(),
        hand.ask(f'SELECT "Ausweis" FROM {PERSON} WHERE "Kürzel" = %s', *pick(hand, PERSON)),
    )
    hand.run(
        "INSERT INTO projects (id, tenant_code, tenant_nr, parent_id, title, state, budget, lead, created,"
        " meta, digest) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        id,
        *maybe(hand, pick(hand, "tenants")),
        *maybe(hand, pick(hand, "projects"), 0.5),
        words(hand),
        state(hand),
        *maybe(hand, (amount(hand),)),
        lead and lead[0],
        instant(hand),
        meta(hand),
        digest(hand),
    )
    for _ in range(hand.random.choice((0, 1, 3, 7))):
        _add_task(hand, id)
    for _ in range(hand.random.randint(0, 3)):
        _label(hand, id)


def _add_task(hand: Hand, project: int) -> None:
    id, where = hand.fresh(), region(hand)
    hand.run(
        "INSERT INTO tasks (id, region, project_id, assignee, title, hours, done, due)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        id,
        where,
        project,
        *maybe(hand, pick(hand, PERSON)),
        words(hand),
        hours(hand),
        done(hand),
        *maybe(hand, (instant(hand),)),
    )
    for _ in range(hand.random.choice((0, 0, 1, 4))):
        _add_entry(hand, id, where)


def _add_entry(hand: Hand, task: int, where: str) -> None:
    hand.run(
        "INSERT INTO entries VALUES (%s, %s, %s, %s, %s, %s)",
        hand.fresh(),
        task,
        where,
        minutes(hand),
        day(hand),
        note(hand),
    )


def _label(hand: Hand, project: int) -> None:
    (label,) = pick(hand, "labels")
    if label is not None:
        statement = "INSERT INTO project_labels VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
        hand.run(statement, project, label, hand.random.randint(1, 9))


def add_task(hand: Hand) -> None:
    if (project := pick(hand, "projects")[0]) is not None:
        _add_task(hand, project)


def add_entries(hand: Hand) -> None:
    task, where = pick(hand, "tasks")
    for _ in range(hand.random.randint(1, 5) if task else 0):
        _add_entry(hand, task, where)


def add_label(hand: Hand) -> None:
    if (project := pick(hand, "projects")[0]) is not None:
        _label(hand, project)


def new_label(hand: Hand) -> None:
    hand.run("INSERT INTO labels VALUES (%s, %s)", hand.fresh(), words(hand, 2))


def new_person(hand: Hand) -> None:
    values = (f"{words(hand, 2)} {hand.fresh()}", badge(hand), words(hand), rank(hand), chance(hand))
    hand.run(f"INSERT INTO {PERSON} VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", *values)


def new_tenant(hand: Hand) -> None:
    hand.run(
        "INSERT INTO tenants VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        word(hand),
        hand.random.randint(1, 60),
        words(hand),
        chance(hand),
        *maybe(hand, (day(hand),)),
        *maybe(hand, (rate(hand),)),
    )


def add_many(hand: Hand) -> None:
    """Many more roots than fit in one batch."""
    ids = [hand.fresh() for _ in range(hand.random.randint(30, 90))]
    hand.run(
        "INSERT INTO projects (id, tenant_code, tenant_nr, title, state, budget, created)"
        " SELECT i, t.code, t.nr, 'of ' || i, (ARRAY['open', 'draft', 'closed'])[1 + i %% 3]::state, i / 7.0,"
        "        %s"
        "   FROM unnest(%s::bigint[]) i LEFT JOIN LATERAL"
        "        (SELECT code, nr FROM tenants ORDER BY code, nr OFFSET i %% 20 LIMIT 1) t ON true",
        instant(hand),
        ids,
    )
    hand.run(
        "INSERT INTO tasks (id, region, project_id, title, hours, done)"
        " SELECT i, (%s::text[])[1 + i %% 6], i, 'task', 1.25, false FROM unnest(%s::bigint[]) i",
        list(REGIONS),
        ids,
    )
    hand.run(
        "INSERT INTO entries SELECT i, i, (%s::text[])[1 + i %% 6], 15, '2024-02-29'   FROM unnest(%s::bigint[]) i",
        list(REGIONS),
        ids,
    )


def copy_many(hand: Hand) -> None:
    """Several pages of rows: those of a page have one position in the log."""
    when, some = instant(hand), hand.random.randint(100, 300)
    hand.copy(COPY_PROJECTS, [(hand.fresh(), "copied", "open", when) for _ in range(some)])


# -- rows change ------------------------------------------------------------------------------------------


def edit(table: str, column: str, value: Callable[[Hand], Any]) -> Operation:
    """Set one column of one row."""
    return lambda hand: hand.run(
        f"UPDATE {table} SET {column} = %s WHERE {is_key(table)}", value(hand), *pick(hand, table)
    )


def link(table: str, columns: str, target: str, likely: float = 0.8) -> Operation:
    """Move a row to another parent, or to none."""
    values = ", ".join(f"{column} = %s" for column in columns.split(", "))
    statement = f"UPDATE {table} SET {values} WHERE {is_key(table)}"
    return lambda hand: hand.run(statement, *maybe(hand, pick(hand, target), likely), *pick(hand, table))


def remove(table: str) -> Operation:
    return lambda hand: hand.run(f"DELETE FROM {table} WHERE {is_key(table)}", *pick(hand, table))


def fixed(statement: str) -> Operation:
    """What does not depend on chance."""
    return lambda hand: hand.run(statement)


def renumber(hand: Hand) -> int:
    return hand.fresh()


def rename(hand: Hand) -> str:
    return f"{words(hand, 2)} {hand.fresh()}"


def hand_over_tasks(hand: Hand) -> None:
    """All tasks of a project to another one."""
    statement = "UPDATE tasks SET project_id = %s WHERE project_id = %s"
    hand.run(statement, *pick(hand, "projects"), *pick(hand, "projects"))


def rekey_tenant(hand: Hand) -> None:
    statement = "UPDATE tenants SET code = %s, nr = %s WHERE code = %s AND nr = %s"
    hand.run(statement, word(hand), hand.random.randint(1, 60), *pick(hand, "tenants"))


def swap(table: str, spare: Callable[[Hand], Any]) -> Operation:
    """Two rows exchange their keys, in one transaction."""
    key = KEYS[table]

    def operation(hand: Hand) -> None:
        one, two, third = pick(hand, table)[0], pick(hand, table)[0], spare(hand)
        for old, new in ((one, third), (two, one), (third, two)):
            hand.run(f"UPDATE {table} SET {key} = %s WHERE {key} = %s", new, old)

    return operation


def replace_entry(hand: Hand) -> None:
    """Deleted and inserted again under the same key, elsewhere."""
    (id,), (task, where) = pick(hand, "entries"), pick(hand, "tasks")
    if id is not None and task is not None:
        hand.run("DELETE FROM entries WHERE id = %s", id)
        hand.run("INSERT INTO entries VALUES (%s, %s, %s, 7, '2025-01-01', 'again')", id, task, where)


def forget_many(hand: Hand) -> None:
    hand.run("DELETE FROM projects WHERE id %% 3 = %s", hand.random.randrange(3))


def edit_all(table: str, assignment: str) -> Operation:
    """One statement, and every document is dirty."""
    return lambda hand: hand.run(f"UPDATE {table} SET {assignment}", *[hand.fresh()] * assignment.count("%s"))


# -- how often each is done -------------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[float, Operation]] = {
    "add a project": (60, add_project),
    "add a task": (40, add_task),
    "add entries": (60, add_entries),
    "add a label": (20, add_label),
    "a new label": (6, new_label),
    "a new person": (12, new_person),
    "a new tenant": (12, new_tenant),
    "add many": (3, add_many),
    "copy many": (0.5, copy_many),
    "edit a title": (20, edit("projects", "title", words)),
    "edit a budget": (20, edit("projects", "budget", amount)),
    "edit meta": (15, edit("projects", "meta", meta)),
    "edit a digest": (10, edit("projects", "digest", digest)),
    "edit created": (10, edit("projects", "created", instant)),
    "edit a task": (20, edit("tasks", "title", words)),
    "edit hours": (20, edit("tasks", "hours", hours)),
    "edit due": (20, edit("tasks", "due", instant)),
    "edit done": (20, edit("tasks", "done", done)),
    "edit minutes": (20, edit("entries", "minutes", minutes)),
    "edit a note": (20, edit("entries", "note", note)),
    "edit a rank": (10, edit(PERSON, '"Rang"', rank)),
    "edit a name": (10, edit(PERSON, '"Voller Name"', words)),
    "edit a rate": (10, edit("tenants", "rate", rate)),
    "edit a label": (6, edit("labels", "name", words)),
    "edit a place in a list": (10, edit("project_labels", "rank", minutes)),
    "enter or leave: state": (40, edit("projects", "state", state)),
    "enter or leave: tenant": (8, edit("tenants", "active", chance)),
    "enter or leave: person": (10, edit(PERSON, "aktiv", chance)),
    "move a task": (40, link("tasks", "project_id", "projects", 1)),
    "move a project": (30, link("projects", "tenant_code, tenant_nr", "tenants")),
    "move below a project": (20, link("projects", "parent_id", "projects", 0.6)),
    "move an entry": (30, link("entries", "task_id, region", "tasks", 1)),
    "assign a task": (30, link("tasks", "assignee", PERSON)),
    "another label": (15, link("project_labels", "label_id", "labels", 1)),
    "another project's label": (15, link("project_labels", "project_id", "projects", 1)),
    "another lead": (15, edit("projects", "lead", badge)),
    "half a tenant": (
        5,
        lambda hand: hand.run("UPDATE projects SET tenant_nr = NULL WHERE id = %s", *pick(hand, "projects")),
    ),
    "hand over tasks": (8, hand_over_tasks),
    "move to a region": (20, edit("tasks", "region", region)),
    "rekey a task": (8, edit("tasks", "id", renumber)),
    "rekey a project": (8, edit("projects", "id", renumber)),
    "rekey a person": (6, edit(PERSON, '"Kürzel"', rename)),
    "rekey a badge": (8, edit(PERSON, '"Ausweis"', badge)),
    "rekey a tenant": (6, rekey_tenant),
    "rekey a label": (4, edit("labels", "id", renumber)),
    "rekey an entry": (8, edit("entries", "id", renumber)),
    "swap people": (3, swap(PERSON, rename)),
    "swap projects": (3, swap("projects", renumber)),
    "replace an entry": (8, replace_entry),
    "remove an entry": (20, remove("entries")),
    "remove a task": (20, remove("tasks")),
    "remove a project": (15, remove("projects")),
    "remove a label": (2, remove("labels")),
    "remove a link": (10, remove("project_labels")),
    "remove a person": (4, remove(PERSON)),
    "remove a tenant": (3, remove("tenants")),
    "forget many": (1, forget_many),
    "edit all budgets": (1, edit_all("projects", "budget = budget + 0.01")),
    "edit all hours": (1, edit_all("tasks", "hours = 1 + mod(hours, 100)")),
    "edit all people": (1, edit_all(PERSON, """"Voller Name" = left("Voller Name", 20) || ' ' || %s::int""")),
    "edit all tenants": (1, edit_all("tenants", "name = left(name, 20) || ' ' || %s::int")),
    "truncate entries": (0.6, fixed("TRUNCATE entries")),
    "truncate labels": (0.4, fixed("TRUNCATE project_labels")),
    "truncate tasks": (0.4, fixed("TRUNCATE tasks, entries")),
    "truncate projects": (0.3, fixed("TRUNCATE projects CASCADE")),
    "truncate people": (0.2, fixed(f"TRUNCATE {PERSON} CASCADE")),
    "truncate tenants": (0.2, fixed("TRUNCATE tenants CASCADE")),
}
SWEEPING = frozenset(name for name in OPERATIONS if name.startswith(("truncate", "edit all", "forget")))
"""After these every document of some read model is rendered again."""
