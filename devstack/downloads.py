"""The Java parts that pom.xml pins, and the archives of other versions that a stack asks for.

Every file is checked against checksums.txt and unpacked into a cache that all stacks share. A folder of the
cache is named after its content's checksums, so another pin is another folder. A folder that has its final
name is complete (it is renamed into place).
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
    """Where the unpacked parts are; read-only for the servers."""

    root: Path
    others: Mapping[str, Path] = field(default_factory=dict)
    """The folders of parts in another version, by part (`archives`)."""

    @property
    def jars(self) -> Path:
        """The jars of Kafka and Kafka Connect."""
        return self.root / "jars"

    @property
    def plugins(self) -> Path:
        """Connect's plugin.path: a folder a connector."""
        return self.others.get("debezium", self.root / "plugins")

    @property
    def postgres(self) -> Path | None:
        """The folder of PostgreSQL's programs; None: those that the system has."""
        return self.others["postgres"] / "bin" if "postgres" in self.others else None

    @property
    def elasticsearch(self) -> Path:
        """Elasticsearch's home."""
        return self.root / "elasticsearch"


def pins() -> dict[str, str]:
    """The versions that pom.xml names: {"kafka": "4.1.2", "debezium": …, "elasticsearch": …, "log4j": …}."""
    return dict(re.findall(r"<(\w+)\.version>([^<]+)</", POM.read_text()))


def fetch(account: system.Account, say: Callable[[str], None], versions: Mapping[str, str]) -> Downloads:
    """The unpacked parts, each downloaded once for each version.

    versions: those of `archives`, by part.
    Raises DevstackError if Maven fails, or a file is not the one that checksums.txt lists.
    """
    cache = system.cache_dir(account)
    if not system.reachable(cache, account):
        raise DevstackError(f"{account.name} cannot enter {cache}", "set DEVSTACK_CACHE to a folder it can")
    cache.mkdir(parents=True, exist_ok=True)
    return Downloads(
        pinned(cache, say),
        {part: other(cache, part, version, say) for part, version in versions.items()},
    )


def pinned(cache: Path, say: Callable[[str], None]) -> Path:
    """The folder of what pom.xml pins."""
    listed = listed_of_pom()
    text = "".join(f"{digest}  {name}\n" for name, digest in listed.items())
    final = cache / hashlib.sha256(POM.read_bytes() + text.encode()).hexdigest()[:16]
    if not final.is_dir():
        say("downloading Kafka, Kafka Connect, Debezium and Elasticsearch (165 MB, once)")
        into_cache(final, copy_dependencies, listed, unpack)
    return final


def other(cache: Path, part: str, version: str, say: Callable[[str], None]) -> Path:
    """The folder of one part in another version."""
    archive = ARCHIVES[part][version]
    listed = {archive.file: listed_sums().get(archive.file, "nothing")}
    final = cache / f"{part}-{archive.version}-{listed[archive.file][:16]}"
    if not final.is_dir():
        say(f"downloading {part} {archive.version} (once)")
        into_cache(final, lambda files: copy(archive, files), listed, unpack_archive)
    return final


def into_cache(
    final: Path,
    download: Callable[[Path], None],
    listed: Mapping[str, str],
    unpack: Callable[[Path, Path], None],
) -> None:
    """Make a folder of the cache, whole or not at all: download, check against `listed`, unpack."""
    with tempfile.TemporaryDirectory(dir=final.parent, prefix="incomplete-") as scratch:
        download(files := Path(scratch) / "files")
        verify(files, listed)
        unpack(files, root := Path(scratch) / "root")
        make_readable(root)
        try:
            root.rename(final)
        except OSError:
            if not final.is_dir():  # else another process was faster, which is as good
                raise


def copy_dependencies(files: Path) -> None:
    """Have Maven copy everything that pom.xml names into one folder."""
    run_maven("dependency:copy-dependencies", files)


def copy(archive: Archive, files: Path) -> None:
    """Have Maven copy one file into a folder."""
    run_maven("dependency:copy", files, f"-Dartifact={archive.coordinates}")


def run_maven(goal: str, files: Path, *options: str) -> None:
    """Run a goal of Maven's dependency plug-in that writes into a folder."""
    command = [system.maven(), "-B", "-q", "-f", str(POM), goal, *options]
    done = subprocess.run([*command, f"-DoutputDirectory={files}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DevstackError(f"{' '.join(command)} failed:\n{done.stdout.strip()[-2000:]}")


def listed_sums() -> dict[str, str]:
    """SHA-256 of each file, as checksums.txt lists it."""
    return {name: digest for digest, name in (line.split() for line in CHECKSUMS.read_text().splitlines())}


def listed_of_pom() -> dict[str, str]:
    """Those of the files that pom.xml brings."""
    others = {archive.file for versions in ARCHIVES.values() for archive in versions.values()}
    return {name: digest for name, digest in listed_sums().items() if name not in others}


def sums(files: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files.iterdir())}


def verify(files: Path, listed: Mapping[str, str]) -> None:
    """Raise DevstackError unless the folder holds exactly the listed files."""
    found = sums(files)
    wrong = [
        f"{name}: {found.get(name, 'missing')}, expected {listed.get(name, 'no such file')}"
        for name in sorted(listed.keys() | found.keys())
        if listed.get(name) != found.get(name)
    ]
    if wrong:
        hint = "after a change of a version: python -m devstack checksums, and read the difference"
        raise DevstackError("downloads differ from checksums.txt:\n  " + "\n  ".join(wrong), hint)


def write_checksums() -> None:
    """Download everything again and write checksums.txt, after a change of a version."""
    with tempfile.TemporaryDirectory() as scratch:
        copy_dependencies(files := Path(scratch))
        for versions in ARCHIVES.values():
            for archive in versions.values():
                copy(archive, files)
        CHECKSUMS.write_text("".join(f"{digest}  {name}\n" for name, digest in sums(files).items()))


def unpack(files: Path, root: Path) -> None:
    """Lay the files that pom.xml names out as Downloads describes."""
    target = Downloads(root)
    target.jars.mkdir(parents=True)
    for jar in files.glob("*.jar"):
        shutil.move(jar, target.jars)
    for plugin in files.glob("*-plugin.tar.gz"):
        untar(plugin, target.plugins)
    (archive_path,) = files.glob("elasticsearch-*.zip")
    with zipfile.ZipFile(archive_path) as bundle:
        bundle.extractall(root)
        for entry in bundle.infolist():  # zipfile leaves the permissions out
            if mode := entry.external_attr >> 16:
                (root / entry.filename).chmod(mode & 0o777)
    (root / archive_path.stem).rename(target.elasticsearch)


def unpack_archive(files: Path, root: Path) -> None:
    """Unpack the one archive in a folder: a tar file, or a jar around one."""
    (archive,) = files.iterdir()
    if archive.suffix == ".jar":
        with zipfile.ZipFile(archive) as bundle:
            (inner,) = (name for name in bundle.namelist() if name.endswith(".txz"))
            archive = Path(bundle.extract(inner, files))
    untar(archive, root)


def untar(path: Path, target: Path) -> None:
    """Unpack a tar file, compressed or not."""
    with tarfile.open(path) as archive:
        # Python 3.11.2 (Debian 12) knows no filters yet; what is in here was checked anyway
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(target)


def make_readable(root: Path) -> None:
    """Let every account read the files and enter the folders."""
    root.chmod(0o755)
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
