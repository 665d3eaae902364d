"""Defines the operations of the application on the tables of `schema.sql`.

Each operation runs a few statements in one transaction. The seeded generator of the writer chooses rows and values.
A statement can fail, for example because of a foreign key or a deadlock. The writer then rolls the transaction back,
as an application does. `OPERATIONS`, at the end, has the relative frequency of each operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.convergence.values import (
    REGIONS,
    Row,
    Session,
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

Operation = Callable[[Session], None]
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


def pick(session: Session, table: str) -> Row:
    """Returns the key of a random row. Returns NULLs if the table is empty."""
    key = KEYS[table]
    some = f"floor(%s::float8 * (SELECT count(*) FROM {table}))"
    found = session.fetch_one(
        f"SELECT {key} FROM {table} ORDER BY {key} OFFSET {some} LIMIT 1", session.random.random()
    )
    return found or (None,) * len(key.split(","))


def is_key(table: str) -> str:
    return " AND ".join(f"{column} = %s" for column in KEYS[table].split(", "))


# -- inserts ----------------------------------------------------------------------------------------------


def add_project(session: Session) -> None:
    id, lead = (
        session.next_id(),
        session.fetch_one(f'SELECT "Ausweis" FROM {PERSON} WHERE "Kürzel" = %s', *pick(session, PERSON)),
    )
    session.run(
        "INSERT INTO projects (id, tenant_code, tenant_nr, parent_id, title, state, budget, lead, created,"
        " meta, digest) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        id,
        *maybe(session, pick(session, "tenants")),
        *maybe(session, pick(session, "projects"), 0.5),
        words(session),
        state(session),
        *maybe(session, (amount(session),)),
        lead and lead[0],
        instant(session),
        meta(session),
        digest(session),
    )
    for _ in range(session.random.choice((0, 1, 3, 7))):
        _add_task(session, id)
    for _ in range(session.random.randint(0, 3)):
        _label(session, id)


def _add_task(session: Session, project: int) -> None:
    id, where = session.next_id(), region(session)
    session.run(
        "INSERT INTO tasks (id, region, project_id, assignee, title, hours, done, due)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        id,
        where,
        project,
        *maybe(session, pick(session, PERSON)),
        words(session),
        hours(session),
        done(session),
        *maybe(session, (instant(session),)),
    )
    for _ in range(session.random.choice((0, 0, 1, 4))):
        _add_entry(session, id, where)


def _add_entry(session: Session, task: int, where: str) -> None:
    session.run(
        "INSERT INTO entries VALUES (%s, %s, %s, %s, %s, %s)",
        session.next_id(),
        task,
        where,
        minutes(session),
        day(session),
        note(session),
    )


def _label(session: Session, project: int) -> None:
    (label,) = pick(session, "labels")
    if label is not None:
        statement = "INSERT INTO project_labels VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
        session.run(statement, project, label, session.random.randint(1, 9))


def add_task(session: Session) -> None:
    if (project := pick(session, "projects")[0]) is not None:
        _add_task(session, project)


def add_entries(session: Session) -> None:
    task, where = pick(session, "tasks")
    for _ in range(session.random.randint(1, 5) if task else 0):
        _add_entry(session, task, where)


def add_label(session: Session) -> None:
    if (project := pick(session, "projects")[0]) is not None:
        _label(session, project)


def new_label(session: Session) -> None:
    session.run("INSERT INTO labels VALUES (%s, %s)", session.next_id(), words(session, 2))


def new_person(session: Session) -> None:
    values = (
        f"{words(session, 2)} {session.next_id()}",
        badge(session),
        words(session),
        rank(session),
        chance(session),
    )
    session.run(f"INSERT INTO {PERSON} VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", *values)


def new_tenant(session: Session) -> None:
    session.run(
        "INSERT INTO tenants VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        word(session),
        session.random.randint(1, 60),
        words(session),
        chance(session),
        *maybe(session, (day(session),)),
        *maybe(session, (rate(session),)),
    )


def add_many(session: Session) -> None:
    """Inserts more roots than one batch can have."""
    ids = [session.next_id() for _ in range(session.random.randint(30, 90))]
    session.run(
        "INSERT INTO projects (id, tenant_code, tenant_nr, title, state, budget, created)"
        " SELECT i, t.code, t.nr, 'of ' || i, (ARRAY['open', 'draft', 'closed'])[1 + i %% 3]::state, i / 7.0,"
        "        %s"
        "   FROM unnest(%s::bigint[]) i LEFT JOIN LATERAL"
        "        (SELECT code, nr FROM tenants ORDER BY code, nr OFFSET i %% 20 LIMIT 1) t ON true",
        instant(session),
        ids,
    )
    session.run(
        "INSERT INTO tasks (id, region, project_id, title, hours, done)"
        " SELECT i, (%s::text[])[1 + i %% 6], i, 'task', 1.25, false FROM unnest(%s::bigint[]) i",
        list(REGIONS),
        ids,
    )
    session.run(
        "INSERT INTO entries SELECT i, i, (%s::text[])[1 + i %% 6], 15, '2024-02-29'   FROM unnest(%s::bigint[]) i",
        list(REGIONS),
        ids,
    )


def copy_many(session: Session) -> None:
    """Inserts several pages of rows by COPY. All rows of a page have the same position in the WAL."""
    when, some = instant(session), session.random.randint(100, 300)
    session.copy(COPY_PROJECTS, [(session.next_id(), "copied", "open", when) for _ in range(some)])


# -- updates and deletes ------------------------------------------------------------------------------------------


def edit(table: str, column: str, value: Callable[[Session], Any]) -> Operation:
    """Returns an operation that sets one column of one row."""
    return lambda session: session.run(
        f"UPDATE {table} SET {column} = %s WHERE {is_key(table)}", value(session), *pick(session, table)
    )


def link(table: str, columns: str, target: str, likely: float = 0.8) -> Operation:
    """Returns an operation that links a row to another parent, or to none."""
    values = ", ".join(f"{column} = %s" for column in columns.split(", "))
    statement = f"UPDATE {table} SET {values} WHERE {is_key(table)}"
    return lambda session: session.run(statement, *maybe(session, pick(session, target), likely), *pick(session, table))


def remove(table: str) -> Operation:
    return lambda session: session.run(f"DELETE FROM {table} WHERE {is_key(table)}", *pick(session, table))


def fixed(statement: str) -> Operation:
    """Returns an operation that always runs the same statement."""
    return lambda session: session.run(statement)


def renumber(session: Session) -> int:
    return session.next_id()


def rename(session: Session) -> str:
    return f"{words(session, 2)} {session.next_id()}"


def hand_over_tasks(session: Session) -> None:
    """Moves all tasks of a project to another one."""
    statement = "UPDATE tasks SET project_id = %s WHERE project_id = %s"
    session.run(statement, *pick(session, "projects"), *pick(session, "projects"))


def rekey_tenant(session: Session) -> None:
    statement = "UPDATE tenants SET code = %s, nr = %s WHERE code = %s AND nr = %s"
    session.run(statement, word(session), session.random.randint(1, 60), *pick(session, "tenants"))


def swap(table: str, spare: Callable[[Session], Any]) -> Operation:
    """Returns an operation that exchanges the keys of two rows in one transaction."""
    key = KEYS[table]

    def operation(session: Session) -> None:
        one, two, third = pick(session, table)[0], pick(session, table)[0], spare(session)
        for old, new in ((one, third), (two, one), (third, two)):
            session.run(f"UPDATE {table} SET {key} = %s WHERE {key} = %s", new, old)

    return operation


def replace_entry(session: Session) -> None:
    """Deletes an entry and inserts it again with the same key and another parent."""
    (id,), (task, where) = pick(session, "entries"), pick(session, "tasks")
    if id is not None and task is not None:
        session.run("DELETE FROM entries WHERE id = %s", id)
        session.run("INSERT INTO entries VALUES (%s, %s, %s, 7, '2025-01-01', 'again')", id, task, where)


def forget_many(session: Session) -> None:
    session.run("DELETE FROM projects WHERE id %% 3 = %s", session.random.randrange(3))


def edit_all(table: str, assignment: str) -> Operation:
    """Returns an operation whose one statement makes every document dirty."""
    return lambda session: session.run(
        f"UPDATE {table} SET {assignment}", *[session.next_id()] * assignment.count("%s")
    )


# -- frequencies ------------------------------------------------------------------------------------------

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
        lambda session: session.run("UPDATE projects SET tenant_nr = NULL WHERE id = %s", *pick(session, "projects")),
    ),
    "session over tasks": (8, hand_over_tasks),
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
"""Operations after which every document of some read model is rendered again."""
