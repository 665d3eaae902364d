"""`syncer connectors`: Debezium in Kafka Connect, as `connectors/*.json` define it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict
from typing import Any

import click
import psycopg

from syncer.cli import output
from syncer.cli.check import echo_finding
from syncer.cli.context import Context, as_json, command, confirm, group, yes_option
from syncer.cli.survey import MENDED_BY_APPLY, Survey, survey
from syncer.config.schema import Config
from syncer.connect.client import Connect
from syncer.connect.definition import Definition
from syncer.connect.lookup import connect, find_definition
from syncer.declaration.model import load_all_valid
from syncer.errors import Fatal, Retry, SyncerError
from syncer.kafka.names import topic_of
from syncer.monitors.canary_probe import RoundTripCheck
from syncer.postgres.publication import Open, ensure_publication, read_facts, wait_for_open_transactions
from syncer.postgres.session import classify_error
from syncer.postgres.wal import drop_slot
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.registry import Registry

_PAUSE = 0.5


@group(
    "connectors",
    """
    syncer connectors apply
    syncer connectors status
    """,
)
def connectors() -> None:
    """Set up, show or remove the Debezium connector."""


@command(
    "apply",
    """
    syncer connectors apply
    syncer connectors apply --dry-run
    syncer connectors apply --yes            in scripts
    """,
    connectors,
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=60,
    show_default=True,
    help="Wait so many seconds for open transactions, and for the connector to run.",
)
@yes_option
@click.pass_context
def apply(ctx: click.Context, context: Context, dry_run: bool, timeout: float, yes: bool) -> None:
    """Show what differs from the definition, then make it so: topics, publication, connector.

    Refused (exit code 1) as long as `syncer check` finds errors, because a connector that is set up too early
    can make the application's own UPDATEs fail.
    """
    config = context.config
    found = survey(config, live=False)
    errors = [finding for finding in found.all("error") if finding.code not in MENDED_BY_APPLY]
    definition = found.definition
    if errors or definition is None:
        for finding in errors:
            echo_finding(finding)
        output.echo("not applied: mend these first (syncer check shows everything)", style="bold", err=True)
        ctx.exit(output.FINDING)
    with closing(connect(config)) as client, _session(config) as session:
        registry = open_registry(config)
        wanted = {topic_of(config.kafka.topic_prefix, table) for table in found.tables}
        topics = registry.changes.missing(wanted)
        statements = _publish(session, definition, found, dry_run=True)
        diff = client.plan(definition)
        for topic in topics:
            output.echo(f"topic {topic}: create with {config.kafka.partitions} partitions")
        for statement in statements:
            output.echo(f"publication: {statement}")
        output.echo(f"connector {diff}")
        if dry_run:
            return
        if topics or statements or diff.action != "unchanged":
            confirm("Apply this?", yes)
        registry.changes.create(topics)
        if _publish(session, definition, found, dry_run=False):
            _wait_for_transactions(session, timeout)
        client.apply(definition)
        if diff.action == "unchanged":
            client.wait_running(definition.name, timeout, steady=0)
        else:
            _wait_sending(client, registry, session, definition.name, timeout)
    output.echo(f"connector {definition.name} is running", style="green")


def _session(config: Config) -> psycopg.Connection[Any]:
    """One that may change the publication: the only thing that is ever made in the user's database."""
    try:
        return psycopg.connect(**config.postgres.arguments(), autocommit=True)
    except psycopg.Error as error:
        raise classify_error(error, "cannot connect to PostgreSQL") from error


def _publish(session: psycopg.Connection[Any], definition: Definition, found: Survey, *, dry_run: bool) -> list[str]:
    name = definition.config.get("publication.name", "")
    return ensure_publication(session, name, found.tables, dry_run=dry_run)


def _wait_sending(
    client: Connect, registry: Registry, session: psycopg.Connection[Any], name: str, timeout: float
) -> None:
    """Until the connector runs and has sent what is committed now. If it has not in time (seconds), tell.
    One that failed on a record runs for some seconds before it fails on it again."""
    client.wait_running(name, timeout)
    deadline = time.monotonic() + timeout
    try:
        echo = RoundTripCheck(registry, session)
        while not echo.came():
            if time.monotonic() > deadline:
                what = f"it has not sent yet what was committed {timeout:.0f} s ago (a backlog, or a snapshot?)"
                output.echo(f"connector {name}: {what}: syncer connectors status", style="yellow", err=True)
                return
            time.sleep(_PAUSE)
            client.wait_running(name, timeout, steady=0)
    except psycopg.Error as error:
        raise classify_error(error, "cannot commit a message") from error


def _wait_for_transactions(session: psycopg.Connection[Any], timeout: float) -> None:
    """What they changed before a table was published never arrives; a backfill begun later has it."""

    def report(still: Open) -> None:
        output.echo(f"waiting for open transactions to end: {still}", err=True)

    try:
        wait_for_open_transactions(session, timeout, progress=report)
    except Retry as error:
        output.echo(f"still open, so `syncer backfill` will wait for them: {error.why}", style="yellow", err=True)


@command(
    "status",
    """
    syncer connectors status
    syncer connectors status --json | jq .slot.behind
    """,
    connectors,
)
@as_json
@click.pass_context
def status(ctx: click.Context, context: Context, as_json: bool) -> None:
    """Show whether the connector runs, what failed, and how much log its slot holds back.

    Exit code 1 if it does not run.
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
        output.echo(f"{definition.name}: not there (syncer connectors apply)", style="yellow")
    else:
        _say_status(state, slot, differs)
    if state is None or not state.running:
        ctx.exit(output.FINDING)


def _say_status(state: Any, slot: dict[str, Any] | str, differs: int) -> None:
    rows = [[state.name, state.state.lower(), ""]]
    rows += [[f"  task {task.id}", task.state.lower(), ""] for task in state.tasks]
    if isinstance(slot, dict):
        behind = "" if slot["behind"] is None else f"{slot['behind'] / 2**20:,.1f} MiB behind"
        active = "active" if slot["active"] else "not read"
        rows.append([f"  slot {slot['name']}", f"{active}, {slot['wal_status']}", behind])
    else:
        rows.append(["  slot", slot, ""])
    output.table(["connector", "state", ""], rows)
    if state.failure:
        output.echo(state.failure, style="red")
    if differs:
        settings = f"{output.counted(differs, 'setting')} differ{'s' if differs == 1 else ''}"
        output.echo(f"{settings} from the definition: syncer connectors apply", style="yellow")


def _slot(config: Config, definition: Definition) -> dict[str, Any] | str:
    """The slot, or why it cannot be told."""
    try:
        with loader.reading(config) as connection:
            name = definition.config.get("slot.name", "")
            slot = read_facts(connection, [], publication="", slot=name).slot
            return asdict(slot) if slot else "not there"
    except SyncerError as error:
        return f"unknown: {error.why or error.what}"


@command(
    "reset",
    """
    syncer connectors reset
    syncer connectors reset --yes            in scripts
    """,
    connectors,
)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=60,
    show_default=True,
    help="Wait so many seconds for the connector to run.",
)
@yes_option
def reset(context: Context, timeout: float, yes: bool) -> None:
    """Have a connector begin anew whose slot is gone, or cannot be read any more.

    Debezium's stored position is forgotten, the slot dropped and made again. What was committed in between
    never arrives: all read models stop, and each needs a resync; the commands are printed.
    """
    config = context.config
    definition = find_definition(config, names_only=True)
    slot = definition.config.get("slot.name", "")
    registry = open_registry(config)
    with closing(connect(config)) as client, _session(config) as session:
        if client.config(definition.name) is None:
            raise Fatal("there is no such connector", where=definition.name, hint="syncer connectors apply")
        confirm(f"Give up the position of {definition.name}? Every read model needs a resync then.", yes)
        client.stop(definition.name)
        client.forget_offsets(definition.name)
        try:
            drop_slot(session, slot, timeout)
        except psycopg.Error as error:
            raise classify_error(error, f"cannot drop slot {slot}") from error
        why = "the connector was reset"
        stream = registry.broken(why, registry.stream())
        client.resume(definition.name)
        _wait_sending(client, registry, session, definition.name, timeout)
    registry.broken(why, stream, slot=slot)  # again: what was committed before the slot was made is lost, too
    output.echo(f"connector {definition.name} is running, from now on. Next:", style="green")
    registered = registry.state.load().models()
    declared = {model.name for model in load_all_valid(config.models)[0]}
    for name in sorted(registered & declared):
        output.echo(f"  syncer resync {name}")
    if others := ", ".join(sorted(registered - declared)):
        output.echo(f"also registered, not declared in {config.models}: {others}")


@command("delete", "syncer connectors delete --yes", connectors)
@yes_option
def delete(context: Context, yes: bool) -> None:
    """Remove the connector from Kafka Connect. Slot, publication and topics stay.

    Changes go on being kept for the slot, so that the connector can be applied again without loss. The SQL to
    give them up is printed; after running it, the read models need a resync.
    """
    config = context.config
    definition = find_definition(config, names_only=True)
    with closing(connect(config)) as client:
        _delete(client, definition, yes)
    slot, publication = definition.config.get("slot.name", ""), definition.config.get("publication.name", "")
    output.echo("the slot goes on holding back PostgreSQL's log. To give up what it keeps:")
    output.echo(f"  SELECT pg_drop_replication_slot('{slot}');\n  DROP PUBLICATION IF EXISTS {publication};")


def _delete(client: Connect, definition: Definition, yes: bool) -> None:
    if client.config(definition.name) is None:
        raise Fatal("there is no such connector", where=f"{client.url}: {definition.name}")
    confirm(f"Delete connector {definition.name} at {client.url}?", yes)
    client.delete(definition.name)
    output.echo(f"connector {definition.name} deleted", style="green")
