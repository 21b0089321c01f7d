"""Who gets the next connection of a gateway, and what its command line takes."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from collections import Counter

import pytest
from structlog.testing import capture_logs

from tools.muster.config.parse import ConfigError, UsageError
from tools.muster.gateway import cli
from tools.muster.gateway.forward import Endpoint, Forwarder
from tools.muster.machine.everywhere import knows_ipv6
from tools.srv import LookupFailed, Record


class Silent:
    """A log that nobody reads."""

    def info(self, event: str, **facts: object) -> None:
        """Nothing."""

    def warning(self, event: str, **facts: object) -> None:
        """Nothing."""


def picked(forwarder: Forwarder, times: int) -> Counter[str]:
    return Counter(endpoint.host for _ in range(times) if (endpoint := forwarder.pick()) is not None)


def test_the_best_priority_that_answers_counts_and_weights_within_it() -> None:
    first, second = Endpoint("a", 1, priority=1, weight=30), Endpoint("b", 1, priority=1, weight=10)
    never, last = Endpoint("c", 1, priority=1), Endpoint("d", 1, priority=2)
    forwarder = Forwarder([last, first, second, never], Silent(), random.Random(1))
    found = picked(forwarder, 4000)
    assert set(found) == {"a", "b", "c"}
    assert 2 < found["a"] / found["b"] < 4
    assert found["c"] < 100  # without a weight among others that have one: hardly ever
    first.answers = second.answers = False
    assert picked(forwarder, 10) == {"c": 10}
    never.answers = False
    assert picked(forwarder, 10) == {"d": 10}
    last.answers = False
    assert forwarder.pick() is None


def test_those_of_equal_rank_have_a_turn_each() -> None:
    endpoints = [Endpoint(name, 1) for name in "abc"]
    forwarder = Forwarder(endpoints, Silent())
    assert picked(forwarder, 9) == {"a": 3, "b": 3, "c": 3}
    endpoints[1].answers = False
    assert picked(forwarder, 8) == {"a": 4, "c": 4}


@pytest.mark.parametrize("own", [errno.EMFILE, errno.ENFILE])
def test_an_endpoint_is_not_left_alone_for_want_of_descriptors_here(
    own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint("127.0.0.1", 1)

    async def scenario() -> None:
        async def refused(*_: object, **__: object) -> None:
            raise OSError(own, os.strerror(own))

        loop = asyncio.get_running_loop()
        forwarder = Forwarder([endpoint], Silent())
        server = await forwarder.listen("127.0.0.1", 0)
        monkeypatch.setattr(loop, "create_connection", refused)
        with socket.create_connection(server.sockets[0].getsockname(), 60) as client:
            client.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(client, 1), 60) == b""  # ended, and does not wait
        server.close()

    asyncio.run(scenario())
    assert endpoint.answers


@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
def test_every_address_of_a_family_takes_the_other_too(host: str) -> None:
    async def scenario() -> None:
        server = await Forwarder([], Silent()).listen(host, 0)
        families = {one.family for one in server.sockets}
        assert families == ({socket.AF_INET, socket.AF_INET6} if knows_ipv6() else {socket.AF_INET})
        server.close()

    asyncio.run(scenario())


def test_a_name_that_cannot_be_is_an_endpoint_that_does_not_answer() -> None:
    endpoint = Endpoint("a..b", 1)

    async def scenario() -> None:
        server = await Forwarder([endpoint], Silent()).listen("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        server.close()

    asyncio.run(scenario())
    assert not endpoint.answers


def test_records_of_a_domain_name_the_members(monkeypatch: pytest.MonkeyPatch) -> None:
    def records(service: str) -> list[Record]:
        if service == "_etcd-client-x._tcp.example.com":
            return [Record("m.example.com.", 2379, 1, 5)]
        raise LookupFailed(f"lookup {service} on 127.0.0.1:53: no such host")

    monkeypatch.setattr(cli, "records", records)
    found = cli.discovered("example.com", "x", "", insecure=True)
    assert [(str(one), one.priority, one.weight) for one in found] == [("m.example.com:2379", 1, 5)]
    assert cli.discovered("example.com", "x", "", insecure=False) == []
    with pytest.raises(ConfigError, match=r"dns lookup errors: lookup _etcd-client-ssl\._tcp\.example\.com"):
        cli.discovered("example.com", "", "", insecure=True)


def test_a_command_line_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError):
        cli.run(["stop"])
    for word in ("--x", "--retry-delay=soon", "more", "--endpoints=a", "--listen-addr=1.2.3.4:99999",
                 "--endpoints="):  # fmt: skip
        with pytest.raises(ConfigError):
            cli.run(["start", word])
    for endpoint, wrong in (("a", "address a: missing port in address"), ("a:x", "address x: invalid port"),
                            ("http://a:65536/", "address 65536: invalid port"),
                            ("[::1]", r"address \[::1\]: missing port in address")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"^{wrong}$"):
            cli.run(["start", f"--endpoints={endpoint}"])


@pytest.mark.parametrize(("listens", "endpoint"), [
    ("127.0.0.1", "localhost"), ("0.0.0.0", "127.0.0.1"), ("[::]", "127.0.0.1"), ("", "127.0.0.7"),
])  # fmt: skip
def test_a_gateway_does_not_dial_itself(monkeypatch: pytest.MonkeyPatch, listens: str, endpoint: str) -> None:
    """One client took all descriptors: each connection made another one."""
    served = list[object]()
    monkeypatch.setattr(cli.logs, "configure", lambda *_: None)
    monkeypatch.setattr(cli.uvloop, "run", lambda serves: (served.append(serves), serves.close()))
    args = ["start", f"--listen-addr={listens}:2379", f"--endpoints=192.0.2.1:2379,{endpoint}:2379"]
    with pytest.raises(ConfigError, match=rf"\({endpoint}:2379->127.* should not resolve to the gateway"):
        cli.run(args)
    assert not served
    cli.run([args[0], args[1].replace("2379", "2378"), args[2]])
    cli.run([*args[:2], "--endpoints=192.0.2.1:2379"])
    assert len(served) == 2


def test_an_endpoint_without_an_address_is_told_and_tried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the gateway, once a late name server answers. No other is looked up: that may take long."""
    asked, look_up = list[str](), socket.getaddrinfo
    monkeypatch.setattr(cli.uvloop, "run", lambda serves: serves.close())
    monkeypatch.setattr(cli.logs, "configure", lambda *_: None)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *of, **by: asked.append(of[0]) or look_up(*of, **by))
    with capture_logs() as lines:
        args = ["start", "--listen-addr=127.0.0.1:2378", "--endpoints=a..b:2378,slow.example:2379"]
        assert cli.run(args) == 0
    assert [(line["event"], line["endpoint"]) for line in lines] == [
        ("failed to resolve endpoint host", "a..b:2378")]  # fmt: skip
    assert asked == ["127.0.0.1", "a..b"]
