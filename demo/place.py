"""Creates the database of the shop, and the settings with which the syncer finds it and the servers."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import make_conninfo

from demo import shop
from devstack import Stack
from devstack.ports import is_free

ROOT = Path(__file__).parents[1]
HTTP_PORT, SHOP_PORT = 8080, 8081
_TABLES = ("customers", "products", "orders", "order_items")


def make_shop(stack: Stack, orders: int) -> tuple[str, dict[str, int]]:
    """Creates the database `shop` with a few years of data, unless it exists.

    Returns its DSN and the number of rows per table.
    """
    dsn = urlunsplit(urlsplit(stack.postgres)._replace(path="/shop"))
    with psycopg.connect(stack.postgres, autocommit=True) as admin:
        exists = admin.execute("SELECT 1 FROM pg_database WHERE datname = 'shop'").fetchone()
        if not exists:
            admin.execute("CREATE DATABASE shop")
    with psycopg.connect(dsn, autocommit=True) as connection:
        if not exists:
            connection.execute(Path(__file__).with_name("schema.sql").read_bytes())
            shop.seed(connection, customers=max(orders // 25, 10), products=500, orders=orders)
        return dsn, {table: _count(connection, table) for table in _TABLES}


def reads_dsn(stack: Stack) -> str:
    """Returns the DSN of the database with the documents, for the role of the syncer."""
    return make_conninfo(stack.postgres, dbname="reads", user="syncer_sink", password="syncer_sink")


def make_reads(stack: Stack) -> dict[str, str]:
    """Creates a database for the sink `postgres`, with its role and schema (docs/postgres-sink.md#privileges).

    Returns the setting with its DSN.
    """
    with psycopg.connect(stack.postgres, autocommit=True) as admin:
        admin.execute("CREATE ROLE syncer_sink LOGIN PASSWORD 'syncer_sink'")
        admin.execute("CREATE DATABASE reads")
    with psycopg.connect(make_conninfo(stack.postgres, dbname="reads"), autocommit=True) as admin:
        admin.execute("CREATE SCHEMA read AUTHORIZATION syncer_sink")
    return {"SYNCER_POSTGRES_SINK__DSN": reads_dsn(stack)}


def environment(stack: Stack, dsn: str) -> dict[str, str]:
    """Returns the variables with the addresses of these servers, for the syncer and its connector definition."""
    at = urlsplit(dsn)
    return {
        "SYNCER_CONFIG": str(ROOT / "config" / "syncer.yaml"),
        "SYNCER_POSTGRES__DSN": dsn,
        "SYNCER_KAFKA__BOOTSTRAP_SERVERS": stack.kafka,
        "SYNCER_CONNECT__URL": stack.connect,
        "SYNCER_ELASTICSEARCH__URL": stack.elasticsearch,
        "SYNCER_REDIS__URL": stack.redis,
        "SYNCER_HTTP__PORT": os.environ.get("SYNCER_HTTP__PORT") or str(http_port(HTTP_PORT)),
        "SHOP_PGHOST": at.hostname or "127.0.0.1",
        "SHOP_PGPORT": str(at.port),
        "SHOP_PGUSER": at.username or "",
        "SHOP_PGPASSWORD": at.password or "",
        "SHOP_PGDATABASE": at.path.lstrip("/"),
    }


def adopt(settings: dict[str, str]) -> None:
    """Sets these variables for this process and its children. Removes other settings that the user may have set."""
    for name in [name for name in os.environ if name.startswith(("SYNCER_", "SHOP_"))]:
        del os.environ[name]
    os.environ.update(settings)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def write_exports(home: Path, settings: dict[str, str]) -> Path:
    """Writes a file for shells to source (`. FILE`). It sets these variables and adds `syncer` to the PATH."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    path = home / "env"
    path.write_text("\n".join(lines) + "\n")
    return path


def http_port(first: int) -> int:
    """Returns the first free port from this one on."""
    return next(port for port in range(first, first + 1000) if is_free(port))


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])
