"""Quantities and connection strings, which settings and sinks share."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from syncer.config.dsn import split_dsn
from syncer.quantities import Bytes, Seconds, parse_duration, parse_size


class Quantities(BaseModel):
    size: Bytes = 1
    time: Seconds = 1


def test_quantities_have_units_and_other_values_are_left_to_the_validation() -> None:
    assert parse_size("1.5 KiB") == 1536 and parse_size("0.1kb") == 100 and parse_size(7) == 7
    assert parse_duration("7d") == 7 * 86400 and parse_duration("2min") == 120 and parse_duration(0.5) == 0.5
    assert Quantities.model_validate({"size": "8MiB", "time": "250ms"}) == Quantities(size=8 << 20, time=0.25)


@pytest.mark.parametrize("field", ["size", "time"])
@pytest.mark.parametrize("value", ["soon", "", "-1", "1 parsec", 0, -1, "0"])
def test_quantities_are_positive_numbers_with_a_known_unit(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=r"must be a (size such as 8MiB|duration such as 30s)|greater than 0"):
        Quantities.model_validate({field: value})


def test_a_connection_string_loses_its_password_and_its_paths_are_resolved() -> None:
    assert split_dsn("host=db user=app") == ("host=db user=app", None)
    dsn, password = split_dsn("host=db password=hunter2 sslrootcert=ca.pem", Path("config"))
    assert password == "hunter2"
    assert dsn == "host=db sslrootcert=config/ca.pem"
    assert split_dsn("host=db sslrootcert=system")[0] == "host=db sslrootcert=system"
    with pytest.raises(ValueError, match="must be postgresql://") as error:
        split_dsn("postgresql://app:hunter2@[db")
    assert "hunter2" not in str(error.value)
