"""Tests both formats of the log, with entries of the syncer and of libraries."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from syncer.errors import Fatal
from syncer.telemetry import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_entries_of_the_http_server_appear_at_level_debug_only() -> None:
    for level, count in (("info", 0), ("debug", 1)):
        stream = io.StringIO()
        logs.configure(level, "json", stream)
        logging.getLogger("uvicorn.error").error("Invalid HTTP request received.")
        assert len(lines(stream)) == count


def test_a_pipe_gets_json() -> None:
    stream = io.StringIO()
    logs.configure("info", "auto", stream)
    logs.get(model="orders").info("batch written", documents=3, key=b"\xff")
    logs.get().debug("below the level")
    logging.getLogger("some.library").warning("odd: %s", "x")
    own, library = lines(stream)
    assert own["message"] == "batch written" and own["model"] == "orders" and own["documents"] == 3
    assert own["level"] == "info" and own["timestamp"].endswith("Z")
    assert library["message"] == "odd: x" and library["logger"] == "some.library"


def test_errors_are_split_into_fields_and_exceptions_have_a_traceback() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logs.get().error("stopped", error=Fatal("no table", where="public.a", why="dropped", hint="syncer check"))
    try:
        raise ValueError("odd")
    except ValueError as e:
        logs.get().exception("bug", error=e)
    own, bug = lines(stream)
    assert [own[k] for k in ("error", "where", "why", "hint")] == [
        "no table",
        "public.a",
        "dropped",
        "syncer check",
    ]
    assert bug["error"] == "ValueError: odd" and "Traceback" in bug["exception"]


@pytest.mark.parametrize("format", ["json", "console"])
def test_secrets_are_never_logged(format: Any) -> None:
    stream = io.StringIO()
    logs.configure("info", format, stream)
    logs.get().info("connecting", dsn="postgresql://a:hunter2@b/c", password="hunter2", more={"token": "hunter2"})
    logging.getLogger("lib").error("cannot reach http://me:hunter2@host")
    logging.getLogger("lib").error("cannot reach %s", "http://me:hunter2@host")
    try:
        password = "".join(("hunt", "er2"))
        raise ValueError(f"a bug near a password of {len(password)} letters")
    except ValueError:
        logs.get().exception("bug")
    assert "a bug near" in stream.getvalue()
    assert "hunter2" not in stream.getvalue() and "***" in stream.getvalue()


def test_a_terminal_gets_readable_lines_and_a_second_configuration_replaces_the_first() -> None:
    first, stream = io.StringIO(), io.StringIO()
    logs.configure("info", "console", first)
    logs.configure("info", "console", stream)
    logs.get(model="orders").info("batch written", documents=3)
    assert first.getvalue() == ""
    assert "batch written" in stream.getvalue() and "model=orders documents=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
