"""Computes the expected documents in Python, from plain SELECT statements of whole tables in one snapshot.

It implements `readmodels/*.yaml` independently, without SQL or code of the syncer. Numbers are exact.
"""

from __future__ import annotations

import decimal
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from tests.harness import Database

Row = dict[str, Any]
Documents = dict[str, Any]
"""Documents by id, as the sink should contain them."""

_TABLES = (
    "tenants",
    "projects",
    "tasks",
    "entries",
    "labels",
    "project_labels",
    '"Büro"."Person"',
)
DIGITS = 200
"""Precision of decimals. No number in the tests has more digits. Python would round sums to 28 digits."""


class Oracle:
    """Holds all rows of one snapshot."""

    def __init__(self, database: Database) -> None:
        tables: dict[str, list[Row]] = {}
        with database.connect(autocommit=False, row_factory=dict_row) as connection:
            set_json_loads(lambda text: json.loads(text, parse_float=Decimal), connection)
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute("SET LOCAL TimeZone = 'UTC'")
            for table in _TABLES:
                tables[table] = connection.execute(f"SELECT * FROM {table}".encode()).fetchall()  # type: ignore[assignment]
        self.rows = tables
        people = tables['"Büro"."Person"']
        self.tenants = _by(tables["tenants"], "code", "nr")
        self.projects = _by(tables["projects"], "id")
        self.labels = _by(tables["labels"], "id")
        self.people = _by(people, "Kürzel")
        self.badges = _by(people, "Ausweis")
        self.projects_of_tenant = _lists(tables["projects"], "tenant_code", "tenant_nr")
        self.parts = _lists(tables["projects"], "parent_id")
        self.led = _lists(tables["projects"], "lead")
        self.tasks_of_project = _lists(tables["tasks"], "project_id")
        self.tasks_of_person = _lists(tables["tasks"], "assignee")
        self.entries = _lists(tables["entries"], "task_id", "region")
        self.links = _lists(tables["project_labels"], "project_id")

    def documents(self) -> dict[tuple[str, str], Documents]:
        """Returns the expected documents, by read model and sink."""
        with decimal.localcontext(prec=DIGITS):
            return self._documents()

    def _documents(self) -> dict[tuple[str, str], Documents]:
        tenants = {_id(row["code"], row["nr"]): self._tenant(row) for row in self.tenants.values()}
        people = {row["Kürzel"]: self._person(row) for row in self.people.values() if row["aktiv"]}
        tasks = {_id(row["id"], row["region"]): self._task(row) for row in self.rows["tasks"]}
        return {
            ("projects", "elasticsearch"): _json(self._projects()),
            ("tenants", "elasticsearch"): _json(tenants),
            ("tenants", "redis"): _json(tenants),
            ("tenants", "postgres"): _json(tenants),
            ("people", "redis"): _json(people),
            ("tasks", "redis"): _json(tasks),
        }

    # -- readmodels/projects.yaml -------------------------------------------------------------------------

    def _projects(self) -> Documents:
        found = {}
        for row in self.projects.values():
            tenant = self._tenant_of(row)
            if row["state"] != "draft" and (tenant is None or tenant["active"]):
                found[str(row["id"])] = self._project(row, tenant)
        return found

    def _project(self, row: Row, tenant: Row | None) -> Row:
        parent = self.projects.get((row["parent_id"],))
        lead = self.badges.get((row["lead"],))
        parts = [part for part in self.parts[row["id"],] if part["state"] != "draft"]
        parts.sort(key=lambda part: (part["budget"] is not None, -(part["budget"] or 0), part["id"]))
        tasks = [task for task in self.tasks_of_project[row["id"],] if task["done"] is not True]
        tasks.sort(key=lambda task: (task["due"] is None, -_moment(task["due"]), task["id"]))
        return {
            **_take(row, "id", "title", "state", "budget", "created", "meta", "digest"),
            "title_length": len(row["title"]),
            "tenant": tenant and _take(tenant, "code", "nr", "name", "since", "rate"),
            "parent": parent and _take(parent, "id", "title", "digest"),
            "parts": [part["id"] for part in parts],
            "lead": {"name": lead["Voller Name"], "rank": lead["Rang"]} if lead and lead["aktiv"] else None,
            "labels": self._labels(row, lambda link: (link["rank"], link["label_id"])),
            "tasks": [self._task_of_project(task) for task in tasks[:3]],
            "totals": self._totals(tasks),
            "people": _distinct(task["assignee"] for task in tasks),
            "hours_by_region": {
                region: _sum(task["hours"] for task in tasks if task["region"] == region)
                for region in {task["region"] for task in tasks}
            },
        }

    def _task_of_project(self, task: Row) -> Row:
        entries = self._entries(task)
        assignee = self.people.get((task["assignee"],))
        first = sorted(entries, key=lambda entry: (entry["spent_on"], entry["id"]))[:2]
        return {
            **_take(task, "id", "region", "title", "hours", "due"),
            "cost": task["hours"] * Decimal("12.5"),
            "assignee": assignee and assignee["Voller Name"],
            "entries": [_take(entry, "minutes", "spent_on", "note") for entry in first],
            "minutes": _sum(entry["minutes"] for entry in entries),
        }

    def _totals(self, tasks: Sequence[Row]) -> Row:
        entries = [entry for task in tasks for entry in self._entries(task)]
        hours = [task["hours"] for task in tasks]
        # + 0: PostgreSQL has no -0.00
        average = (sum(hours) / len(hours)).quantize(Decimal("0.01"), ROUND_HALF_UP) + 0 if hours else None
        return {
            "tasks": len(tasks),
            "cost": _sum(task["hours"] * Decimal("12.5") for task in tasks),
            "minutes": _sum(entry["minutes"] for entry in entries),
            "long_entries": sum(entry["minutes"] > 60 for entry in entries),
            "average_hours": average,
            "next_due": min((task["due"] for task in tasks if task["due"]), default=None),
            "first_task": tasks[0]["title"] if tasks else None,
        }

    # -- the other read models ----------------------------------------------------------------------------

    def _tenant(self, row: Row) -> Row:
        projects = self.projects_of_tenant[row["code"], row["nr"]]
        tasks = [task for project in projects for task in self.tasks_of_project[project["id"],]]
        entries = [entry for task in tasks for entry in self._entries(task)]
        people = [self.people[task["assignee"],] for task in tasks if task["assignee"] is not None]
        latest = sorted(projects, key=lambda project: (-_moment(project["created"]), project["id"]))
        states = [project["state"] for project in projects]
        return {
            **_take(row, "code", "nr", "active", "since", "rate"),
            "label": f"{row['name']} #{row['nr']}",
            "projects": [
                _take(project, "id", "title", "state") | {"tasks": len(self.tasks_of_project[project["id"],])}
                for project in latest[:2]
            ],
            "project_count": len(projects),
            "budget": _sum(project["budget"] for project in projects),
            "states": {state: states.count(state) for state in set(states)},
            "minutes": _sum(entry["minutes"] for entry in entries),
            "last_entry": max((entry["spent_on"] for entry in entries), default=None),
            "people": _distinct(person["Voller Name"] for person in people if person["aktiv"]),
        }

    def _person(self, row: Row) -> Row:
        """Returns the fields of a hash: the text of each value, without fields for NULL."""
        tasks = sorted(self.tasks_of_person[row["Kürzel"],], key=lambda task: (task["id"], task["region"]))
        entries = [e for task in tasks for e in sorted(self._entries(task), key=lambda entry: entry["id"])]
        leads = self.led[row["Ausweis"],]
        values = {
            "kürzel": row["Kürzel"],
            "name": row["Voller Name"],
            "rang": row["Rang"],
            "aktiv": "true",
            "task_count": len(tasks),
            "hours": _sum(task["hours"] for task in tasks),
            "last_due": max((task["due"] for task in tasks if task["due"]), default=None),
            "minutes": _sum(entry["minutes"] for entry in entries),
            "last_note": entries[-1]["note"] if entries else None,
            "leads": len(leads),
            "lead_budget": _sum(project["budget"] for project in leads),
        }
        return {name: str(_json(value)) for name, value in values.items() if value is not None}

    def _task(self, row: Row) -> Row:
        project = self.projects[row["project_id"],]
        tenant, assignee = self._tenant_of(project), self.people.get((row["assignee"],))
        minutes = sorted((-entry["minutes"], entry["id"]) for entry in self._entries(row))
        return {
            **_take(row, "id", "region", "title", "hours", "done", "due"),
            "project": {
                **_take(project, "title", "state"),
                "tenant": tenant and tenant["name"],
                "labels": self._labels(project, lambda link: link["label_id"]),
                "task_count": len(self.tasks_of_project[project["id"],]),
            },
            "assignee": assignee and {"name": assignee["Voller Name"], "active": assignee["aktiv"]},
            "longest": [-negative for negative, _ in minutes[:3]],
            "minutes": _sum(-negative for negative, _ in minutes),
        }

    # -- related rows -------------------------------------------------------------------------------------

    def _tenant_of(self, project: Row) -> Row | None:
        return self.tenants.get((project["tenant_code"], project["tenant_nr"]))

    def _entries(self, task: Row) -> list[Row]:
        return self.entries[task["id"], task["region"]]

    def _labels(self, project: Row, order: Callable[[Row], Any]) -> list[str]:
        return [self.labels[link["label_id"],]["name"] for link in sorted(self.links[project["id"],], key=order)]


def _by(rows: Iterable[Row], *columns: str) -> dict[tuple[Any, ...], Row]:
    return {tuple(row[column] for column in columns): row for row in rows}


def _lists(rows: Iterable[Row], *columns: str) -> defaultdict[tuple[Any, ...], list[Row]]:
    """Groups rows by the given columns. Omits rows with a NULL in them."""
    found = defaultdict(list)
    for row in rows:
        key = tuple(row[column] for column in columns)
        if None not in key:
            found[key].append(row)
    return found


def _id(*key: object) -> str:
    """Returns the id of a document with several key columns: `|` separates them, `\\` escapes `|` and `\\`."""
    return "|".join(str(part).replace("\\", "\\\\").replace("|", "\\|") for part in key)


def _take(row: Row, *names: str) -> Row:
    return {name: row[name] for name in names}


def _json(value: Any) -> Any:
    """Converts SQL values to JSON values. Numbers stay unchanged."""
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, datetime):
        fraction = f".{value.microsecond:06}".rstrip("0").rstrip(".")
        return f"{value:%Y-%m-%dT%H:%M:%S}{fraction}+00:00"
    if isinstance(value, date):
        return value.isoformat()
    return "\\x" + value.hex() if isinstance(value, bytes) else value


def _moment(value: datetime | None) -> Decimal:
    """Returns exact seconds, so that a negated value sorts in descending order."""
    return Decimal(0) if value is None else Decimal(int(value.timestamp())) + Decimal(value.microsecond) / 1_000_000


def _sum(values: Iterable[Any]) -> Any:
    """Returns the sum as in SQL: the sum of no values is NULL (None)."""
    present = [value for value in values if value is not None]
    return sum(present) if present else None


def _distinct(values: Iterable[str | None]) -> list[str | None]:
    """Returns the distinct values in order, with NULL last."""
    found = set(values)
    return [*sorted(value for value in found if value is not None), *([None] if None in found else [])]
