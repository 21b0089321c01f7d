"""A client's certificate may say from where it comes."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.settings import Tls
from proxy.grpc.registry import Registry
from proxy.tls import Credentials, layer
from proxy.tls.addresses import Names, by_name, by_number
from proxy.tls.certified import Certificate
from tests.authority import Authority
from tests.unit.grpc.harness import serving
from tools.muster.machine.names import NAMES

NAME = "127.0.0.1"


def certificate(names: tuple[str, ...] = (), addresses: tuple[str, ...] = ()) -> Certificate:
    return Certificate("x", 1, names, addresses)


def test_addresses_are_compared_and_names_are_looked_up() -> None:
    assert by_number(certificate(), NAME) == "", "it says nothing"
    assert by_number(certificate(("a.example",), (NAME,)), NAME) == ""
    assert by_number(certificate(("a.example",), ("10.0.0.1",)), NAME) is None
    assert by_number(certificate((), ("10.0.0.1", "::1")), NAME) == (
        "x509: certificate is valid for 10.0.0.1, ::1, not 127.0.0.1"
    )
    assert asyncio.run(by_name(certificate(("*.invalid", "localhost")), NAME, NAMES)) == ""
    assert asyncio.run(by_name(certificate(("*.invalid", "10.0.0.1")), NAME, NAMES)) == (
        'tls: "127.0.0.1" does not match any of DNSNames ["*.invalid" "10.0.0.1"]'
    )


def test_an_address_has_all_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Go. A line of /etc/hosts often has a short one first."""
    names = "a", ["b.example.", "a.sub.example"], [NAME]
    monkeypatch.setattr(socket, "gethostbyaddr", lambda address: names)
    for name in ("a", "b.example", "*.sub.example"):
        assert asyncio.run(by_name(certificate((name,)), NAME, NAMES)) == ""
    assert asyncio.run(by_name(certificate(("*.invalid",)), NAME, NAMES)) != ""


def test_names_that_hang_hold_up_no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """They took the threads of /metrics and backups."""
    ends = threading.Event()

    def look_up(address: str) -> tuple[str, list[str], list[str]]:
        ends.wait(30)
        return "a", [], [address]

    monkeypatch.setattr(socket, "gethostbyaddr", look_up)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        asked = [asyncio.create_task(by_name(certificate(("*.a",)), NAME, NAMES)) for _ in range(3)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(loop.run_in_executor(None, lambda: "done"), 5.0) == "done"
        ends.set()
        await asyncio.gather(*asked)

    asyncio.run(scenario())


def test_a_client_is_refused_where_no_thread_can_look_up_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the process."""

    def start(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    refusal = 'tls: "127.0.0.1" does not match any of DNSNames [%s] (lookup %s'
    assert asyncio.run(by_name(certificate(("*.a",)), NAME, NAMES)) == (
        refusal % ('"*.a"', NAME) + ": can't start new thread)")
    assert asyncio.run(by_name(certificate(("a.b",)), NAME, NAMES)) == (
        refusal % ('"a.b"', "a.b") + ": can't start new thread)")


def _answer(connection: http.client.HTTPSConnection) -> bytes:
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()
    except OSError:
        connection.close()
        return b""


@pytest.mark.parametrize(
    ("hosts", "refusal"),
    [
        (("127.0.0.1",), ""),
        (("localhost",), ""),
        (("10.0.0.1",), "x509: certificate is valid for 10.0.0.1, not 127.0.0.1"),
        (("*.invalid",), 'tls: "127.0.0.1" does not match any of DNSNames ["*.invalid"]'),
    ],
)
def test_a_listener_that_looks_at_addresses_refuses_who_comes_from_another_one(
    tmp_path: Path, hosts: tuple[str, ...], refusal: str
) -> None:
    authority = Authority(tmp_path)
    host, client = authority.issue("host", NAME), authority.issue("client", *hosts)
    registry = Registry()
    registry.http("/metrics", lambda request: request.respond(200, b"ok"))
    held = Credentials(
        Tls(str(host.cert), str(host.key), True, str(authority.file)), by_address=NAMES
    )
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(client.cert, client.key)
    refused: list[tuple[str, str]] = []
    with serving(registry, tls=held) as running:
        running.server.handshake_failed = lambda *told: refused.append(told)
        connection = http.client.HTTPSConnection(NAME, running.port, timeout=60, context=context)
        answers = [_answer(connection) for _ in range(2)]
        connection.close()
    assert answers == [b"" if refusal else b"ok"] * 2
    assert [(address, reason.startswith(refusal)) for address, reason in refused] == (
        [(NAME, True)] * 2 if refusal else []
    )


def test_nothing_is_looked_up_for_a_client_that_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate may have hundreds of names, and each may take a resolver's whole patience."""
    begun, ended = threading.Event(), threading.Event()

    async def never(certificate: Certificate, address: str, names: Names) -> str:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return ""

    monkeypatch.setattr(layer, "by_name", never)
    authority = Authority(tmp_path)
    host, client = authority.issue("host", NAME), authority.issue("client", "elsewhere.invalid")
    held = Credentials(Tls(str(host.cert), str(host.key), True, str(authority.file)), by_address=NAMES)
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(client.cert, client.key)
    with (
        serving(Registry(), tls=held) as running,
        socket.create_connection((NAME, running.port), 60) as raw,
        context.wrap_socket(raw, server_hostname=NAME),
    ):
        assert begun.wait(60)
        running.call(lambda: [front.transport.abort() for front in running.server._connections])
        assert ended.wait(60)
