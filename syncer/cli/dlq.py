"""Implements `syncer dlq`: lists, shows, replays and drops dead letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
from prometheus_client import CollectorRegistry

from syncer.cli import output
from syncer.cli.context import Context, as_json, command, confirm, group, models_argument, yes_option
from syncer.cli.preview import key_of, show_row
from syncer.config.schema import Config
from syncer.errors import Fatal, Reject, with_hint
from syncer.operations.one_off import OneOffRun
from syncer.operations.replay import replay as replay_letters
from syncer.ports import DeadLetter
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.quantities import counted
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.telemetry.metrics import Metrics

_REASON_CHARACTERS = 160
"""Longest reason that `dlq list` prints in full."""


@group(
    "dlq",
    """
    syncer dlq list
    syncer dlq show orders 4711
    syncer dlq replay orders --all
    """,
)
def dlq() -> None:
    """Show, replay or drop dead letters.

    A dead letter describes a document that a sink rejected or PostgreSQL cannot render, or a Kafka record that the
    syncer cannot read. The read model continues without it.

    Commands accept the handle of a dead letter from `dlq list`, the id of its document, or the TOPIC/PARTITION/OFFSET
    of its record. In a read model with partials, the bucket follows the id of the document: 900|490996.

    The dead letter of a document is resolved when its row changes and the sinks accept the new document.
    """


every_option = click.option("--all", "every", is_flag=True, help="Use all open dead letters of the read model.")
letters_argument = click.argument("names", nargs=-1, metavar="[DEAD_LETTER]...")


@command(
    "list",
    """
    syncer dlq list
    syncer dlq list orders --json | jq -r '.[].reason' | sort | uniq -c
    """,
    dlq,
)
@models_argument
@as_json
def list_(context: Context, models: Sequence[str], as_json: bool) -> None:
    """List open dead letters of each read model, the oldest first.

    `since` is the time of the first rejection. Later rejections of the same document do not change it.
    """
    registry = open_registry(context.config)
    found = [
        (model.name, letter)
        for model in loader.load_declared(context.config, models)
        for letter in sorted(registry.dead_letters(model.name).read(), key=lambda letter: letter.since_ms)
    ]
    if as_json:
        output.echo_json([_as_dict(model, letter) for model, letter in found])
        return
    rows = [
        (model, letter.subject.handle, _about(letter), _at(letter), _short(letter.reason)) for model, letter in found
    ]
    output.table(["model", "handle", "about", "since", "reason"], rows)


@command(
    "show",
    """
    syncer dlq show orders 4711
    syncer dlq show orders k3f7q2mz
    """,
    dlq,
)
@click.argument("model")
@click.argument("name", metavar="DEAD_LETTER")
def show(context: Context, model: str, name: str) -> None:
    """Show one dead letter: subject, time, reason and content.

    For a record, the content is the record itself. For a document, the content is the document that PostgreSQL renders
    from the current rows.
    """
    store = open_registry(context.config).dead_letters(model)
    loader.load_declared(context.config, [model])
    [letter] = _chosen(store.read(), model, [name], every=False)
    for label, text in (
        ("handle", letter.subject.handle),
        ("about", _about(letter)),
        ("since", _at(letter)),
        ("reason", letter.reason.replace("\n", "\n         ")),
        ("kept", letter.cut),
    ):
        if text:
            output.echo(f"{label + ':':8} {text}")
    output.echo()
    if letter.subject.kind == "document":
        _show_document(context.config, model, letter.subject.name)
    else:
        value = store.content(letter) or b""
        output.echo(_printable(value.decode(errors="backslashreplace")))


@command(
    "replay",
    """
    syncer dlq replay orders 4711
    syncer dlq replay orders --all
    """,
    dlq,
    exits={0: "everything was accepted", 1: "at least one of them was rejected again"},
)
@click.argument("model")
@letters_argument
@every_option
@click.pass_context
def replay(ctx: click.Context, context: Context, model: str, names: Sequence[str], every: bool) -> None:
    """Process rejected documents and records again.

    Run it after you fixed the cause of the rejection. Documents are rendered again from the current rows, and records
    are read again. If a document or record is accepted, its dead letter is resolved.

    The command works with or without a running daemon.
    """
    config, registry = context.config, open_registry(context.config)
    [declared] = loader.load_declared(config, [model])
    letters = _chosen(registry.dead_letters(model).read(), model, names, every=every)
    if not letters:
        return
    metrics = Metrics(CollectorRegistry()).for_model(model)
    # A document that is rejected again replaces its dead letter, so no limit on rejections is needed.
    with OneOffRun(config, declared, registry, metrics, tolerant=True) as run:
        rejected = replay_letters(run, registry, letters)
    output.echo(f"{model}: {len(letters) - len(rejected)} of {_count(letters)} resolved")
    for letter in letters:
        if letter.subject in rejected:
            output.echo(f"{letter.subject.handle}  {_about(letter)}: {rejected[letter.subject]}")
    if rejected:
        ctx.exit(output.FINDING)


@command(
    "drop",
    """
    syncer dlq drop orders k3f7q2mz
    syncer dlq drop orders --all --yes
    """,
    dlq,
)
@click.argument("model")
@letters_argument
@every_option
@yes_option
def drop(context: Context, model: str, names: Sequence[str], every: bool, yes: bool) -> None:
    """Resolve dead letters without processing them again. The documents in the sinks do not change.

    Use it when a rejected document or record is not needed.
    """
    store = open_registry(context.config).dead_letters(model)
    loader.load_declared(context.config, [model])
    letters = _chosen(store.read(), model, names, every=every)
    if not letters:
        return
    confirm(f"Drop {_count(letters)} of {model}?", yes)
    store.resolve(letters)
    output.echo(f"{model}: {_count(letters)} dropped")


def _chosen(letters: Sequence[DeadLetter], model: str, names: Sequence[str], *, every: bool) -> list[DeadLetter]:
    """Returns the dead letters with these names or handles. A document's id takes precedence over an equal handle.

    Raises Fatal if there is no such dead letter.
    """
    if every == bool(names):
        raise click.UsageError("Name dead letters, or use --all.")
    if every and not letters:
        output.echo(f"{model}: no open dead letters")
    if every:
        return list(letters)
    known = {one.subject.handle: one for one in letters} | {one.subject.name: one for one in letters}
    for name in names:
        if name not in known:
            raise Fatal(f"there is no open dead letter {name!r}", where=model, hint=f"syncer dlq list {model}")
    return list({known[name].subject: known[name] for name in names}.values())


def _show_document(config: Config, model: str, id: str) -> None:
    """Prints the document as the current rows render it, or the reason why it cannot be rendered."""
    [loaded] = loader.load_models(config, [model])
    compiled = loaded.compiled.rendered  # a letter may be about a partial
    rows = SnapshotReader(config.postgres.arguments(), compiled, statement_timeout=config.postgres.statement_timeout)
    try:
        with rows.view() as view:
            [row] = view.render([key_of(id, compiled)])
        show_row(row, compiled, compact=False)
    except Reject as error:
        output.echo(f"no document: {error.detail}", style="yellow", err=True)
    finally:
        rows.close()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _count(letters: Sequence[DeadLetter]) -> str:
    return counted(len(letters), "dead letter")


def _about(letter: DeadLetter) -> str:
    return f"{letter.subject.kind} {letter.subject.name}"


def _at(letter: DeadLetter) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(letter.since_ms / 1000))


def _short(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= _REASON_CHARACTERS else line[: _REASON_CHARACTERS - 1] + "…"


def _as_dict(model: str, letter: DeadLetter) -> dict[str, Any]:
    subject = letter.subject
    return {
        "model": model,
        "handle": subject.handle,
        "kind": subject.kind,
        "name": subject.name,
        "since": _at(letter),
        "version": letter.version,
        "cut": letter.cut,
        **with_hint({"reason": letter.reason}),
    }
