"""`syncer export` to a real server with the protocol of S3. `test_export.py` runs one of its tests there, too."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest
import urllib3
from deltalake import DeltaTable

from devstack.servers.s3proxy import KEY, SECRET
from tests.harness.export_steps import RECORDS
from tests.harness.exports import Exports, duplicates
from tests.harness.fault_proxy import FaultProxy, fault_proxy
from tests.harness.object_store import BUCKET, ObjectStore, settings
from tests.harness.waiting import until

ROOT = Path(__file__).parents[2]
on_s3 = pytest.mark.parametrize("exports", ["s3"], indirect=True)


@pytest.fixture
def requests(object_store: ObjectStore) -> Iterator[FaultProxy]:
    """A proxy in front of the store, which records the requests."""
    with fault_proxy(object_store.url, elasticsearch=False) as proxy:
        yield proxy


def create(url: str, key: str, body: bytes) -> int:
    """Creates an object with `If-None-Match: *`, as delta-rs does. Returns the status of the answer."""
    path, day, payload = f"/{BUCKET}/{key}", f"{datetime.now(UTC):%Y%m%d}", "UNSIGNED-PAYLOAD"
    headers = {
        "host": url.partition("//")[2],
        "if-none-match": "*",
        "x-amz-content-sha256": payload,
        "x-amz-date": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}",
    }
    names, scope = ";".join(headers), f"{day}/us-east-1/s3/aws4_request"
    canonical = ["PUT", path, "", *(f"{name}:{value}" for name, value in headers.items()), "", names, payload]
    request = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, request])
    key_of_day = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key_of_day = hmac.new(key_of_day, part.encode(), "sha256").digest()
    signature = hmac.new(key_of_day, text.encode(), "sha256").hexdigest()
    signed = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    return urllib3.request("PUT", url + path, body=body, headers={**headers, "authorization": signed}).status


def test_the_store_creates_an_object_only_once(object_store: ObjectStore) -> None:
    """The property of the store that the export relies on, also for concurrent requests."""
    writers, rounds = 4, 50
    together = Barrier(writers, timeout=30)

    def write(writer: int) -> list[int]:
        return [
            create(object_store.url, f"once/{n}", str(writer).encode()) for n in range(rounds) if together.wait() >= 0
        ]

    with ThreadPoolExecutor(writers) as pool:
        answers = list(pool.map(write, range(writers)))
    for n in range(rounds):
        statuses = [one[n] for one in answers]
        assert sorted(statuses) == [200, 412, 412, 412]
        assert (object_store.folder / f"once/{n}").read_text() == str(statuses.index(200))


def cuts(store: ObjectStore, prefix: str, mode: str, moment: str, **more: str) -> dict[int, Counter[tuple[int, int]]]:
    """Cuts an export at each request that writes. Returns the records that are in a table more than once."""
    options = {"upstream": store.url, "prefix": prefix, "mode": mode, "moment": moment, **more}
    command = [sys.executable, "-m", "tests.harness.export_requests", json.dumps(options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count = int(done.stdout)
    assert count >= 6, "the creation of the table has two requests, and each of two commits has two"
    return duplicates(store.folder / prefix, count, RECORDS)


@pytest.mark.parametrize(("mode", "moment"), [("kill", "after"), ("freeze", "before"), ("freeze", "after")])
def test_an_export_is_exact_at_whichever_request_it_is_cut(object_store: ObjectStore, mode: str, moment: str) -> None:
    """Before the store gets the request, or after it has carried it out. A frozen export sends it late.

    For the store, a kill before a request is the same as one after the request before it.
    """
    assert cuts(object_store, f"{mode}-{moment}", mode, moment) == {}


def test_an_export_that_does_not_read_transactions_is_caught(object_store: ObjectStore) -> None:
    assert cuts(object_store, "trusting", "kill", "after", log="TrustingLog")


def test_a_store_that_overwrites_objects_is_caught(object_store: ObjectStore) -> None:
    """If the store ignores `If-None-Match`, the late commit of a frozen export replaces another one."""
    assert cuts(object_store, "overwriting", "freeze", "before", overwrites=str(object_store.folder))


@on_s3
def test_check_writes_a_file_and_removes_it(exports: Exports, requests: FaultProxy, object_store: ObjectStore) -> None:
    exports.environment |= settings(requests.url)
    exports.write(1, {"1": {"n": 1}})
    before = object_store.objects()
    assert f"can be exported to {exports.to}" in exports.run_process("--check")
    probe = f"{exports.name}/.syncer-probe"
    *written, removed = [one for one in requests.seen if one.method not in ("GET", "HEAD")]
    assert {one.path.partition("?")[0] for one in written} == {f"/{BUCKET}/{probe}"}
    assert (removed.path, re.findall("<Key>(.*?)</Key>", removed.body.decode())) == (f"/{BUCKET}?delete", [probe])
    assert object_store.objects() == before


@on_s3
def test_each_commit_is_created_conditionally(
    exports: Exports, requests: FaultProxy, object_store: ObjectStore
) -> None:
    exports.environment |= settings(requests.url)
    for clock in (1, 2):
        exports.write(clock, {"1": {"n": clock}})
        exports.run_process("--until-caught-up")
    commits = [one for one in requests.seen if one.method == "PUT" and "/_delta_log/" in one.path]
    assert len(commits) >= 3
    assert {one.headers.get("if-none-match") for one in commits} == {"*"}
    table = DeltaTable(exports.to, storage_options=settings(object_store.url)).to_pyarrow_table()
    assert sorted(table.column("n").to_pylist()) == [1, 2]
    exports.check_rows(2)


@on_s3
@pytest.mark.parametrize(
    ("change", "to", "expected"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, None, ("SignatureDoesNotMatch", "credentials")),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, None, ("InvalidAccessKeyId", "credentials")),
        ({}, "s3://missing/orders", ("NoSuchBucket", "create the bucket")),
    ],
    ids=["secret", "key", "bucket"],
)
def test_a_store_that_refuses_the_export_is_an_error(
    exports: Exports, change: Mapping[str, str], to: str | None, expected: tuple[str, ...]
) -> None:
    exports.write(1, {"1": {"n": 1}})
    exports.environment |= change
    exports.to = to or exports.to
    for options in ((), ("--check",)):
        output = exports.run(*options, expect=3)
        assert all(text in output for text in (exports.to, "cannot write to the object store", *expected))
        assert SECRET not in output and "<" not in output
    assert not exports.path.exists()


@on_s3
def test_an_export_continues_after_an_outage_of_the_store(exports: Exports, object_store: ObjectStore) -> None:
    """delta-rs retries a refused connection for some seconds. After that, the export reports it and retries."""
    process = exports.start("--batch-seconds", "0.05")
    exports.write(1, {"1": {"n": 1}})
    until(lambda: exports.count() == 1, process.tail)
    object_store.stop()
    try:
        exports.write(2, {"1": {"n": 2}})
        until(lambda: "retrying" in process.tail(), process.tail)
        assert process.alive
    finally:
        object_store.start()
    until(lambda: exports.count() == 2, process.tail)
    process.terminate([0])
    exports.check_rows(2)
