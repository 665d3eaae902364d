"""Implements `syncer connectors`: manages the Debezium connector that `connectors/*.json` defines."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Any

import click
import psycopg

from syncer.cli import output
from syncer.cli.check import echo_finding
from syncer.cli.check_report import CheckReport
from syncer.cli.connector_steps import wait_for_transactions, wait_until_delivering, write_session
from syncer.cli.context import Context, as_json, command, confirm, group, yes_option
from syncer.cli.run_checks import FIXED_BY_APPLY, run_checks
from syncer.config.schema import Config
from syncer.connect.client import Connect
from syncer.connect.definition import Definition
from syncer.connect.lookup import connect, find_definition
from syncer.declaration.model import load_all_valid
from syncer.errors import Fatal, SyncerError
from syncer.kafka.names import topic_of
from syncer.postgres.publication import ensure_publication, read_facts
from syncer.postgres.session import classify_error
from syncer.postgres.wal import drop_slot
from syncer.quantities import counted
from syncer.registry import loader
from syncer.registry.backends import open_registry


@group(
    "connectors",
    """
    syncer connectors apply
    syncer connectors status
    """,
)
def connectors() -> None:
    """Set up, inspect, reset or delete the Debezium connector."""


@command(
    "apply",
    """
    syncer connectors apply
    syncer connectors apply --dry-run
    syncer connectors apply --yes            for scripts
    """,
    connectors,
    exits={0: "the connector runs, or --dry-run printed the changes", 1: "not applied, because of errors in the check"},
)
@click.option("--dry-run", is_flag=True, help="Print the changes and stop.")
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=60,
    show_default=True,
    help="Time to wait for open transactions to end, and for the connector to run.",
)
@yes_option
@click.pass_context
def apply(ctx: click.Context, context: Context, dry_run: bool, timeout: float, yes: bool) -> None:
    """Create or update the topics, the publication and the connector.

    Run it before the first backfill, and after each change of a connector definition or of the tables that read
    models use. The command prints the changes and asks for confirmation. It also starts a connector that failed, was
    paused or was stopped.

    \b
    PostgreSQL      creates the publication, or changes its list of tables and its options
    Kafka           creates missing topics of tables
    Kafka Connect   creates the connector, or changes its settings

    The command stops if `syncer check` finds errors. If a connector is set up before these errors are fixed, UPDATE
    statements of your application can fail.
    """
    config = context.config
    report = run_checks(config, live=False)
    errors = [finding for finding in report.all("error") if finding.code not in FIXED_BY_APPLY]
    definition = report.definition
    if errors or definition is None:
        for finding in errors:
            echo_finding(finding)
        output.echo(
            "nothing was applied. Fix these errors first; syncer check lists all findings", style="bold", err=True
        )
        ctx.exit(output.FINDING)
    with closing(connect(config)) as client, write_session(config) as session:
        registry = open_registry(config)
        wanted = {topic_of(config.kafka.topic_prefix, table) for table in report.tables}
        topics = registry.changes.missing(wanted)
        statements = _publish(session, definition, report, dry_run=True)
        diff = client.plan(definition)
        for topic in topics:
            output.echo(f"topic {topic}: create with {counted(config.kafka.partitions, 'partition')}")
        for statement in statements:
            output.echo(f"publication: {statement}")
        output.echo(f"connector {diff}")
        if dry_run:
            return
        if topics or statements or diff.action != "unchanged":
            confirm("Apply this?", yes)
        registry.changes.create(topics)
        if _publish(session, definition, report, dry_run=False):
            wait_for_transactions(session, timeout)
        client.apply(definition)
        if diff.action == "unchanged":
            client.wait_running(definition.name, timeout, steady=0)
        else:
            wait_until_delivering(client, registry, session, definition.name, timeout)
    output.echo(f"connector {definition.name} is running", style="green")


def _publish(
    session: psycopg.Connection[Any], definition: Definition, report: CheckReport, *, dry_run: bool
) -> list[str]:
    name = definition.config.get("publication.name", "")
    return ensure_publication(session, name, report.tables, dry_run=dry_run)


@command(
    "status",
    """
    syncer connectors status
    syncer connectors status --json | jq .slot.behind
    """,
    connectors,
    exits={0: "the connector runs", 1: "the connector does not run or does not exist"},
)
@as_json
@click.pass_context
def status(ctx: click.Context, context: Context, as_json: bool) -> None:
    """Show the state of the connector, its tasks and its replication slot.

    The output has the errors of failed tasks and the amount of WAL that the slot retains. It also has the number of
    settings that differ from the definition. The command changes nothing.
    """
    config = context.config
    definition = find_definition(config)
    with closing(connect(config)) as client:
        state = client.status(definition.name)
        differs = len(client.plan(definition).changes)
    slot = _slot(config, definition)
    if as_json:
        shown = state and asdict(state) | {"tasks": [task._asdict() for task in state.tasks]}
        output.echo_json({"name": definition.name, "status": shown, "differing": differs, "slot": slot})
    elif state is None:
        output.echo(f"{definition.name}: does not exist → syncer connectors apply", style="yellow")
    else:
        _echo_status(state, slot, differs)
    if state is None or not state.running:
        ctx.exit(output.FINDING)


def _echo_status(state: Any, slot: dict[str, Any] | str, differs: int) -> None:
    rows = [[state.name, state.state.lower(), ""]]
    rows += [[f"  task {task.id}", task.state.lower(), ""] for task in state.tasks]
    if isinstance(slot, dict):
        behind = "" if slot["behind"] is None else f"{slot['behind'] / 2**20:,.1f} MiB behind"
        active = "active" if slot["active"] else "not active"
        rows.append([f"  slot {slot['name']}", f"{active}, {slot['wal_status']}", behind])
    else:
        rows.append(["  slot", slot, ""])
    output.table(["connector", "state", ""], rows)
    if state.failure:
        output.echo(state.failure, style="red")
    if differs:
        settings = counted(differs, "setting differs", "settings differ")
        output.echo(f"{settings} from the definition → syncer connectors apply", style="yellow")


def _slot(config: Config, definition: Definition) -> dict[str, Any] | str:
    """Returns the facts of the slot, or text: why they are unknown, or that there is no slot."""
    try:
        with loader.catalog_session(config) as connection:
            name = definition.config.get("slot.name", "")
            slot = read_facts(connection, [], publication="", slot=name).slot
            return asdict(slot) if slot else "does not exist"
    except SyncerError as error:
        return f"unknown: {error.why or error.what}"


@command(
    "reset",
    """
    syncer connectors reset
    syncer connectors reset --yes            for scripts
    """,
    connectors,
    exits={0: "the connector runs; every read model needs a resync"},
)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=60,
    show_default=True,
    help="Time to wait for the connector to run.",
)
@yes_option
def reset(context: Context, timeout: float, yes: bool) -> None:
    """Restart the connector with a new replication slot.

    Run it if the slot was lost or invalidated. `syncer status` and `syncer check` print this command in that case.

    The command deletes the offsets that Debezium stored in Kafka Connect, drops the slot, and lets Debezium create a
    new one. Changes that only the old slot had kept never reach Kafka. All read models stop, and each of them needs a
    resync. The command prints the resync commands.
    """
    config = context.config
    definition = find_definition(config, names_only=True)
    slot = definition.config.get("slot.name", "")
    registry = open_registry(config)
    with closing(connect(config)) as client, write_session(config) as session:
        if client.config(definition.name) is None:
            raise Fatal("there is no such connector", where=definition.name, hint="syncer connectors apply")
        confirm(f"Delete the position of connector {definition.name}? Every read model then needs a resync.", yes)
        client.stop(definition.name)
        client.forget_offsets(definition.name)
        try:
            drop_slot(session, slot, timeout)
        except psycopg.Error as error:
            raise classify_error(error, f"cannot drop slot {slot}") from error
        why = "the connector was reset"
        stream = registry.broken(why, registry.stream())
        client.resume(definition.name)
        wait_until_delivering(client, registry, session, definition.name, timeout)
    registry.broken(why, stream, slot=slot)  # again: changes from before the new slot are lost, too
    output.echo(f"connector {definition.name} is running with a new slot. Next:", style="green")
    registered = registry.state.load().models()
    declared = {model.name for model in load_all_valid(config.models)[0]}
    for name in sorted(registered & declared):
        output.echo(f"  syncer resync {name}")
    if others := ", ".join(sorted(registered - declared)):
        output.echo(f"registered in Kafka, but not declared in {config.models}: {others}")


@command("delete", "syncer connectors delete --yes", connectors)
@yes_option
def delete(context: Context, yes: bool) -> None:
    """Delete the connector from Kafka Connect. Slot, publication and topics stay.

    PostgreSQL keeps WAL for the slot, so that `syncer connectors apply` can continue without loss. The WAL grows
    until then. The command prints the SQL that drops slot and publication. After that SQL, the read models need a
    resync.
    """
    config = context.config
    definition = find_definition(config, names_only=True)
    with closing(connect(config)) as client:
        _delete(client, definition, yes)
    slot, publication = definition.config.get("slot.name", ""), definition.config.get("publication.name", "")
    output.echo("PostgreSQL still keeps WAL for the slot. To drop the slot and lose these changes:")
    output.echo(f"  SELECT pg_drop_replication_slot('{slot}');\n  DROP PUBLICATION IF EXISTS {publication};")


def _delete(client: Connect, definition: Definition, yes: bool) -> None:
    if client.config(definition.name) is None:
        raise Fatal("there is no such connector", where=f"{client.url}: {definition.name}")
    confirm(f"Delete connector {definition.name} at {client.url}?", yes)
    client.delete(definition.name)
    output.echo(f"connector {definition.name} deleted", style="green")
