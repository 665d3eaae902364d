"""`syncer dlq`: dead letters, which tell what was refused and why, until it is accepted or dropped."""

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
from syncer.operations.replay import replay as try_again
from syncer.ports import DeadLetter
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.telemetry.metrics import Metrics

_SHOWN = 160  # characters of a reason in a list


@group(
    "dlq",
    """
    syncer dlq list
    syncer dlq show orders 4711
    syncer dlq replay orders --all
    """,
)
def dlq() -> None:
    """Show, replay or drop dead letters: documents and records that were refused.

    A letter is named by its handle in the list, or by what it is about: the document's id, the record's
    TOPIC/PARTITION/OFFSET. It goes by itself when its row changes and the document is accepted then.
    """


every_option = click.option("--all", "every", is_flag=True, help="All that stand.")
letters_argument = click.argument("names", nargs=-1, metavar="[LETTER]...")


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
    """List the letters that stand, the oldest first."""
    registry = open_registry(context.config)
    found = [
        (model.name, letter)
        for model in loader.declared(context.config, models)
        for letter in registry.dead_letters(model.name).read()
    ]
    if as_json:
        output.echo_json([_as_dict(model, letter) for model, letter in found])
        return
    rows = [
        (model, letter.subject.handle, _about(letter), _at(letter), _short(letter.reason)) for model, letter in found
    ]
    output.table(["model", "letter", "about", "since", "reason"], rows)


@command(
    "show",
    """
    syncer dlq show orders 4711
    syncer dlq show orders k3f7q2mz
    """,
    dlq,
)
@click.argument("model")
@click.argument("name", metavar="LETTER")
def show(context: Context, model: str, name: str) -> None:
    """Show a letter: what was refused, when and why; and the record, or the document as it would be now."""
    store = open_registry(context.config).dead_letters(model)
    loader.declared(context.config, [model])
    [letter] = _chosen(store.read(), model, [name], every=False)
    for label, text in (
        ("letter", letter.subject.handle),
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
)
@click.argument("model")
@letters_argument
@every_option
@click.pass_context
def replay(ctx: click.Context, context: Context, model: str, names: Sequence[str], every: bool) -> None:
    """Try again what was refused, after its cause was mended: documents are rendered, records read again.

    Safe beside a running daemon, and without one. Exit code 1 if something is refused again.
    """
    config, registry = context.config, open_registry(context.config)
    [declared] = loader.declared(config, [model])
    letters = _chosen(registry.dead_letters(model).read(), model, names, every=every)
    if not letters:
        return
    metrics = Metrics(CollectorRegistry()).for_model(model)
    # A document that is refused again adds no letter, so there is no limit.
    with OneOffRun(config, declared, registry, metrics, tolerant=True) as errand:
        left = try_again(errand, registry, letters)
    output.echo(f"{model}: {len(letters) - len(left)} of {_count(letters)} settled")
    for letter in letters:
        if letter.subject in left:
            output.echo(f"{letter.subject.handle}  {_about(letter)}: {left[letter.subject]}")
    if left:
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
    """Forget letters, and leave the documents as they are."""
    store = open_registry(context.config).dead_letters(model)
    loader.declared(context.config, [model])
    letters = _chosen(store.read(), model, names, every=every)
    if not letters:
        return
    confirm(f"Forget {_count(letters)} of {model}?", yes)
    store.resolve(letters)
    output.echo(f"{model}: {_count(letters)} dropped")


def _chosen(letters: Sequence[DeadLetter], model: str, names: Sequence[str], *, every: bool) -> list[DeadLetter]:
    """Those with these names or handles. What is about a document of that id comes before a handle. Says so
    when none stands."""
    if every == bool(names):
        raise click.UsageError("Name letters, or give --all.")
    if every and not letters:
        output.echo(f"{model}: no dead letter stands")
    if every:
        return list(letters)
    known = {one.subject.handle: one for one in letters} | {one.subject.name: one for one in letters}
    for name in names:
        if name not in known:
            raise Fatal(f"no letter {name!r} stands", where=model, hint=f"syncer dlq list {model}")
    return list({known[name].subject: known[name] for name in names}.values())


def _show_document(config: Config, model: str, id: str) -> None:
    """As it would be now; what makes that impossible is what the reader wants to know, too."""
    [loaded] = loader.load_models(config, [model])
    rows = SnapshotReader(
        config.postgres.arguments(), loaded.compiled, statement_timeout=config.postgres.statement_timeout
    )
    try:
        with rows.view() as view:
            [row] = view.render([key_of(id, loaded.compiled)])
        show_row(row, loaded.compiled, compact=False)
    except Reject as error:
        output.echo(f"no document now: {error.detail}", style="yellow", err=True)
    finally:
        rows.close()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _count(letters: Sequence[DeadLetter]) -> str:
    return output.counted(len(letters), "dead letter")


def _about(letter: DeadLetter) -> str:
    return f"{letter.subject.kind} {letter.subject.name}"


def _at(letter: DeadLetter) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(letter.at_ms / 1000))


def _short(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _as_dict(model: str, letter: DeadLetter) -> dict[str, Any]:
    subject = letter.subject
    return {
        "model": model,
        "letter": subject.handle,
        "kind": subject.kind,
        "name": subject.name,
        "since": _at(letter),
        "version": letter.version,
        "cut": letter.cut,
        **with_hint({"reason": letter.reason}),
    }
