"""Fixtures: one connector for all tests of a module, and a syncer for each test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import Stack
from tests.harness.system import Source, System, new_system, streaming_source

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def source(stack: Stack) -> Iterator[Source]:
    with streaming_source(stack) as source:
        yield source


@pytest.fixture
def system(source: Source, tmp_path: Path) -> Iterator[System]:
    with new_system(source, tmp_path, next(_numbers)) as system:
        yield system
