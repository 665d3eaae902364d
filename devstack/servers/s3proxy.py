"""Runs S3Proxy: a server with the protocol of S3 that keeps each bucket in a folder. A stack has it only on request.

From version 4.1 on, S3Proxy creates an object with `If-None-Match: *` atomically. Earlier versions check first and
write later, so several concurrent requests can succeed.
"""

import http.client
from pathlib import Path

from devstack.archives import ARCHIVES
from devstack.ports import HOST
from devstack.servers.base import Server, properties

KEY, SECRET = "devstack", "devstack-secret"


class S3Proxy(Server):
    """Describes an S3 server with one account."""

    name = "s3proxy"
    port_names = ("s3proxy",)
    start_seconds = 60

    @property
    def buckets(self) -> Path:
        """Returns the folder with one folder for each bucket, which has one file for each object."""
        return self.folder / "buckets"

    def prepare(self) -> None:
        """Writes s3proxy.conf."""
        self.make_folder()
        self.buckets.mkdir(exist_ok=True)
        self.own(self.buckets)
        settings = {
            "s3proxy.endpoint": self.url,
            "s3proxy.authorization": "aws-v4",
            "s3proxy.identity": KEY,
            "s3proxy.credential": SECRET,
            "jclouds.provider": "filesystem",
            "jclouds.identity": KEY,
            "jclouds.credential": SECRET,
            "jclouds.filesystem.basedir": self.buckets,
        }
        self.write("s3proxy.conf", properties(settings))

    def command(self) -> list[str | Path]:
        """Returns the command of the server."""
        start = self.run_java_program(self.heap())
        return [*start, "-jar", self.site.downloads.s3proxy, "--properties", self.folder / "s3proxy.conf"]

    def create_bucket(self, name: str) -> Path:
        """Creates a bucket if it is missing. Returns its folder."""
        bucket = self.buckets / name
        bucket.mkdir(exist_ok=True)
        self.own(bucket)
        return bucket

    def ready(self) -> bool:
        """Returns whether the server refuses a request without a signature."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=3)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.HTTPStatus.FORBIDDEN
        finally:
            connection.close()

    def version(self) -> str:
        """Returns the version of the archive. The server does not report one."""
        return ARCHIVES[self.name][self.site.versions[self.name]].version
