"""A broker of librdkafka's own test suite, inside this process. It answers a request with an error that a test chooses.

A real broker gives such answers only for a moment, while the coordinator of a group moves.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka

FETCH, OFFSET_COMMIT, OFFSET_FETCH = 1, 8, 9
"""The numbers of these requests in Kafka's protocol."""
_PRODUCER = 0


class FaultyBroker:
    """cluster: librdkafka's handle of the broker. address: host and port."""

    def __init__(self, library: ctypes.CDLL, cluster: ctypes.c_void_p, address: str) -> None:
        self._library, self._cluster, self.address = library, cluster, address

    def fail(self, request: int, *errors: int) -> None:
        """Answers the next requests of this kind with these errors, one for each."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), codes
        )

    def fail_topic(self, topic: str, error: int) -> None:
        """Answers requests for the metadata of a topic with this error, until the broker stops."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), ctypes.c_int(error))


@contextmanager
def faulty_broker() -> Iterator[FaultyBroker]:
    """Runs a broker. It stops at the end."""
    library = _library()
    error = ctypes.create_string_buffer(256)
    settings = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(settings, b"log_level", b"2", error, ctypes.c_size_t(len(error)))
    owner = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, settings, error, ctypes.c_size_t(len(error))))
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(owner, 1))
    try:
        yield FaultyBroker(library, cluster, library.rd_kafka_mock_cluster_bootstraps(cluster).decode())
    finally:
        library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(owner)


def _library() -> ctypes.CDLL:
    """Returns the librdkafka that confluent-kafka has loaded."""
    package = Path(confluent_kafka.__file__).parent
    [path] = package.parent.glob("confluent_kafka.libs/librdkafka-*.so*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library
