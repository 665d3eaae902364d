"""Command line of devstack; `python -m devstack --help`."""

import argparse
import os
import sys
from pathlib import Path

from devstack import downloads, launch, stack, system
from devstack.archives import ARCHIVES
from devstack.errors import DevstackError
from devstack.servers import SERVERS

DEFAULT_HOME = Path(__file__).parent.parent / ".devstack"


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m devstack",
        description="PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch and Redis on loopback.",
        epilog="Environment: DEVSTACK_CACHE (downloads), DEVSTACK_USER (account of the servers when called "
        "by root), DEVSTACK_POSTGRES_BIN, DEVSTACK_POSTGRES_VERSION (as --version postgres=…), JAVA_HOME, "
        "DEVSTACK_JAVA_OPTIONS (of the Java servers).",
    )
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--home", type=Path, default=DEFAULT_HOME, help="folder of the stack (%(default)s)")
        return added

    up = command("up", "Start the servers that do not run yet, and wait until they serve.")
    up.add_argument("--ports", choices=("fixed", "random"), default="fixed", help="which ports, if nothing runs yet")
    up.add_argument("--port", action="append", default=[], metavar="NAME=N", help="one of the ports, as redis=6380")
    up.add_argument(
        "--heap",
        action="append",
        default=[],
        metavar="NAME=SIZE",
        help="one of the heaps, as kafka=512m",
    )
    up.add_argument(
        "--version",
        action="append",
        default=[],
        metavar="NAME=VERSION",
        help="another version of a part, if nothing runs yet: "
        + "; ".join(f"{part}={' or '.join(versions)}" for part, versions in ARCHIVES.items()),
    )
    up.add_argument("--only", nargs="+", choices=tuple(SERVERS), default=tuple(SERVERS), help="only these servers")
    down = command("down", "Stop the servers.")
    down.add_argument("--purge", action="store_true", help="and delete their data")
    command("status", "Show what runs; exit status 1 unless everything that was started does.")
    command("env", "Print the addresses as shell exports.")
    packages = commands.add_parser("packages", help="Install the Debian packages that are missing.")
    packages.add_argument("names", nargs="*", help=f"of {', '.join(system.PACKAGES)} (all)")
    commands.add_parser("checksums", help="Write checksums.txt again, after a change of a version.")
    return top


def say(line: str) -> None:
    """A line of progress: whole, as several threads write, and at once, also when piped."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def pairs(texts: list[str]) -> dict[str, str]:
    """["a=1"] → {"a": "1"}"""
    split = dict(text.partition("=")[::2] for text in texts)
    if bad := [name for name, value in split.items() if not value]:
        raise DevstackError(f"not NAME=VALUE: {', '.join(bad)}")
    return split


def table(running: stack.Stack) -> str:
    """The servers and their addresses, aligned."""
    rows = [(name, running.server(name).url, f"pid {running.pid(name)}") for name in running.running()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)] if rows else [0, 0]
    return "\n".join(f"  {name:<{widths[0]}}  {url:<{widths[1]}}  {pid}" for name, url, pid in rows)


def up(options: argparse.Namespace) -> int:
    """Start, and print the addresses."""
    choice = {name: int(number) for name, number in pairs(options.port).items()}
    running = launch.start(
        options.home,
        only=options.only,
        port_mode=options.ports,
        port_choice=choice,
        heaps=pairs(options.heap),
        versions=pairs(options.version),
        say=say,
    )
    say(f"\n{table(running)}")
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop; a stack that is not there is stopped already."""
    if not (options.home / stack.STATE).exists():
        say(f"no stack in {options.home}")
        return 0
    running = stack.load(options.home)
    names = [*(name for name, guest in running.guests.items() if guest.alive()), *running.running()]
    if options.purge:
        running.remove()
    else:
        running.stop()
    say(f"stopped: {', '.join(names) or 'nothing ran'}{', and deleted' if options.purge else ''}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Show what runs, and what should."""
    known = stack.load(options.home)
    alive = known.running()
    dead = [name for name in known.processes if name not in alive]
    say(table(known) if alive else "nothing runs")
    if dead:
        say(f"  dead: {', '.join(dead)}; start again: make stack")
    return 1 if dead or not alive else 0


def env(options: argparse.Namespace) -> int:
    """Addresses for a shell."""
    known = stack.load(options.home)
    for name in known.running():
        say(f"export DEVSTACK_{name.upper()}='{known.server(name).url}'")
    say(f"export SYNCER_TEST_STACK='{known.home / stack.STATE}'")
    return 0


def packages(options: argparse.Namespace) -> int:
    """Install what is missing."""
    if installed := system.ensure_packages(*(options.names or system.PACKAGES)):
        say(f"installed {', '.join(installed)}")
    return 0


def checksums(_: argparse.Namespace) -> int:
    """Write checksums.txt, after a change of a version."""
    downloads.write_checksums()
    say(f"wrote {downloads.CHECKSUMS}")
    return 0


def main() -> int:
    """Run one command; errors are one message and status 1."""
    options = parser().parse_args()
    commands = {
        "up": up,
        "down": down,
        "status": status,
        "env": env,
        "packages": packages,
        "checksums": checksums,
    }
    try:
        return commands[options.command](options)
    except DevstackError as error:
        print(f"devstack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("devstack: interrupted; what was started is stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
