"""Defines each server in its own file: settings, preparation, command, readiness check and stop signal."""

from devstack.servers.base import Server, Site
from devstack.servers.connect import Connect
from devstack.servers.elasticsearch import Elasticsearch
from devstack.servers.kafka import Kafka
from devstack.servers.postgres import Postgres
from devstack.servers.redis import Redis
from devstack.servers.s3proxy import S3Proxy

SERVERS: dict[str, type[Server]] = {
    server.name: server for server in (Postgres, Kafka, Connect, Elasticsearch, Redis, S3Proxy)
}
USUAL = tuple(name for name in SERVERS if name != S3Proxy.name)
"""The servers of a stack for which no choice was made."""

__all__ = ["SERVERS", "USUAL", "Connect", "Elasticsearch", "Kafka", "Postgres", "Redis", "S3Proxy", "Server", "Site"]
