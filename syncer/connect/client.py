"""Kafka Connect's REST interface: what runs there, what would change, and changing it.

https://kafka.apache.org/documentation/#connect_rest. Whether a connector's settings are fit for the syncer
is for `checks/` to say; here they are compared, validated by Connect itself, and applied.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import urllib3

from syncer import tls
from syncer.checks.running import IDLE, Status, Task, cause_lines, remedy
from syncer.connect.definition import Definition
from syncer.errors import Fatal, Retry, SyncerError
from syncer.masking import mask

_BUSY = 0.25
"""Seconds between attempts while Connect's workers rebalance."""


class SettingChange(NamedTuple):
    """A setting that differs; secrets are masked. None: not there."""

    key: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Diff:
    """What applying a definition would do."""

    name: str
    action: str
    """`create`, `change`, `restart` (as wanted, but failed), `resume` (the same, but idle), `unchanged`."""
    changes: tuple[SettingChange, ...] = ()
    idle: str = ""
    """`paused` or `stopped`, if it is: it is resumed, too."""

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.action}"]
        if self.idle:
            lines = [f"{self.name}: resume (it is {self.idle})"]
            if self.action != "resume":
                lines[0] += f" and {self.action}"
        for key, old, new in self.changes:
            if old is None:
                lines.append(f"  + {key}: {new}")
            elif new is None:
                lines.append(f"  - {key}: {old}")
            else:
                lines.append(f"  ~ {key}: {old} → {new}")
        return "\n".join(lines)


class Connect:
    """One Connect cluster, by the address of any of its workers.

    timeout: seconds for one request. Every method raises Retry when Connect is away or busy, Fatal when it
    refuses; no answer of Connect's is repeated with a secret in it.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str = "",
        password: str = "",
        timeout: float = 15.0,
        ca_file: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        headers = {"accept": "application/json", "content-type": "application/json"}
        if username:
            headers |= urllib3.make_headers(basic_auth=f"{username}:{password}")
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(timeout, 5.0), read=timeout),
            retries=False,
            headers=headers,
            ca_certs=ca_file,
        )

    def close(self) -> None:
        self._http.clear()

    def names(self) -> list[str]:
        return sorted(self._call("GET", "/connectors"))

    def plugin_version(self, plugin: str) -> str:
        """Of a connector class; the oldest, if several are installed. Empty if Connect does not tell one."""
        found = self._call("GET", "/connector-plugins")
        versions = [str(one.get("version") or "") for one in found if one.get("class") == plugin]
        return min(versions, key=_numbers, default="")

    def config(self, name: str) -> dict[str, str] | None:
        """The settings as Connect has them, with their secrets; None if there is no such connector."""
        found = self._call("GET", f"{_path(name)}/config", absent=None)
        return None if found is None else {str(key): str(value) for key, value in found.items()}

    def status(self, name: str) -> Status | None:
        """None if there is no such connector, or none of its state is known yet."""
        found = self._call("GET", f"{_path(name)}/status", absent=None)
        if found is None:
            return None
        tasks = tuple(Task(t["id"], t["state"], cause_lines(t.get("trace"))) for t in found["tasks"])
        connector = found["connector"]
        return Status(name, connector["state"], cause_lines(connector.get("trace")), tasks)

    def plan(self, wanted: Definition) -> Diff:
        """What `apply` would do."""
        have = self.config(wanted.name)
        settings = {"name": wanted.name, **wanted.config}
        old = {} if have is None else {"name": wanted.name, **have}
        changes = tuple(
            SettingChange(key, _shown(wanted, key, old.get(key)), _shown(wanted, key, settings.get(key)))
            for key in sorted(old.keys() | settings.keys())
            if old.get(key) != settings.get(key) and key != "name"
        )
        if have is None:
            return Diff(wanted.name, "create", changes)
        status = self.status(wanted.name)
        idle = status.state.lower() if status and status.state in IDLE else ""
        if changes:
            return Diff(wanted.name, "change", changes, idle)
        if status and status.failure:
            return Diff(wanted.name, "restart", idle=idle)
        return Diff(wanted.name, "resume" if idle else "unchanged", idle=idle)

    def validate(self, wanted: Definition) -> None:
        """Have Connect try the settings; Debezium logs in to the database. Raises Fatal with complaints."""
        plugin = wanted.config.get("connector.class", "")
        if not plugin:
            raise Fatal("no connector.class is set", where=wanted.path or wanted.name)
        settings = {"name": wanted.name, **wanted.config}
        path = f"/connector-plugins/{quote(plugin, safe='')}/config/validate"
        answer = self._call("PUT", path, settings, definition=wanted)
        complaints = [
            f"{field['value']['name']}: {wanted.hide(error)}"
            for field in answer["configs"]
            for error in field["value"]["errors"]
        ]
        if complaints:
            raise Fatal(
                f"Kafka Connect refuses the settings of connector {wanted.name!r}",
                where=wanted.path or self.url,
                why="; ".join(complaints),
            )

    def apply(self, wanted: Definition) -> Diff:
        """Validate, then create or change the connector, unless it is as wanted; have it run. Returns what
        was done."""
        diff = self.plan(wanted)
        if diff.action in ("create", "change"):
            self.validate(wanted)
            self._call("PUT", f"{_path(wanted.name)}/config", dict(wanted.config), definition=wanted)
        if diff.idle:
            self.resume(wanted.name)
        if diff.action == "restart":
            self.restart(wanted.name)
        elif diff.action in ("create", "change"):
            self._wait_begun(wanted.name)
        return diff

    def restart(self, name: str) -> None:
        """Start what has failed of the connector again; returns when that shows, or after five seconds."""
        self._call("POST", f"{_path(name)}/restart?includeTasks=true&onlyFailed=true")
        self._wait_begun(name)

    def _wait_begun(self, name: str) -> None:
        """Until an earlier failure does not show any more; at most five seconds: it may have failed again."""
        deadline = time.monotonic() + 5
        while (status := self.status(name)) and status.failure and time.monotonic() < deadline:
            time.sleep(0.1)

    def stop(self, name: str) -> None:
        """Returns when its tasks have ended."""
        self._call("PUT", f"{_path(name)}/stop")
        deadline = time.monotonic() + self._timeout
        while (status := self.status(name)) and (status.tasks or status.state != "STOPPED"):
            if time.monotonic() > deadline:
                raise Retry(f"connector {name!r} does not stop", where=self.url)
            time.sleep(_BUSY)

    def resume(self, name: str) -> None:
        self._call("PUT", f"{_path(name)}/resume")

    def forget_offsets(self, name: str) -> None:
        """Of a stopped connector: where it was in the log (Connect 3.6 and later)."""
        self._call("DELETE", f"{_path(name)}/offsets")

    def delete(self, name: str) -> bool:
        """Stop and remove the connector; False if there was none. Its slot stays, and holds back the log."""
        return self._call("DELETE", _path(name), absent=False) is not False

    def wait_running(self, name: str, timeout: float, *, steady: float = 1.0) -> Status:
        """Wait until the connector and its tasks have run for `steady` seconds. No proof that it sends: one
        is RUNNING before it has connected, and until it comes to what it failed on (`probe.Echo`).

        Raises Fatal with the cause when one has failed, Retry after the time-out (seconds).
        """
        deadline = time.monotonic() + timeout
        since: float | None = None
        while True:
            status = self.status(name)
            now = time.monotonic()
            if status and status.failure:
                raise Fatal(
                    f"connector {name!r} has failed",
                    where=self.url,
                    why=status.failure,
                    hint=remedy(status.failure),
                )
            since = (since if since is not None else now) if status and status.running else None
            if status and since is not None and now - since >= steady:
                return status
            if now >= deadline:
                why = f"it is {status.word if status else 'without a state'}"
                raise Retry(
                    f"connector {name!r} does not run yet",
                    where=self.url,
                    why=why,
                    hint="syncer connectors status",
                )
            time.sleep(0.1)

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        absent: Any = ...,
        definition: Definition | None = None,
    ) -> Any:
        """One request. absent: what a 404 returns; without it, a 404 is an error like any other."""
        hide: Callable[[str], str] = definition.hide if definition else str
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                answer = self._http.request(method, self.url + path, body=None if body is None else json.dumps(body))
            except urllib3.exceptions.HTTPError as error:
                why, what = _reason(error), "cannot reach Kafka Connect"
                if tls.distrusted(why):
                    hint = tls.advice("connect.ca_file")
                    raise Fatal(what, where=self.url, why=why, hint=hint) from error
                raise Retry(what, where=self.url, why=why, hint="is it up? see connect.url") from error
            if answer.status == 404 and absent is not ...:
                return absent
            if answer.status != 409 or time.monotonic() > deadline:
                break
            time.sleep(_BUSY)  # the workers are dividing up the work, or the connector is being made
        if answer.status >= 400:
            raise _refusal(answer.status, hide(_message(answer)), f"{method} {self.url}{path}")
        try:
            return answer.json() if answer.data else None
        except ValueError as error:
            raise Fatal("this is not Kafka Connect", where=self.url, why="its answer is not JSON") from error


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _path(name: str) -> str:
    return f"/connectors/{quote(name, safe='')}"


def _shown(wanted: Definition, key: str, value: str | None) -> str | None:
    return None if value is None else wanted.mask(key, value)


def masked(config: Mapping[str, str]) -> dict[str, str]:
    """Settings as Connect has them, fit for printing."""
    return {key: str(mask(key, value)) for key, value in config.items()}


def _refusal(status: int, message: str, where: str) -> SyncerError:
    if status in (401, 403):
        hint = "connect.username and connect.password_file in syncer.yaml"
        return Fatal("Kafka Connect does not let us in", where=where, why=f"{status} {message}", hint=hint)
    if status == 409 or (status >= 500 and "BadRequest" not in message):
        return Retry("Kafka Connect is busy", where=where, why=f"{status} {message}")
    return Fatal("Kafka Connect refuses the request", where=where, why=f"{status} {message}")


def _message(answer: urllib3.BaseHTTPResponse) -> str:
    try:
        return str(answer.json()["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return answer.data.decode(errors="replace")[:500]


def _reason(error: Exception) -> str:
    return str(error).rpartition(">: ")[2] or type(error).__name__
