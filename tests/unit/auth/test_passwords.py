"""Who waits for whom where passwords are compared (proxy.auth.passwords)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import faults
from proxy.auth.passwords import Passwords
from tests.unit.proxy.fakes import FakeCall


class Loop:
    """Work that waits for a thread is done when it is asked to."""

    def __init__(self) -> None:
        self.given: list[tuple[Callable[[], Any], Future[Any]]] = []
        self.starts_none = False

    create_future = Future[Any]

    def run_in_executor(self, threads: object, work: Callable[[], Any]) -> Future[Any]:
        if self.starts_none:
            raise RuntimeError("can't start new thread")
        found = Future[Any]()
        self.given.append((work, found))
        return found

    def work(self) -> None:
        given, self.given = self.given, []
        for work, found in given:
            found.set_result(work())


def asking(address: str, port: int = 1) -> FakeCall:
    """By a Unix socket, if it has no address."""
    call = FakeCall()
    call.peer = f"{address}:{port}" if address else f"@{port}"
    return call


class Asked:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bcrypt.checkpw", lambda data, known: data == known)
        self.loop = Loop()
        self.passwords = Passwords(self.loop, 4)
        self.told: list[tuple[str, bool]] = []

    def check(self, call: FakeCall, password: str = "x") -> bool:
        """Whether it waits or is compared."""

        def told(right: bool) -> None:
            self.told.append((call.peer.partition(":")[0], right))

        try:
            self.passwords.check(call, password, b"x", told)
        except EtcdError as error:
            return error.kind is not errors.TOO_MANY_REQUESTS
        return True


def test_one_client_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login waited 25 s for the 1,000 that another client had asked for, or was refused."""
    asked = Asked(monkeypatch)
    taken = sum(asked.check(asking("a", port), "wrong") for port in range(1500))
    assert taken == 1_000 + 2, "two are compared"
    assert all(asked.check(asking(client)) for client in "bc")
    for _ in range(2):
        asked.loop.work()
    assert asked.told == [("a", False)] * 2 + [("a", False), ("b", True)]
    asked.loop.work()
    assert ("c", True) in asked.told


def test_clients_that_wait_have_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    assert sum(asked.check(asking("a")) for _ in range(2000)) == 1002
    assert sum(asked.check(asking("b")) for _ in range(2000)) == 500
    assert not asked.check(asking("a"))
    for _ in range(300):
        asked.loop.work()
    assert [client for client, _ in asked.told].count("b") > 290
    assert sum(len(jobs) for jobs in asked.passwords._waiting.values()) == asked.passwords._jobs == 900


def test_a_client_has_more_than_its_part_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many users may come from one address. A single login of another one halved what they have."""
    asked = Asked(monkeypatch)
    assert sum(asked.check(asking("many users")) for _ in range(602)) == 602
    assert asked.check(asking("b"))
    assert sum(asked.check(asking("many users")) for _ in range(1000)) == 399
    assert asked.check(asking("b")), "its part is its own"
    assert asked.check(asking("c"))
    assert not asked.check(asking("many users"))
    for _ in range(2):
        asked.loop.work()
    assert asked.passwords._jobs == 998
    assert asked.check(asking("many users"))


def test_local_connections_are_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process opens as many as it likes."""
    asked = Asked(monkeypatch)
    assert sum(asked.check(asking("", number), "wrong") for number in range(1500)) == 1002
    assert asked.check(asking("a"))
    for _ in range(2):
        asked.loop.work()
    assert ("a", True) in asked.told


def test_a_client_that_waits_for_nothing_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    assert all(asked.check(asking(f"10.0.{n >> 8}.{n & 255}")) for n in range(1500))
    assert not asked.check(asking("10.0.5.1"))


@pytest.mark.parametrize(
    ("address", "another"),
    [
        ("2001:db8::{}", "2001:db8:0:1::1"),
        ("fe80::{}%eth0", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2"),
        ("::ffff:10.0.0.1", "10.0.0.2"),
        ("no:address", "2001:db8::1"),
    ],
)
def test_an_ipv6_network_is_one_client(monkeypatch: pytest.MonkeyPatch, address: str, another: str) -> None:
    """By 1,002 addresses of one host, nobody else could log in."""
    asked = Asked(monkeypatch)
    assert sum(asked.check(asking(address.format(f"{n + 1:x}")), "wrong") for n in range(1500)) == 1002
    assert len(asked.passwords._waiting) == 1
    assert asked.check(asking(another))


def test_nothing_is_compared_for_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    calls = [asking("a") for _ in range(1000)]
    for call in calls:
        assert asked.check(call)
    for call in calls[2:]:
        call.closed = True
    assert asked.check(asking("a"))
    asked.loop.work()
    assert len(asked.loop.given) == 1
    asked.loop.work()
    assert [right for _, right in asked.told].count(True) == 3
    assert len(asked.told) == 1001, "the others have failed: each is told"
    assert not asked.passwords._waiting


def test_logins_go_on_once_threads_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that met the limit were never answered, and nobody logged in any more."""
    asked = Asked(monkeypatch)
    asked.loop.starts_none = True
    assert asked.check(asking("a"))
    assert asked.check(asking("b"))
    assert asked.told == [("a", False), ("b", False)]
    assert [str(error) for _, error in faults.take()] == ["can't start new thread"]
    asked.loop.starts_none = False
    assert asked.check(asking("c"))
    asked.loop.work()
    assert asked.told[-1] == ("c", True)


def test_threads_compare_and_hash() -> None:
    async def scenario() -> None:
        passwords, told = Passwords(asyncio.get_running_loop(), 4), asyncio.Queue[Any]()
        passwords.hash(asking("a"), "secret", told.put_nowait)
        known = await told.get()
        for password in ("secret", "wrong"):
            passwords.check(asking("a"), password, known, told.put_nowait)
        assert {await told.get(), await told.get()} == {True, False}
        passwords.check(asking("a"), "secret", b"no hash", told.put_nowait)
        assert await told.get() is False
        with pytest.raises(EtcdError, match="exceeds 72 bytes"):
            passwords.hash(asking("a"), "x" * 73, told.put_nowait)
        passwords.close()

    asyncio.run(scenario())
