"""Defines the interface of a server, and the environment that a stack gives it."""

import json
import os
import shutil
import signal
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from devstack.downloads import Downloads
from devstack.ports import HOST
from devstack.system import Account, java_options


@dataclass(frozen=True)
class Site:
    """Describes where servers run: account, data folder, ports, programs and heaps."""

    account: Account
    data: Path
    ports: Mapping[str, int]
    java: Path
    downloads: Downloads
    heaps: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    """The chosen versions, by part. See `archives`."""


class Server(ABC):
    """Describes one server. `prepare` may run again on existing data. `Stack` starts and stops the server."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    port_names: ClassVar[tuple[str, ...]]
    java: ClassVar[bool] = True
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_seconds: ClassVar[float] = 240

    def __init__(self, site: Site) -> None:
        self.site = site
        self.folder = site.data / self.name
        self.log = self.folder / "server.log"
        self.port = site.ports[self.name]

    @property
    def address(self) -> str:
        """Returns host:port."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Returns the address in the form that clients use."""
        return f"http://{self.address}"

    @abstractmethod
    def prepare(self) -> None:
        """Writes the configuration. Creates the empty data the first time."""

    @abstractmethod
    def command(self) -> list[str | Path]:
        """Returns the command that runs the server in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Returns whether the server is ready. May raise any error while it is not."""

    @abstractmethod
    def version(self) -> str:
        """Returns the version that the server or its program reports."""

    def env(self) -> dict[str, str]:
        """Returns the complete environment of the server. Only PATH comes from the caller."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(self.folder)}

    def make_folder(self) -> None:
        """Creates the folder of the server, owned by the account of the servers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.own(self.folder)

    def own(self, path: Path) -> None:
        """Makes the account of the servers the owner of a file or folder."""
        if self.site.account.is_other:
            shutil.chown(path, self.site.account.uid, self.site.account.gid)

    def write(self, name: str, text: str) -> Path:
        """Writes a configuration file into the folder of the server."""
        path = self.folder / name
        path.write_text(text)
        self.own(path)
        return path

    def heap(self) -> str:
        """Returns the maximum heap in the notation of Java, for example 512m."""
        return self.site.heaps[self.name]

    def run_java_program(self, heap: str) -> list[str | Path]:
        """Returns the start of a Java command: the program and the options of all Java servers."""
        return [self.site.java, f"-Xmx{heap}", *java_options()]

    def run_java(self, heap: str) -> list[str | Path]:
        """Returns the start of a Java command with the jars of Kafka and Kafka Connect."""
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return [*self.run_java_program(heap), logging, "-cp", f"{self.site.downloads.jars}/*"]


def get_json(url: str, seconds: float = 5) -> Any:
    """Reads a JSON document by GET. Raises OSError if the server is unreachable or returns an error."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()  # it keeps the connection open
        raise


def properties(values: Mapping[str, object]) -> str:
    """Returns the text of a Java properties file."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


LOG4J2 = """\
rootLogger.level = INFO
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.name = stdout
appender.stdout.type = Console
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
"""
