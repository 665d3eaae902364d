"""Errors of Kafka's clients as errors of the syncer, with advice that fits the error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from syncer import tls
from syncer.errors import Fatal, Retry

UNREACHABLE = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._MSG_TIMED_OUT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
}
"""Of a Kafka that does not answer; with any other error it does."""


def unreadable(settings: Mapping[str, Any]) -> str:
    """Names the files that settings name and that cannot be read."""
    files = {name: str(value) for name, value in settings.items() if name.endswith(".location")}
    found = [f"{name} {path}" for name, path in files.items() if not os.access(path, os.R_OK)]
    return f"there is no such file, or it cannot be read: {', '.join(found)}" if found else ""


def classify_error(what: str, error: KafkaException, said: str = "") -> Retry | Fatal:
    """said: by the client, about its connections."""
    code = error.args[0].code()
    why = f"{error.args[0].str()} [{error.args[0].name()}]" + (f": {said}" if said else "")
    if tls.distrusted(said):
        hint = tls.advice("ssl.ca.location in kafka.properties")
        return Fatal(what, where="Kafka", why=why, hint=hint)
    if code in (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
    ):
        return Fatal(what, where="Kafka", why=why, hint="see kafka.properties (credentials, ACLs)")
    if code == KafkaError.INVALID_REPLICATION_FACTOR:
        hint = "kafka.replication_factor must not be larger than the number of brokers that are up"
        return Retry(what, where="Kafka", why=why, hint=hint)
    if code == KafkaError.TOPIC_EXCEPTION:
        hint = "Kafka takes . and _ for the same, and 249 characters at most: rename the table or its schema"
        return Fatal(what, where="Kafka", why=why, hint=hint)
    hint = "is Kafka up? see kafka.bootstrap_servers" if code in UNREACHABLE else ""
    return Retry(what, where="Kafka", why=why, hint=hint)
