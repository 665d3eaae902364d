"""Downloads the Java programs that pom.xml pins, and the archives of other versions.

Maven downloads the files. Every file is checked against checksums.txt and unpacked into a cache that all stacks
share. The name of a cache folder depends on the checksums of its content, so another version gets another folder.
A folder with its final name is complete, because it is renamed only after it has been unpacked.
"""

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devstack import system
from devstack.archives import ARCHIVES, Archive
from devstack.errors import DevstackError

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
CHECKSUMS = HERE / "checksums.txt"


@dataclass(frozen=True)
class Downloads:
    """Locates the unpacked programs. The servers only read them."""

    root: Path
    others: Mapping[str, Path] = field(default_factory=dict)
    """The folders of parts that have another version, by part. See `archives`."""

    @property
    def jars(self) -> Path:
        """Returns the folder of the jars of Kafka and Kafka Connect."""
        return self.root / "jars"

    @property
    def plugins(self) -> Path:
        """Returns the folder of the connector for PostgreSQL, with one folder per connector."""
        return self.others.get("debezium", self.root / "plugins")

    @property
    def plugin_path(self) -> str:
        """Returns the `plugin.path` of Kafka Connect."""
        return ",".join(str(path) for path in (self.plugins, self.others.get("jdbc")) if path)

    @property
    def postgres(self) -> Path | None:
        """Returns the folder of the PostgreSQL programs, or None to use the programs of the system."""
        return self.others["postgres"] / "bin" if "postgres" in self.others else None

    @property
    def s3proxy(self) -> Path:
        """Returns the jar of S3Proxy, which contains the jars that it needs."""
        if "s3proxy" not in self.others:
            raise DevstackError("the stack was started without S3Proxy", "Stop all its servers, and start it again.")
        (jar,) = self.others["s3proxy"].glob("*.jar")
        return jar

    @property
    def elasticsearch(self) -> Path:
        """Returns the home folder of Elasticsearch."""
        return self.root / "elasticsearch"


def pins() -> dict[str, str]:
    """Returns the versions that pom.xml pins: {"kafka": "4.1.2", "debezium": …, "elasticsearch": …, "log4j": …}."""
    return dict(re.findall(r"<(\w+)\.version>([^<]+)</", POM.read_text()))


def fetch(account: system.Account, echo: Callable[[str], None], versions: Mapping[str, str]) -> Downloads:
    """Returns the unpacked programs. Downloads each version only once.

    versions: the chosen version of each part, see `archives`.
    Raises DevstackError if Maven fails, or if a file differs from checksums.txt.
    """
    cache = system.cache_dir(account)
    if not system.reachable(cache, account):
        raise DevstackError(
            f"the account {account.name} cannot read {cache}",
            f"Set DEVSTACK_CACHE to a folder that {account.name} can read.",
        )
    cache.mkdir(parents=True, exist_ok=True)
    return Downloads(
        pinned(cache, echo),
        {part: other(cache, part, version, echo) for part, version in versions.items()},
    )


def pinned(cache: Path, echo: Callable[[str], None]) -> Path:
    """Returns the folder of the programs that pom.xml pins."""
    listed = listed_of_pom()
    text = "".join(f"{digest}  {name}\n" for name, digest in listed.items())
    final = cache / hashlib.sha256(POM.read_bytes() + text.encode()).hexdigest()[:16]
    if not final.is_dir():
        echo("downloading Kafka, Kafka Connect, Debezium and Elasticsearch (165 MB, only once)")
        into_cache(final, copy_dependencies, listed, unpack)
    return final


def other(cache: Path, part: str, version: str, echo: Callable[[str], None]) -> Path:
    """Returns the folder of one part in another version."""
    archive = ARCHIVES[part][version]
    listed = {archive.file: listed_sums().get(archive.file, "nothing")}
    final = cache / f"{part}-{archive.version}-{listed[archive.file][:16]}"
    if not final.is_dir():
        echo(f"downloading {part} {archive.version} (only once)")
        into_cache(final, lambda files: copy(archive, files), listed, unpack_archive)
    return final


def into_cache(
    final: Path,
    download: Callable[[Path], None],
    listed: Mapping[str, str],
    unpack: Callable[[Path, Path], None],
) -> None:
    """Downloads files, checks them against `listed`, and unpacks them. Creates the cache folder atomically."""
    with tempfile.TemporaryDirectory(dir=final.parent, prefix="incomplete-") as scratch:
        download(files := Path(scratch) / "files")
        verify(files, listed)
        unpack(files, root := Path(scratch) / "root")
        make_readable(root)
        try:
            root.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another process has created the same folder
                raise


def copy_dependencies(files: Path) -> None:
    """Runs Maven to copy all dependencies of pom.xml into one folder."""
    run_maven("dependency:copy-dependencies", files)


def copy(archive: Archive, files: Path) -> None:
    """Runs Maven to copy one archive into a folder."""
    run_maven("dependency:copy", files, f"-Dartifact={archive.coordinates}")


def run_maven(goal: str, files: Path, *options: str) -> None:
    """Runs a goal of the Maven dependency plugin that writes into a folder. Raises DevstackError if it fails."""
    command = [system.maven(), "-B", "-q", "-f", str(POM), goal, *options]
    done = subprocess.run([*command, f"-DoutputDirectory={files}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DevstackError(f"{' '.join(command)} failed:\n{done.stdout.strip()[-2000:]}")


def listed_sums() -> dict[str, str]:
    """Reads checksums.txt: returns the SHA-256 of each file name."""
    return {name: digest for digest, name in (line.split() for line in CHECKSUMS.read_text().splitlines())}


def listed_of_pom() -> dict[str, str]:
    """Returns the checksums of the files that pom.xml pins."""
    others = {archive.file for versions in ARCHIVES.values() for archive in versions.values()}
    return {name: digest for name, digest in listed_sums().items() if name not in others}


def sums(files: Path) -> dict[str, str]:
    """Computes the SHA-256 of each file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files.iterdir())}


def verify(files: Path, listed: Mapping[str, str]) -> None:
    """Raises DevstackError unless the folder contains exactly the listed files."""
    found = sums(files)
    wrong = [
        f"{name}: {found.get(name, 'missing')}, expected {listed.get(name, 'no such file')}"
        for name in sorted(listed.keys() | found.keys())
        if listed.get(name) != found.get(name)
    ]
    if wrong:
        hint = "If you changed a version, run `python -m devstack checksums` and review the difference."
        raise DevstackError("downloads differ from checksums.txt:\n  " + "\n  ".join(wrong), hint)


def write_checksums() -> None:
    """Downloads all files again and writes checksums.txt. Needed after a version changed."""
    with tempfile.TemporaryDirectory() as scratch:
        copy_dependencies(files := Path(scratch))
        for versions in ARCHIVES.values():
            for archive in versions.values():
                copy(archive, files)
        CHECKSUMS.write_text("".join(f"{digest}  {name}\n" for name, digest in sums(files).items()))


def unpack(files: Path, root: Path) -> None:
    """Unpacks the files of pom.xml into the layout that `Downloads` describes."""
    target = Downloads(root)
    target.jars.mkdir(parents=True)
    for jar in files.glob("*.jar"):
        shutil.move(jar, target.jars)
    for plugin in files.glob("*-plugin.tar.gz"):
        untar(plugin, target.plugins)
    (archive_path,) = files.glob("elasticsearch-*.zip")
    with zipfile.ZipFile(archive_path) as bundle:
        bundle.extractall(root)
        for entry in bundle.infolist():  # zipfile does not restore permissions
            if mode := entry.external_attr >> 16:
                (root / entry.filename).chmod(mode & 0o777)
    (root / archive_path.stem).rename(target.elasticsearch)


def unpack_archive(files: Path, root: Path) -> None:
    """Unpacks the one archive in a folder. It is a tar file, a jar that contains one, or a program in a jar."""
    (archive,) = files.iterdir()
    if archive.suffix == ".jar":
        with zipfile.ZipFile(archive) as bundle:
            inner = [name for name in bundle.namelist() if name.endswith(".txz")]
            if not inner:
                root.mkdir()
                shutil.move(archive, root)
                return
            archive = Path(bundle.extract(inner[0], files))
    untar(archive, root)


def untar(path: Path, target: Path) -> None:
    """Unpacks a tar file, compressed or not."""
    with tarfile.open(path) as archive:
        # Python 3.11.2 (Debian 12) has no filters. The checksum of the archive was verified before.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(target)


def make_readable(root: Path) -> None:
    """Allows every account to read the files and to enter the folders."""
    root.chmod(0o755)
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
