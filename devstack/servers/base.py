"""What the stack asks of a server, and what a server is told about its place."""

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
    """Where servers run: as whom, in which folder, on which ports, with which programs and how much heap."""

    account: Account
    data: Path
    ports: Mapping[str, int]
    java: Path
    downloads: Downloads
    heaps: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Those that were chosen, by part (`archives`)."""


class Server(ABC):
    """One server. `prepare` may be called again on its data. Nothing here starts or stops it: Stack does."""

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
        """host:port"""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a client wants it."""
        return f"http://{self.address}"

    @abstractmethod
    def prepare(self) -> None:
        """Write the configuration and, the first time, make the empty data."""

    @abstractmethod
    def command(self) -> list[str | Path]:
        """What to run."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it serves requests now; anything may be raised while it does not."""

    @abstractmethod
    def version(self) -> str:
        """Its version, as the server or its program reports it."""

    def env(self) -> dict[str, str]:
        """The whole environment it runs in: nothing of the caller's comes through but the PATH."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(self.folder)}

    def make_folder(self) -> None:
        """Its own folder, owned by its account."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.own(self.folder)

    def own(self, path: Path) -> None:
        """Hand a file or folder to the account that the server runs as."""
        if self.site.account.is_other:
            shutil.chown(path, self.site.account.uid, self.site.account.gid)

    def write(self, name: str, text: str) -> Path:
        """Write a file of configuration into its folder."""
        path = self.folder / name
        path.write_text(text)
        self.own(path)
        return path

    def heap(self) -> str:
        """The maximum heap, as Java writes it: 512m, 1g."""
        return self.site.heaps[self.name]

    def run_java(self, heap: str) -> list[str | Path]:
        """Java with the jars of Kafka and Kafka Connect."""
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        options = [f"-Xmx{heap}", *java_options(), logging]
        return [self.site.java, *options, "-cp", f"{self.site.downloads.jars}/*"]


def get_json(url: str, seconds: float = 5) -> Any:
    """GET a JSON document; raises OSError while the server is away or answers with an error."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise


def properties(values: Mapping[str, object]) -> str:
    """The text of a Java properties file."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


LOG4J2 = """\
rootLogger.level = INFO
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.name = stdout
appender.stdout.type = Console
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
"""
