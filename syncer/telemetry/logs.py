"""Configures the log: aligned `key=value` lines on a terminal, one JSON object per line otherwise.

The syncer writes its entries with structlog. Entries of libraries (the `logging` module, warnings) pass through the
same processors, so all entries have one format. The last processor masks secrets, by their keys and inside URLs.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from syncer import masking
from syncer.errors import SyncerError, split_hint

_CHATTY = ("elastic_transport", "elasticsearch", "urllib3", "redis", "psycopg")
"""Libraries that log every request at level info, or every retry at level warning."""

_SILENT = ("uvicorn",)
"""Libraries whose entries all appear at level debug only. Clients cause them, such as by an invalid request."""


def configure(
    level: str = "info", format: Literal["auto", "console", "json"] = "auto", stream: TextIO | None = None
) -> None:
    """Configures logging for the whole process. Commands call it once.

    level: debug, info, warning or error.
    format: auto means console if the stream is a terminal, json otherwise.
    stream: standard error by default.
    """
    stream = stream or sys.stderr
    number = getattr(logging, level.upper())
    terminal = stream.isatty()
    console = format == "console" or (format == "auto" and terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console),
        _errors,
        structlog.processors.format_exc_info,  # before the mask: a traceback may hold secrets
        _mask,
    ]
    last: list[Processor]
    if console:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=terminal,
                pad_event_to=36,
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,  # rich prints local variables, with passwords
            )
        ]
    else:
        last = [
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_dumps),
        ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.ERROR if number > logging.DEBUG else number))
    for name in _SILENT:
        logging.getLogger(name).setLevel(number if number <= logging.DEBUG else logging.CRITICAL)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get(**bound: Any) -> FilteringBoundLogger:
    """Returns a logger that adds these fields to each entry, for example `model`."""
    return cast(FilteringBoundLogger, structlog.get_logger("syncer", **bound))


def _errors(_: Any, __: str, entry: EventDict) -> EventDict:
    """Splits a `SyncerError` in the field `error` into the fields `error`, `where`, `why` and `hint`, for programs."""
    error = entry.get("error")
    if isinstance(error, SyncerError):
        entry["error"] = error.what
        entry.update({key: text for key in ("where", "why", "hint") if (text := getattr(error, key))})
    elif isinstance(error, BaseException):
        entry["error"] = f"{type(error).__name__}: {error}"
    if isinstance(reason := entry.get("reason"), str):
        entry["reason"], hint = split_hint(reason)
        if hint:
            entry.setdefault("hint", hint)
    return entry


def _mask(_: Any, __: str, entry: EventDict) -> EventDict:
    for key, value in entry.items():
        if isinstance(value, str | dict | list | tuple):
            entry[key] = masking.mask(key, value)
    return entry


def _dumps(entry: Any, **_: Any) -> str:
    first = {key: entry[key] for key in ("timestamp", "level", "message") if key in entry}
    return orjson.dumps(first | entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
