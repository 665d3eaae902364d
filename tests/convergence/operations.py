"""Defines the operations of the application on the tables of `schema.sql`.

Each operation runs a few statements in one transaction. The seeded generator of the writer chooses rows and values.
A statement can fail, for example because of a foreign key or a deadlock. The writer then rolls the transaction back,
as an application does. `operation_mix` has the relative frequency of each operation.
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
