"""An object store with the protocol of S3, and the settings with which the export reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import devstack
from devstack.servers.s3proxy import KEY, SECRET, S3Proxy
from tests.conftest import temporary_home

BUCKET = "lake"


def settings(url: str) -> dict[str, str]:
    """Returns the environment variables for a store with this URL."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


class ObjectStore:
    """A running server with one bucket."""

    def __init__(self, stack: devstack.Stack) -> None:
        self._stack = stack
        self.server = S3Proxy(stack.site)
        self.folder: Path = self.server.create_bucket(BUCKET)
        """Has a file for each object of the bucket. So other programs can read a table without the server."""

    @property
    def url(self) -> str:
        return self.server.url

    def objects(self) -> list[str]:
        """Returns the keys of all objects in the bucket."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def stop(self) -> None:
        """Kills the server, so that connections are refused."""
        self._stack.kill(self.server.name)

    def start(self) -> None:
        """Starts the server again, with the same address and data."""
        self._stack.launch(self.server.name)


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Runs a server in a stack of its own, which is deleted afterwards."""
    own = devstack.start(temporary_home(), only=[S3Proxy.name], ephemeral=True)
    try:
        yield ObjectStore(own)
    finally:
        own.remove()
