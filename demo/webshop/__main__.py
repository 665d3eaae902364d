"""Runs the shop. The addresses are those of the demo: `. .devstack-demo/env; python -m demo.webshop`."""

from __future__ import annotations

import click
import uvicorn

from demo.webshop.app import Addresses, application


@click.command()
@click.option("--port", default=8081, show_default=True, help="Port to listen on, on 127.0.0.1.")
@click.option("--dsn", envvar="SYNCER_POSTGRES__DSN", required=True, help="DSN of the shop's database.")
@click.option("--elasticsearch", envvar="SYNCER_ELASTICSEARCH__URL", required=True, help="URL of Elasticsearch.")
@click.option("--redis", envvar="SYNCER_REDIS__URL", required=True, help="URL of Redis.")
@click.option("--syncer-port", envvar="SYNCER_HTTP__PORT", default=8080, show_default=True, help="Port of the daemon.")
def main(port: int, dsn: str, elasticsearch: str, redis: str, syncer_port: int) -> None:
    """Run the web shop until Ctrl-C."""
    addresses = Addresses(dsn, elasticsearch, redis, f"http://127.0.0.1:{syncer_port}")
    app = application(addresses)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
