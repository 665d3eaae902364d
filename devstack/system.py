"""What the machine has to have: tools, Debian packages, an unprivileged account, folders it can reach.

Java and Maven are only looked for, and named with the command that installs them; the Debian packages are
installed when they are missing and we are root.
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
    """Who the servers run as: ourselves, or an unprivileged account when we are root."""

    uid: int
    gid: int
    name: str

    @property
    def is_other(self) -> bool:
        """True when it is not the account this process runs as."""
        return self.uid != os.geteuid()

    @property
    def user(self) -> int | None:
        """`user` for subprocess; None: stay who we are."""
        return self.uid if self.is_other else None

    @property
    def group(self) -> int | None:
        """`group` for subprocess."""
        return self.gid if self.is_other else None

    @property
    def extra_groups(self) -> list[int] | None:
        """`extra_groups` for subprocess."""
        return [] if self.is_other else None


def server_account() -> Account:
    """PostgreSQL and Elasticsearch refuse to run as root: then it is `DEVSTACK_USER` (default: nobody)."""
    uid = os.geteuid()
    entry = pwd.getpwuid(uid) if uid else pwd.getpwnam(os.environ.get("DEVSTACK_USER", "nobody"))
    if entry.pw_uid == 0:
        raise DevstackError("the servers cannot run as root", "set DEVSTACK_USER to an unprivileged account")
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def reachable(path: Path, account: Account) -> bool:
    """Can the account get into this folder, or to where it will be made? (Not into root's home.)"""
    if not account.is_other:
        return True
    return all(
        folder.stat().st_mode & stat.S_IXOTH or folder.stat().st_uid == account.uid
        for folder in (path, *path.parents)
        if folder.exists()
    )


def cache_dir(account: Account) -> Path:
    """Where downloads are kept: `DEVSTACK_CACHE`, else the user's cache, or the system's if not reachable."""
    if chosen := os.environ.get("DEVSTACK_CACHE"):
        return Path(chosen).absolute()
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "readmodel-syncer" / "devstack"
    return own if reachable(own, account) else Path("/var/cache/readmodel-syncer/devstack")


def java() -> Path:
    """The java command: `JAVA_HOME`'s, else the PATH's.

    Raises DevstackError if there is none, or one older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    hint = "apt-get install -y openjdk-17-jdk-headless"
    if not found or not Path(found).exists():
        raise DevstackError("no Java found (JAVA_HOME, PATH)", hint)
    printed = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', printed)
    if not match or int(match[1]) < MIN_JAVA:
        raise DevstackError(f"{found} is not Java {MIN_JAVA} or later: {printed.splitlines()[:1]}", hint)
    return Path(found).resolve()


def java_options() -> list[str]:
    """Options of all Java servers: `DEVSTACK_JAVA_OPTIONS`, separated by spaces."""
    return os.environ.get("DEVSTACK_JAVA_OPTIONS", "").split()


def maven() -> str:
    """The mvn command."""
    found = shutil.which("mvn")
    if not found:
        raise DevstackError("no Maven found (mvn)", "apt-get install -y maven")
    return found


def postgres_bin() -> Path | None:
    """The folder of PostgreSQL's programs: `DEVSTACK_POSTGRES_BIN`, else Debian's newest, else the PATH's."""
    if chosen := os.environ.get("DEVSTACK_POSTGRES_BIN"):
        return Path(chosen)
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if debian and int(debian[-1].parts[-3]) >= MIN_POSTGRES:
        return debian[-1].parent
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


def postgis() -> Path | None:
    """PostGIS for Debian's PostgreSQL. Other binaries are taken as they are: it cannot be added to them."""
    found = postgres_bin()
    if not found or not found.is_relative_to("/usr/lib/postgresql"):
        return found
    control = Path("/usr/share/postgresql") / found.parent.name / "extension" / "postgis.control"
    return control if control.exists() else None


def redis_server() -> Path | None:
    """The redis-server program."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


def require(found: Path | None, what: str) -> Path:
    """A program or folder that has to be there. Raises DevstackError with the command that installs it."""
    if not found:
        raise DevstackError(f"no {what} found", "make tools")
    return found


def version_of(program: Path) -> str:
    """The version that a server's program prints, such as "15.14"."""
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\d+(\.\d+)+|\d+\w*", printed)
    if not match:
        raise DevstackError(f"{program} --version prints no version: {printed!r}")
    return match[0]


def docker_compose() -> Path | None:
    """Debian's docker-compose, which the tests validate docker-compose.yml with."""
    found = shutil.which("docker-compose")
    return Path(found) if found else None


PACKAGES = {
    "postgresql": postgres_bin,
    "postgresql-postgis": postgis,
    "redis-server": redis_server,
    "docker-compose": docker_compose,
}


def ensure_packages(*names: str) -> list[str]:
    """Install the Debian packages whose programs are missing; returns those that were installed.

    Raises DevstackError with the command to run if we may not (not root) or cannot (no apt-get).
    """
    if unknown := set(names) - PACKAGES.keys():
        raise DevstackError(f"no such package: {', '.join(sorted(unknown))}", f"there are: {', '.join(PACKAGES)}")
    missing = [name for name in names if not PACKAGES[name]()]
    if not missing:
        return []
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() or not shutil.which("apt-get"):
        raise DevstackError(f"missing: {', '.join(missing)}", f"run as root: {' '.join(command)}")
    # In run level 1, Debian's scripts do not start the packages' own servers.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for step in (["apt-get", "update"], command):
        done = subprocess.run(step, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DevstackError(f"{' '.join(step)} failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    still = [name for name in missing if not PACKAGES[name]()]
    if still:
        raise DevstackError(f"installed, but its program was not found: {', '.join(still)}")
    return missing
