"""The Java parts: what pom.xml pins, checked against checksums.txt, unpacked into a cache for all stacks.

The cache's folder is named after the two files, so another pin is another folder, and a folder that has its
final name is complete (it is renamed into place).
"""

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devstack import system
from devstack.errors import DevstackError

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
CHECKSUMS = HERE / "checksums.txt"


@dataclass(frozen=True)
class Downloads:
    """Where the unpacked parts are; read-only for the servers."""

    root: Path

    @property
    def jars(self) -> Path:
        """The jars of Kafka and Kafka Connect."""
        return self.root / "jars"

    @property
    def plugins(self) -> Path:
        """Connect's plugin.path: a folder a connector."""
        return self.root / "plugins"

    @property
    def elasticsearch(self) -> Path:
        """Elasticsearch's home."""
        return self.root / "elasticsearch"


def pins() -> dict[str, str]:
    """The versions that pom.xml names: {"kafka": "4.1.2", "debezium": …, "elasticsearch": …, "log4j": …}."""
    return dict(re.findall(r"<(\w+)\.version>([^<]+)</", POM.read_text()))


def fetch(account: system.Account, say: Callable[[str], None]) -> Downloads:
    """The unpacked parts, downloaded once for each version of the pins.

    Raises DevstackError if Maven fails, or a file is not the one that checksums.txt lists.
    """
    key = hashlib.sha256(POM.read_bytes() + CHECKSUMS.read_bytes()).hexdigest()[:16]
    cache = system.cache_dir(account)
    final = cache / key
    if final.is_dir():
        return Downloads(final)
    if not system.reachable(cache, account):
        raise DevstackError(f"{account.name} cannot enter {cache}", "set DEVSTACK_CACHE to a folder it can")
    say("downloading Kafka, Kafka Connect, Debezium and Elasticsearch (165 MB, once)")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="incomplete-") as scratch:
        files = Path(scratch) / "files"
        download(files)
        verify(files)
        unpack(files, root := Path(scratch) / "root")
        try:
            root.rename(final)
        except OSError:
            if not final.is_dir():  # else another process was faster, which is as good
                raise
    return Downloads(final)


def download(files: Path) -> None:
    """Have Maven copy everything that pom.xml names into one folder."""
    command = [system.maven(), "-B", "-q", "-f", str(POM), "dependency:copy-dependencies"]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={files}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DevstackError(f"{' '.join(command)} failed:\n{done.stdout.strip()[-2000:]}")


def sums(files: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files.iterdir())}


def verify(files: Path) -> None:
    """Raise DevstackError unless the folder holds exactly the files that checksums.txt lists."""
    listed = {name: digest for digest, name in (line.split() for line in CHECKSUMS.read_text().splitlines())}
    found = sums(files)
    wrong = [
        f"{name}: {found.get(name, 'missing')}, expected {listed.get(name, 'no such file')}"
        for name in sorted(listed.keys() | found.keys())
        if listed.get(name) != found.get(name)
    ]
    if wrong:
        hint = "after a change of pom.xml: python -m devstack checksums, and read the difference"
        raise DevstackError("downloads differ from checksums.txt:\n  " + "\n  ".join(wrong), hint)


def write_checksums() -> None:
    """Download anew and write checksums.txt (for whoever changes a pin)."""
    with tempfile.TemporaryDirectory() as scratch:
        download(Path(scratch))
        CHECKSUMS.write_text("".join(f"{digest}  {name}\n" for name, digest in sums(Path(scratch)).items()))


def unpack(files: Path, root: Path) -> None:
    """Lay the files out as Downloads describes, readable by everyone."""
    target = Downloads(root)
    target.jars.mkdir(parents=True)
    for jar in files.glob("*.jar"):
        shutil.move(jar, target.jars)
    for plugin in files.glob("*-plugin.tar.gz"):
        with tarfile.open(plugin) as archive:
            # Python 3.11.2 (Debian 12) knows no filters yet; what is in here was checked anyway
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(target.plugins)
    (archive_path,) = files.glob("elasticsearch-*.zip")
    with zipfile.ZipFile(archive_path) as bundle:
        bundle.extractall(root)
        for entry in bundle.infolist():  # zipfile leaves the permissions out
            if mode := entry.external_attr >> 16:
                (root / entry.filename).chmod(mode & 0o777)
    (root / archive_path.stem).rename(target.elasticsearch)
    root.chmod(0o755)
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
