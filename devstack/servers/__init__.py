"""Defines each server in its own file: settings, preparation, command, readiness check and stop signal."""

from devstack.servers.base import Server, Site
from devstack.servers.connect import Connect
from devstack.servers.elasticsearch import Elasticsearch
from devstack.servers.kafka import Kafka
from devstack.servers.postgres import Postgres
from devstack.servers.redis import Redis

SERVERS: dict[str, type[Server]] = {server.name: server for server in (Postgres, Kafka, Connect, Elasticsearch, Redis)}

__all__ = ["SERVERS", "Connect", "Elasticsearch", "Kafka", "Postgres", "Redis", "Server", "Site"]
