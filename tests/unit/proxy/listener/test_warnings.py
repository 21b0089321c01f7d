"""What a front logs of refused HTTP requests, in etcd's words: operators look for them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.features.v2.user_changes import UserChange, UserOp, UserWish, changed
from proxy.listener.filter import FilteredRegistry
from proxy.shared.warnings import Warnings
from tests.unit.proxy.listener.test_http import Site, ask
from tests.unit.v2.requests.plain_host import HOST, Host


def shown(lines: list[Any]) -> list[tuple[object, ...]]:
    return [tuple(value for key, value in line.items() if key != "log_level") for line in lines]


def test_a_health_check_that_fails_is_logged_with_its_reason() -> None:
    site = Site()
    site.alarms = [2]
    with capture_logs() as lines:
        for path in ("/health", "/health", "/readyz", "/livez"):
            site.get(path)
    assert shown(lines) == [
        ('{"health":"false","reason":"ALARM CORRUPT"}', 503, "/health error"),
        ("/readyz", "data_corruption: alarm activated: CORRUPT", 503, "Health check error"),
    ]


def test_a_host_outside_the_whitelist_is_logged() -> None:
    registry = FilteredRegistry((), ("good.example",))
    with capture_logs() as lines:
        for host in ("evil.example", "good.example", "evil.example:80"):
            ask(registry, "GET", "/version", host=host)
    event = "rejecting HTTP request to prevent DNS rebinding attacks"
    assert shown(lines) == [("evil.example", event)]


def test_clients_of_version_2_without_access_are_logged() -> None:
    host = Host()
    for op, name, wish in ((UserOp.PUT_USER, b"root", UserWish("x")), (UserOp.ENABLE, b"", None)):
        change = UserChange(op, name, wish.encode() if wish is not None else b"")
        rows = changed(host.writer, change.encode())[0]
        host.writer.take(rows)
        host.tree.tree.take(rows)
    nobody = base64.b64encode(b"nobody:x")
    fields = (b"", b"Authorization: Basic " + nobody + b"\r\n", b"Authorization: Basic YQ\r\n")
    with capture_logs() as lines:
        for path in (b"/keys/k", b"/auth/users/a"):
            for field in fields:
                host.send(b"GET /v2" + path + b" HTTP/1.1\r\n" + HOST + field + b"\r\n")
    assert shown(lines) == [
        ("nobody", "/k", "invalid access for user on key"),
        ("malformed basic auth encoding",),
        ("", "/v2/auth/users/a", "a user does not have root role for resource"),
        ("nobody", "/v2/auth/users/a", "a user does not have root role for resource"),
    ]


def test_a_long_value_is_cut_and_a_cause_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 1.0, 61.0))
    monkeypatch.setattr("proxy.shared.warnings.monotonic", lambda: next(times))
    warnings = Warnings()
    with capture_logs() as lines:
        for _ in range(3):
            warnings.tell("denied", host="a" * 5000)
    assert shown(lines) == [("a" * 256, "denied")] * 2


def test_many_warnings_of_one_kind_hide_none_of_another() -> None:
    """A guest's denied keys hid an attempt to guess a password."""
    warnings = Warnings()
    with capture_logs() as lines:
        for number in range(100):
            warnings.tell("denied", key=f"/{number}")
        warnings.tell("incorrect password", user="root")
    assert shown(lines)[-1] == ("root", "incorrect password")
    assert len(lines) < 100
