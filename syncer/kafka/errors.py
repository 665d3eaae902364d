"""Turns errors of Kafka's clients into errors of the syncer, with a hint that fits the error."""

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
"""Kafka did not answer. With any other error, it did."""


def unreadable(settings: Mapping[str, Any]) -> str:
    """Returns the settings that name a missing or unreadable file, as one line. Empty if there are none."""
    files = {name: str(value) for name, value in settings.items() if name.endswith(".location")}
    found = [f"{name} {path}" for name, path in files.items() if not os.access(path, os.R_OK)]
    return f"these files are missing or unreadable: {', '.join(found)}" if found else ""


def classify_error(what: str, error: KafkaException, connection_error: str = "") -> Retry | Fatal:
    """Returns Fatal if an operator has to change something, else Retry.

    what: the operation that failed.
    connection_error: the client's last message about its connections.
    """
    code = error.args[0].code()
    why = f"{error.args[0].str()} [{error.args[0].name()}]" + (f": {connection_error}" if connection_error else "")
    if tls.is_untrusted(connection_error):
        hint = tls.advice("ssl.ca.location in kafka.properties")
        return Fatal(what, where="Kafka", why=why, hint=hint)
    if code in (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
    ):
        return Fatal(
            what, where="Kafka", why=why, hint="check the credentials in kafka.properties and the ACLs in Kafka"
        )
    if code == KafkaError.INVALID_REPLICATION_FACTOR:
        hint = "set kafka.replication_factor to at most the number of brokers that are up"
        return Retry(what, where="Kafka", why=why, hint=hint)
    if code == KafkaError.TOPIC_EXCEPTION:
        hint = (
            "Kafka treats . and _ in a topic's name as equal, and allows 249 characters: rename the table or its schema"
        )
        return Fatal(what, where="Kafka", why=why, hint=hint)
    hint = "check that Kafka is up and kafka.bootstrap_servers is correct" if code in UNREACHABLE else ""
    return Retry(what, where="Kafka", why=why, hint=hint)
