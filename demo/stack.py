"""Creates the shop's database on the servers and prints the next steps. `make stack` runs it last.

python -m demo.stack --home .devstack
"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

import devstack
from demo import place
from devstack.ports import FIXED
from syncer.cli import output

ORDERS = 2000


@click.command()
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the stack.")
def main(home: Path) -> None:
    """Create the database `shop`, unless it exists, and print what to run next."""
    home = home.absolute()
    stack = devstack.load(home)
    dsn, counts = place.make_shop(stack, ORDERS)
    exports = place.write_exports(home, place.environment(stack, dsn))
    rows = ", ".join(f"{count:,} {table}" for table, count in counts.items())
    output.echo(f"  shop           {dsn}  {rows}\n")
    ports = "" if dict(stack.site.ports) == FIXED else "The ports differ from config/syncer.yaml. "
    output.echo(f"{ports}Next, in any terminal:\n")
    output.echo(f"  . {shlex.quote(str(exports))}\n")
    output.echo("It sets the addresses and adds the syncer to the PATH. After it:\n")
    output.echo("  syncer check\n\nTo stop the servers: make stack-down")


if __name__ == "__main__":
    main()
