"""Checks the prerequisites of the machine: Java, Maven, Debian packages, an unprivileged account, readable folders.

If Java or Maven is missing, the error names the command that installs it. Missing Debian packages are installed
if the caller is root.
"""

import os
import pwd
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import DevstackError

MIN_JAVA = 17
MIN_POSTGRES = 15


@dataclass(frozen=True)
class Account:
    """Identifies the account of the servers: the caller, or an unprivileged account if the caller is root."""

    uid: int
    gid: int
    name: str

    @property
    def is_other(self) -> bool:
        """Returns whether this differs from the account of the current process."""
        return self.uid != os.geteuid()

    @property
    def user(self) -> int | None:
        """Returns the `user` argument for subprocess. None keeps the current user."""
        return self.uid if self.is_other else None

    @property
    def group(self) -> int | None:
        """Returns the `group` argument for subprocess."""
        return self.gid if self.is_other else None

    @property
    def extra_groups(self) -> list[int] | None:
        """Returns the `extra_groups` argument for subprocess."""
        return [] if self.is_other else None


def server_account() -> Account:
    """Returns the account that runs the servers.

    PostgreSQL and Elasticsearch refuse to run as root. If the caller is root, the account is `DEVSTACK_USER`
    (default: nobody). Raises DevstackError if that is root too.
    """
    uid = os.geteuid()
    entry = pwd.getpwuid(uid) if uid else pwd.getpwnam(os.environ.get("DEVSTACK_USER", "nobody"))
    if entry.pw_uid == 0:
        raise DevstackError("the servers cannot run as root", "Set DEVSTACK_USER to an unprivileged account.")
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def reachable(path: Path, account: Account) -> bool:
    """Returns whether the account can enter this folder, or the folder above it if it does not exist yet."""
    if not account.is_other:
        return True
    return all(
        folder.stat().st_mode & stat.S_IXOTH or folder.stat().st_uid == account.uid
        for folder in (path, *path.parents)
        if folder.exists()
    )


def cache_dir(account: Account) -> Path:
    """Returns the folder of the downloads.

    It is `DEVSTACK_CACHE`, or the cache folder of the user, or the system's cache if the account cannot enter that.
    """
    if chosen := os.environ.get("DEVSTACK_CACHE"):
        return Path(chosen).absolute()
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "readmodel-syncer" / "devstack"
    return own if reachable(own, account) else Path("/var/cache/readmodel-syncer/devstack")


def java() -> Path:
    """Returns the java program of `JAVA_HOME`, or the one on the PATH.

    Raises DevstackError if there is none, or if it is older than Java 17.
    """
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    hint = "To install it: apt-get install -y openjdk-17-jdk-headless"
    if not found or not Path(found).exists():
        raise DevstackError("no Java found in JAVA_HOME or PATH", hint)
    printed = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', printed)
    if not match or int(match[1]) < MIN_JAVA:
        raise DevstackError(f"{found} is not Java {MIN_JAVA} or later: {printed.splitlines()[:1]}", hint)
    return Path(found).resolve()


def java_options() -> list[str]:
    """Returns the options of all Java servers: the words of `DEVSTACK_JAVA_OPTIONS`."""
    return os.environ.get("DEVSTACK_JAVA_OPTIONS", "").split()


def maven() -> str:
    """Returns the mvn program. Raises DevstackError if there is none."""
    found = shutil.which("mvn")
    if not found:
        raise DevstackError("no Maven found: there is no mvn on the PATH", "To install it: apt-get install -y maven")
    return found


def postgres_bin() -> Path | None:
    """Returns the folder of PostgreSQL: `DEVSTACK_POSTGRES_BIN`, or the newest of Debian, or the one on the PATH."""
    if chosen := os.environ.get("DEVSTACK_POSTGRES_BIN"):
        return Path(chosen)
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if debian and int(debian[-1].parts[-3]) >= MIN_POSTGRES:
        return debian[-1].parent
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


def postgis() -> Path | None:
    """Returns the control file of PostGIS for the PostgreSQL of Debian, or None if PostGIS is missing.

    For other builds it returns their folder: PostGIS cannot be added to them.
    """
    found = postgres_bin()
    if not found or not found.is_relative_to("/usr/lib/postgresql"):
        return found
    control = Path("/usr/share/postgresql") / found.parent.name / "extension" / "postgis.control"
    return control if control.exists() else None


def redis_server() -> Path | None:
    """Returns the redis-server program, or None."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


def require(found: Path | None, what: str) -> Path:
    """Returns `found`. Raises DevstackError with the command that installs it if it is None."""
    if not found:
        raise DevstackError(f"no {what} found", "To install it: make tools")
    return found


def version_of(program: Path) -> str:
    """Returns the version that the program of a server prints, for example "15.14"."""
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\d+(\.\d+)+|\d+\w*", printed)
    if not match:
        raise DevstackError(f"{program} --version prints no version: {printed!r}")
    return match[0]


def docker_compose() -> Path | None:
    """Returns the docker-compose program, which the tests use to validate docker-compose.yml."""
    found = shutil.which("docker-compose")
    return Path(found) if found else None


def chromium() -> Path | None:
    """Returns the browser Chromium, in which the tests show the page of the daemon."""
    found = shutil.which("chromium")
    return Path(found) if found else None


PACKAGES = {
    "postgresql": postgres_bin,
    "postgresql-postgis": postgis,
    "redis-server": redis_server,
    "docker-compose": docker_compose,
    "chromium": chromium,
}


def ensure_packages(*names: str) -> list[str]:
    """Installs the Debian packages whose programs are missing. Returns the installed packages.

    Raises DevstackError with the command to run if the caller is not root, or if there is no apt-get.
    """
    if unknown := set(names) - PACKAGES.keys():
        raise DevstackError(f"no such package: {', '.join(sorted(unknown))}", f"Packages: {', '.join(PACKAGES)}")
    missing = [name for name in names if not PACKAGES[name]()]
    if not missing:
        return []
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() or not shutil.which("apt-get"):
        raise DevstackError(f"missing packages: {', '.join(missing)}", f"Run as root: {' '.join(command)}")
    # In run level 1, the scripts of Debian do not start the servers of the packages.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for step in (["apt-get", "update"], command):
        done = subprocess.run(step, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DevstackError(f"{' '.join(step)} failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    still = [name for name in missing if not PACKAGES[name]()]
    if still:
        raise DevstackError(f"the package is installed, but its program was not found: {', '.join(still)}")
    return missing
