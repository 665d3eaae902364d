"""Classification of PostgreSQL's errors into Retry, Reject and Fatal."""

from __future__ import annotations

import psycopg
import pytest

from syncer.errors import Fatal, Reject, Retry, SyncerError
from syncer.postgres.session import classify_error


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("22012", Reject),  # division by zero
        ("40001", Retry),  # serialization failure
        ("42501", Fatal),  # insufficient privilege
        ("42P01", Retry),  # undefined table
        ("42703", Fatal),  # undefined column
        ("57P01", Retry),  # admin shutdown
        ("72000", Retry),  # snapshot too old
    ],
)
def test_the_sqlstate_decides_the_kind_of_error(state: str, kind: type[SyncerError]) -> None:
    error = classify_error(psycopg.errors.lookup(state)("said"), "cannot read")
    assert type(error) is kind
    assert state in error.why


def test_a_statement_that_psycopg_does_not_send_is_a_defect() -> None:
    """A retry would go on for ever."""
    error = classify_error(psycopg.ProgrammingError("the query has 2 placeholders"), "cannot read")
    assert isinstance(error, Fatal) and "defect" in error.hint
