"""Reads, compares, validates and applies connectors through Kafka Connect's REST interface.

https://kafka.apache.org/documentation/#connect_rest. Kafka Connect itself validates the settings here. The package
`checks` judges whether they suit the syncer.
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
from syncer.checks.running import IDLE, Status, Task, cause_lines, fix_for
from syncer.connect.definition import Definition
from syncer.errors import Fatal, Retry, SyncerError
from syncer.masking import mask
from syncer.pacing import poll_until

_BUSY = 0.25
"""Seconds between attempts while Kafka Connect's workers rebalance."""
_PAUSE = 0.1
"""Seconds between two reads of a connector's state."""


class SettingChange(NamedTuple):
    """A setting that differs, with secrets masked. `old` or `new` is None where the setting is missing."""

    key: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Diff:
    """The difference between a definition and the connector, and the action that `apply` takes."""

    name: str
    action: str
    """`create`; `change`; `restart` if only the state is wrong: failed; `resume` if only the state is wrong: paused or
    stopped; `unchanged`."""
    changes: tuple[SettingChange, ...] = ()
    idle: str = ""
    """`paused` or `stopped` if the connector is in that state; `apply` then also resumes it. Empty otherwise."""

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
    """A client for one Kafka Connect cluster.

    url: of any worker.
    timeout: seconds for one request.
    Every method raises Retry when Kafka Connect is unreachable or busy, and Fatal when it refuses the request. No error
    message contains a secret.
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
        """Closes the HTTP connections."""
        self._http.clear()

    def names(self) -> list[str]:
        """Returns the names of all connectors, sorted."""
        return sorted(self._call("GET", "/connectors"))

    def plugin_version(self, plugin: str) -> str:
        """Returns the version of a connector class: the oldest, if several are installed; empty if none is reported."""
        found = self._call("GET", "/connector-plugins")
        versions = [str(one.get("version") or "") for one in found if one.get("class") == plugin]
        return min(versions, key=_numbers, default="")

    def config(self, name: str) -> dict[str, str] | None:
        """Returns the connector's settings, including secrets; None if the connector does not exist."""
        found = self._call("GET", f"{_path(name)}/config", absent=None)
        return None if found is None else {str(key): str(value) for key, value in found.items()}

    def status(self, name: str) -> Status | None:
        """Returns the connector's state; None if the connector does not exist or its state is not known yet."""
        found = self._call("GET", f"{_path(name)}/status", absent=None)
        if found is None:
            return None
        tasks = tuple(Task(t["id"], t["state"], cause_lines(t.get("trace"))) for t in found["tasks"])
        connector = found["connector"]
        return Status(name, connector["state"], cause_lines(connector.get("trace")), tasks)

    def plan(self, wanted: Definition) -> Diff:
        """Returns what `apply` would do."""
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
        """Has Kafka Connect validate the settings; Debezium then logs in to the database. Raises Fatal with each
        invalid setting."""
        plugin = wanted.config.get("connector.class", "")
        if not plugin:
            hint = "syncer check  (it prints the setting)"
            raise Fatal("connector.class is not set", where=wanted.path or wanted.name, hint=hint)
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
        """Creates or changes the connector, if it differs from the definition, and starts it. Validates the settings
        first. Returns the action."""
        diff = self.plan(wanted)
        if diff.action in ("create", "change"):
            self.validate(wanted)
            self._call("PUT", f"{_path(wanted.name)}/config", dict(wanted.config), definition=wanted)
        if diff.idle:
            self.resume(wanted.name)
        if diff.action == "restart":
            self.restart(wanted.name)
        elif diff.action in ("create", "change"):
            self._wait_restarted(wanted.name)
        return diff

    def restart(self, name: str) -> None:
        """Restarts the failed parts of the connector. Returns when no failure is reported, or after five seconds."""
        self._call("POST", f"{_path(name)}/restart?includeTasks=true&onlyFailed=true")
        self._wait_restarted(name)

    def _wait_restarted(self, name: str) -> None:
        """Waits until the earlier failure is no longer reported. Waits at most five seconds, because the connector may
        have failed again."""

        def restarted() -> bool:
            return not ((status := self.status(name)) and status.failure)

        poll_until(restarted, timeout=5.0, interval=_PAUSE)

    def stop(self, name: str) -> None:
        """Stops the connector and waits until its tasks have ended. Raises Retry after the timeout."""
        self._call("PUT", f"{_path(name)}/stop")

        def stopped() -> bool:
            status = self.status(name)
            return status is None or (not status.tasks and status.state == "STOPPED")

        if not poll_until(stopped, timeout=self._timeout, interval=_BUSY):
            hint = "syncer connectors status"
            raise Retry(f"connector {name!r} did not stop in {self._timeout:g} s", where=self.url, hint=hint)

    def resume(self, name: str) -> None:
        """Resumes a paused or stopped connector."""
        self._call("PUT", f"{_path(name)}/resume")

    def forget_offsets(self, name: str) -> None:
        """Deletes a stopped connector's offsets, its position in WAL (Kafka Connect 3.6 and later)."""
        self._call("DELETE", f"{_path(name)}/offsets")

    def delete(self, name: str) -> bool:
        """Stops and removes the connector. Returns False if it did not exist. Its slot remains and retains WAL."""
        return self._call("DELETE", _path(name), absent=False) is not False

    def wait_running(self, name: str, timeout: float, *, steady: float = 1.0) -> Status:
        """Waits until the connector and its tasks have run for `steady` seconds.

        This does not prove that the connector sends changes: it is RUNNING before it has connected, and until it reads
        a change on which it fails. `monitors/canary_probe.py` proves it.
        timeout: seconds.
        Raises Fatal with the cause when the connector or a task has failed, Retry after the timeout.
        """
        since: float | None = None
        word = ""

        def running() -> Status | None:
            nonlocal since, word
            status = self.status(name)
            word = status.word if status else "without a state"
            if status and status.failure:
                what, hint = f"connector {name!r} has failed", fix_for(status.failure)
                raise Fatal(what, where=self.url, why=status.failure, hint=hint)
            now = time.monotonic()
            since = (now if since is None else since) if status and status.running else None
            return status if since is not None and now - since >= steady else None

        if status := poll_until(running, timeout=timeout, interval=_PAUSE):
            return status
        what, hint = f"connector {name!r} does not run yet", "syncer connectors status"
        raise Retry(what, where=self.url, why=f"it is {word}", hint=hint)

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        absent: Any = ...,
        definition: Definition | None = None,
    ) -> Any:
        """Sends one request and returns the JSON of the response.

        absent: returned for a 404. Without it, a 404 raises an error like any other status.
        definition: hides its secrets in the error message.
        """
        answer: urllib3.BaseHTTPResponse

        def accepted() -> bool:
            nonlocal answer
            answer = self._request(method, path, body)
            return answer.status != 409  # 409: the workers rebalance, or the connector is being created

        poll_until(accepted, timeout=self._timeout, interval=_BUSY)
        if answer.status == 404 and absent is not ...:
            return absent
        if answer.status >= 400:
            hide: Callable[[str], str] = definition.hide if definition else str
            raise _refusal(answer.status, hide(_message(answer)), f"{method} {self.url}{path}")
        try:
            return answer.json() if answer.data else None
        except ValueError as error:
            hint = "correct connect.url"
            raise Fatal("this is not Kafka Connect", where=self.url, why="its answer is not JSON", hint=hint) from error

    def _request(self, method: str, path: str, body: Any) -> urllib3.BaseHTTPResponse:
        try:
            return self._http.request(method, self.url + path, body=None if body is None else json.dumps(body))
        except urllib3.exceptions.HTTPError as error:
            why, what = _reason(error), "Kafka Connect is unreachable"
            if tls.is_untrusted(why):
                hint = tls.advice("connect.ca_file")
                raise Fatal(what, where=self.url, why=why, hint=hint) from error
            hint = "check that Kafka Connect is up and connect.url is correct"
            raise Retry(what, where=self.url, why=why, hint=hint) from error


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _path(name: str) -> str:
    return f"/connectors/{quote(name, safe='')}"


def _shown(wanted: Definition, key: str, value: str | None) -> str | None:
    return None if value is None else wanted.mask(key, value)


def masked(config: Mapping[str, str]) -> dict[str, str]:
    """Returns a connector's settings for printing, with secrets masked."""
    return {key: str(mask(key, value)) for key, value in config.items()}


def _refusal(status: int, message: str, where: str) -> SyncerError:
    if status in (401, 403):
        hint = "set connect.username and connect.password_file in syncer.yaml"
        return Fatal("Kafka Connect refuses the login", where=where, why=f"{status} {message}", hint=hint)
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
