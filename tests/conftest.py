"""Defines the fixtures of all tests.

Tests in tests/unit and tests/simulation need no server. All others share one stack.

The fixture `stack` starts on first use, on random ports, and is deleted after the run. With `-n 2 --dist loadfile`
each worker has its own stack. A start takes 15 seconds. To use a running stack instead:

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
from syncer.pipeline import combined_blocks
from tests.harness import Database, Names
from tests.harness.database import fresh_database
from tests.harness.names import fresh_names

LONGEST = (
    "test_torture.py",
    "test_hazard_schema.py",
    "test_hazard_source.py",
    "test_convergence.py",
    "test_daemon.py",
    "test_bad_input.py",
    "test_engine.py",
    "test_partials_in_sinks.py",
    "test_demo.py",
    "test_tutorial.py",
)

# No deadline: the duration of an example depends more on the load of the machine than on the code. The same examples
# in each run: a test that fails was broken by the last change. `explore` looks for faults with new examples.
settings.register_profile("same examples", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("same examples")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "with --dist loadfile: the last worker runs only tests without a stack of servers"
    parser.addoption("--light-worker", action="store_true", help=text)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Returns the scheduler for `--light-worker`. Otherwise pytest-xdist chooses its own."""
    if not config.getoption("light_worker"):
        return None
    from tests.harness.distribution import LightWorkerScheduling  # imported late: a run without xdist is possible

    return LightWorkerScheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Prepares the environment of the servers and daemons that tests start."""
    # A run starts hundreds of `syncer` processes. Without cached bytecode, each would compile all modules again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    last = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) - 1
    if config.getoption("light_worker") and os.environ.get("PYTEST_XDIST_WORKER") == f"gw{last}":
        os.nice(5)  # tests of servers have time limits
    # Test servers run for minutes only. The full JIT compiler would cost more time than it saves.
    os.environ.setdefault("DEVSTACK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    # A background job of a shell ignores SIGINT. Child processes would inherit this, but tests interrupt them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Returns the versions of the running servers, or of the servers that the run will start."""
    running = os.environ.get("SYNCER_TEST_STACK")
    try:
        known = devstack.load(Path(running).absolute()).versions() if running else devstack.planned_versions()
    except (devstack.DevstackError, OSError) as error:
        return f"servers: unknown ({error})"
    return servers(known)


def servers(versions: Mapping[str, str]) -> str:
    """Formats the versions of the servers as one line."""
    return "servers: " + ", ".join(f"{name} {version}" for name, version in versions.items())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that need servers. Runs the longest files first, so that no worker ends with a long one."""
    for item in items:
        if not {"unit", "simulation"} & set(item.path.relative_to(item.config.rootpath).parts):
            item.add_marker(pytest.mark.integration)
    items.sort(key=lambda item: (item.path.name not in LONGEST, item.get_closest_marker("integration") is None))


def pytest_collection_finish() -> None:
    """Excludes the modules and the collected tests from the garbage collections during tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _garbage_of_earlier_modules() -> None:
    """Collects the garbage of earlier modules before a module starts.

    Hypothesis collects garbage during a test. pytest would then attribute an open socket of an earlier test to it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True, scope="session")
def _small_blocks() -> Iterator[None]:
    """Combines documents from blocks of two partials, because the documents of tests have few partials.

    The daemons that tests start as processes use blocks of the usual size.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(combined_blocks, "_BLOCK", 2)
        yield


@pytest.fixture(scope="session")
def echo(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Returns a function that writes a line to the terminal, although pytest captures the output."""
    reporter: Any = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    capture: Any = pytestconfig.pluginmanager.get_plugin("capturemanager")
    worker = os.environ.get("PYTEST_XDIST_WORKER")  # a worker has no terminal

    lock = threading.Lock()  # the servers of the stack report from several threads

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
    """The servers. A test that stops or kills a server starts it again (`stack.restart`)."""
    if running := os.environ.get("SYNCER_TEST_STACK"):
        if "PYTEST_XDIST_WORKER" in os.environ:
            pytest.exit("Workers cannot share SYNCER_TEST_STACK, because tests stop servers. Run pytest without -n.")
        yield devstack.load(Path(running).absolute())
        return
    started = devstack.start(temporary_home(), ephemeral=True, echo=echo)
    try:
        yield started
    finally:
        started.remove()


@pytest.fixture(autouse=True)
def _servers_run(request: pytest.FixtureRequest) -> None:
    """Starts the servers that an earlier test left dead because it failed. Otherwise later tests would fail, too."""
    for name in ("stack", "private", "postgres_alone"):
        if name in request.fixturenames:
            request.getfixturevalue(name).launch_dead()


def temporary_home() -> Path:
    """Creates a temporary folder that the account of the servers can enter."""
    home = Path(tempfile.mkdtemp(prefix="syncer-stack-"))
    home.chmod(0o755)
    return home


def program(stack: devstack.Stack, name: str) -> Path:
    """Returns the path of a PostgreSQL program. Skips the test if the archive of another version lacks it."""
    server = Postgres(stack.site)
    if stack.site.versions.get("postgres") and not server.has(name):
        pytest.skip(f"the archive of PostgreSQL {server.version()} has no {name}")
    return server.program(name)


@pytest.fixture
def database(stack: devstack.Stack) -> Iterator[Database]:
    """A new database. It is dropped afterwards with its slots and connectors."""
    with fresh_database(stack) as created:
        yield created


@pytest.fixture
def standby(stack: devstack.Stack) -> Iterator[devstack.Stack]:
    """A standby of the PostgreSQL server. Its URL is `standby.postgres`."""
    program(stack, "pg_basebackup")
    copy = devstack.start(temporary_home(), only=["postgres"], standby_of=stack.postgres, ephemeral=True)
    try:
        yield copy
    finally:
        copy.remove()


@pytest.fixture
def names(stack: devstack.Stack) -> Iterator[Names]:
    """A unique prefix for topics, groups, connectors, indexes and keys, which are deleted afterwards."""
    with fresh_names(stack) as created:
        yield created
