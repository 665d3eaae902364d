"""Implements the command line of devstack: `python -m devstack --help`."""

import argparse
import os
import sys
from pathlib import Path

from devstack import downloads, launch, stack, system
from devstack.archives import ARCHIVES
from devstack.errors import DevstackError
from devstack.servers import SERVERS, USUAL

DEFAULT_HOME = Path(__file__).parent.parent / ".devstack"
ENVIRONMENT = """\
environment variables:
  DEVSTACK_CACHE             folder of the downloads
  DEVSTACK_USER              account that runs the servers if the caller is root (default: nobody)
  DEVSTACK_POSTGRES_BIN      folder of the PostgreSQL programs
  DEVSTACK_POSTGRES_VERSION  same as --version postgres=VERSION
  DEVSTACK_DEBEZIUM_VERSION  same as --version debezium=VERSION
  DEVSTACK_JAVA_OPTIONS      options of all Java servers
  JAVA_HOME                  the Java installation to use
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser with all commands and options."""
    top = argparse.ArgumentParser(
        prog="python -m devstack",
        description="Run PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch and Redis on loopback ports.",
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--home", type=Path, default=DEFAULT_HOME, help="folder of the stack (default: %(default)s)")
        return added

    up = command("up", "Start the servers that are not running, and wait until they are ready.")
    up.add_argument(
        "--ports",
        choices=("fixed", "random"),
        default="fixed",
        help="how to choose ports for a new stack (default: fixed)",
    )
    up.add_argument(
        "--port", action="append", default=[], metavar="NAME=N", help="the port of one server, for example redis=6380"
    )
    up.add_argument(
        "--heap",
        action="append",
        default=[],
        metavar="NAME=SIZE",
        help="the heap of one Java server, for example kafka=512m",
    )
    up.add_argument(
        "--version",
        action="append",
        default=[],
        metavar="NAME=VERSION",
        help="another version of a program, for a new stack: "
        + "; ".join(f"{part}={' or '.join(versions)}" for part, versions in ARCHIVES.items()),
    )
    up.add_argument(
        "--only",
        nargs="+",
        choices=tuple(SERVERS),
        default=USUAL,
        help="start only these servers, and those that they need (default: all but s3proxy)",
    )
    down = command("down", "Stop the servers.")
    down.add_argument("--purge", action="store_true", help="also delete their data")
    command("status", "List the running servers. The exit status is 1 if a started server is not running.")
    command("env", "Print the addresses of the servers as shell exports.")
    packages = commands.add_parser("packages", help="Install missing Debian packages (needs root).")
    packages.add_argument("names", nargs="*", help=f"packages to install: {', '.join(system.PACKAGES)} (default: all)")
    commands.add_parser(
        "checksums", help="Download everything and write checksums.txt. Run it after a version changed."
    )
    return top


def echo(line: str) -> None:
    """Prints one line of progress.

    The line is one write, because several threads print. It is flushed, so that a pipe shows it immediately.
    """
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def pairs(texts: list[str]) -> dict[str, str]:
    """Parses options of the form NAME=VALUE: ["a=1"] → {"a": "1"}. Raises DevstackError for any other form."""
    split = dict(text.partition("=")[::2] for text in texts)
    if bad := [name for name, value in split.items() if not value]:
        raise DevstackError(f"expected NAME=VALUE, got: {', '.join(bad)}")
    return split


def table(running: stack.Stack) -> str:
    """Formats the running servers as a table: name, URL, process id."""
    rows = [(name, running.server(name).url, f"pid {running.pid(name)}") for name in running.running()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)] if rows else [0, 0]
    return "\n".join(f"  {name:<{widths[0]}}  {url:<{widths[1]}}  {pid}" for name, url, pid in rows)


def up(options: argparse.Namespace) -> int:
    """Starts the servers and prints their addresses."""
    choice = {name: int(number) for name, number in pairs(options.port).items()}
    running = launch.start(
        options.home,
        only=options.only,
        port_mode=options.ports,
        port_choice=choice,
        heaps=pairs(options.heap),
        versions=pairs(options.version),
        echo=echo,
    )
    echo(f"\n{table(running)}")
    return 0


def down(options: argparse.Namespace) -> int:
    """Stops the servers. Does nothing if there is no stack in the folder."""
    if not (options.home / stack.STATE).exists():
        echo(f"There is no stack in {options.home}.")
        return 0
    running = stack.load(options.home)
    names = [*(name for name, client in running.clients.items() if client.alive()), *running.running()]
    if options.purge:
        running.remove()
    else:
        running.stop()
    stopped = f"Stopped {', '.join(names)}." if names else "No server was running."
    echo(f"{stopped} Deleted all data." if options.purge else stopped)
    return 0


def status(options: argparse.Namespace) -> int:
    """Lists the running servers, and those that were started but are not running."""
    known = stack.load(options.home)
    alive = known.running()
    dead = [name for name in known.processes if name not in alive]
    echo(table(known) if alive else "No server is running.")
    if dead:
        echo(f"Not running: {', '.join(dead)}. To start them again: make stack")
    return 1 if dead or not alive else 0


def env(options: argparse.Namespace) -> int:
    """Prints the addresses as shell exports."""
    known = stack.load(options.home)
    for name in known.running():
        echo(f"export DEVSTACK_{name.upper()}='{known.server(name).url}'")
    echo(f"export SYNCER_TEST_STACK='{known.home / stack.STATE}'")
    return 0


def packages(options: argparse.Namespace) -> int:
    """Installs the missing Debian packages."""
    if installed := system.ensure_packages(*(options.names or system.PACKAGES)):
        echo(f"Installed {', '.join(installed)}.")
    return 0


def checksums(_: argparse.Namespace) -> int:
    """Writes checksums.txt. Needed after a version changed."""
    downloads.write_checksums()
    echo(f"Wrote {downloads.CHECKSUMS}. Review the difference before you commit it.")
    return 0


def main() -> int:
    """Runs one command. An error prints one message and exits with status 1."""
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
        print("devstack: interrupted. The servers that this command started are stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
