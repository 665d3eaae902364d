"""Sizes and durations as people write them: `8MiB`, `30s`. Settings and declarations share these types."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")
_SIZES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_TIMES = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: Any) -> Any:
    """Returns the bytes of `8MiB`, `500 kB` or `1024`. Values other than text are returned as they are.

    Raises ValueError for text that is not a size.
    """
    return round(_quantity(value, _SIZES, "a size such as 8MiB")) if isinstance(value, str) else value


def parse_duration(value: Any) -> Any:
    """Returns the seconds of `30s`, `250ms`, `7d` or `1.5`. Values other than text are returned as they are.

    Raises ValueError for text that is not a duration.
    """
    return _quantity(value, _TIMES, "a duration such as 30s, 1h or 7d") if isinstance(value, str) else value


def duration_text(seconds: int) -> str:
    """Returns whole seconds in the largest unit that divides them: `2h`, `90m`, `7d`."""
    unit = next(name for name in ("d", "h", "m", "s") if not seconds % round(_TIMES[name]))
    return f"{seconds // round(_TIMES[unit])}{unit}"


def counted(number: int, one: str, many: str = "") -> str:
    """Returns a number and its noun: `1 document`, `2,000 documents`.

    one, many: the text after the number 1, and after any other number. Without `many`, the plural of `one` ends in s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _quantity(text: str, units: Mapping[str, float], expected: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if not match or match[2].lower() not in units:
        raise ValueError(f"must be {expected} (units: {', '.join(filter(None, units))})")
    return float(match[1]) * units[match[2].lower()]


_TEXT_OR_NUMBER = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[0-9]"}]}
Bytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0), WithJsonSchema(_TEXT_OR_NUMBER)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0), WithJsonSchema(_TEXT_OR_NUMBER)]


def lasting(*, least: int = 0, most: float = math.inf) -> AfterValidator:
    """Returns a validator for `Seconds` with bounds, in seconds. Its errors name the bound with a unit."""

    def check(seconds: float) -> float:
        for bound, words, wrong in ((least, "at least", seconds < least), (most, "at most", seconds > most)):
            if wrong:
                raise ValueError(f"must be {words} {duration_text(int(bound))} ({bound:,} seconds)")
        return seconds

    return AfterValidator(check)
