"""Fixtures of all tests. Those in tests/unit and tests/simulation need no server; all others share one stack.

`stack` is started on first use, on random ports, and is gone after the run. With `-n 2 --dist loadfile` each
worker has a stack of its own. To use one that runs already (a start takes 15 seconds):

    make stack; SYNCER_TEST_STACK=.devstack/stack.json pytest tests
"""

import gc
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import devstack
from devstack.servers import Postgres
from tests.harness import Database, Names
from tests.harness.database import fresh_database
from tests.harness.names import fresh_names

LONGEST = ("test_torture.py", "test_hazard_schema.py", "test_hazard_source.py", "test_convergence.py")

# How long an example takes says more of what else the machine does.
settings.register_profile("any machine", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Prepare the environment of the servers and daemons that tests start."""
    # They live for minutes, in which a JVM spends more time on optimizing than it wins.
    os.environ.setdefault("DEVSTACK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    # A background job of a shell ignores SIGINT, and so would every process that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """The versions of the servers: of the running ones, or of those that will be started."""
    running = os.environ.get("SYNCER_TEST_STACK")
    try:
        known = devstack.load(Path(running).absolute()).versions() if running else devstack.planned_versions()
    except (devstack.DevstackError, OSError) as error:
        return f"servers: unknown ({error})"
    return servers(known)


def servers(versions: Mapping[str, str]) -> str:
    """One line about the servers of a run."""
    return "servers: " + ", ".join(f"{name} {version}" for name, version in versions.items())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs servers. Put what takes longest first: a file that begins last ends last."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if not {"unit", "simulation"} & set(item.path.relative_to(item.config.rootpath).parts):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(autouse=True, scope="module")
def _garbage_of_earlier_modules() -> None:
    """Hypothesis collects garbage, and pytest blames the test that runs then for a socket that another one
    left open. So what earlier modules left is collected before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def echo(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Write a line to the terminal, past the capture."""
    reporter: Any = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    capture: Any = pytestconfig.pluginmanager.get_plugin("capturemanager")
    worker = os.environ.get("PYTEST_XDIST_WORKER")  # it has no terminal of its own

    lock = threading.Lock()  # the stack's servers report from threads of their own

    def write(line: str) -> None:
        with lock, capture.global_and_fixture_disabled():
            if worker:
                sys.stderr.write(f"[{worker}] {line}\n")
                sys.stderr.flush()
            else:
                reporter.ensure_newline()
                reporter.write_line(line)

    return write


@pytest.fixture(scope="session")
def stack(echo: Callable[[str], None]) -> Iterator[devstack.Stack]:
    """The servers. A test that stops or kills one starts it again (`stack.restart`)."""
    if running := os.environ.get("SYNCER_TEST_STACK"):
        if "PYTEST_XDIST_WORKER" in os.environ:
            pytest.exit("tests stop servers, so workers cannot share SYNCER_TEST_STACK: run pytest without -n")
        yield devstack.load(Path(running).absolute())
        return
    own = devstack.start(temporary_home(), ephemeral=True, echo=echo)
    try:
        yield own
    finally:
        own.remove()


def temporary_home() -> Path:
    """A folder that the account of the servers can enter."""
    home = Path(tempfile.mkdtemp(prefix="syncer-stack-"))
    home.chmod(0o755)
    return home


def program(stack: devstack.Stack, name: str) -> Path:
    """A program of the stack's PostgreSQL. Skips the test if an archive of another version lacks it."""
    server = Postgres(stack.site)
    if stack.site.versions.get("postgres") and not server.has(name):
        pytest.skip(f"the archive of PostgreSQL {server.version()} has no {name}")
    return server.program(name)


@pytest.fixture
def database(stack: devstack.Stack) -> Iterator[Database]:
    """A fresh database, dropped afterwards with its slots and connectors."""
    with fresh_database(stack) as created:
        yield created


@pytest.fixture
def standby(stack: devstack.Stack) -> Iterator[devstack.Stack]:
    """A standby of the stack's PostgreSQL: its `.postgres` is the URL."""
    program(stack, "pg_basebackup")
    copy = devstack.start(temporary_home(), only=["postgres"], standby_of=stack.postgres, ephemeral=True)
    try:
        yield copy
    finally:
        copy.remove()


@pytest.fixture
def names(stack: devstack.Stack) -> Iterator[Names]:
    """A unique prefix for topics, groups, connectors, indexes and keys, all removed afterwards."""
    with fresh_names(stack) as created:
        yield created
