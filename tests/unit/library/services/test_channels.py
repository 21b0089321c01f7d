"""Channels to the instances of a service: which are open, and when they are closed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from muster_client import NoInstance
from muster_client.services.channels import AioServiceChannel, ServiceChannel
from muster_client.services.registry import Instance

from tests.unit.library.scripted import until


class Found:
    """A discovery of those that are there."""

    def __init__(self, *there: str) -> None:
        self.there(*there)

    def there(self, *addresses: str) -> None:
        self._addresses = frozenset(addresses)
        self._instances = [Instance(one.encode(), one, None, 1) for one in addresses]

    def addresses(self) -> frozenset[str]:
        return self._addresses

    def pick(self) -> Instance:
        if not self._instances:
            raise NoInstance("none")
        return self._instances[0]


class Opened:
    """Opens channels, and knows which are open."""

    def __init__(self) -> None:
        self.open: list[str] = []

    def __call__(self, address: str) -> grpc.Channel:
        channel = grpc.insecure_channel(address)
        close = channel.close

        def closes() -> None:
            close()
            self.open.remove(address)

        channel.close = closes  # type: ignore[method-assign]
        self.open.append(address)
        return channel

    def aio(self, address: str) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(address)
        close = channel.close

        async def closes(grace: float | None = None) -> None:
            await close(grace)
            self.open.remove(address)

        channel.close = closes  # type: ignore[method-assign]
        self.open.append(address)
        return channel


class Service(grpc.GenericRpcHandler):
    """``/s/Name`` tells its name; ``/s/Names`` twice, the second time once it goes on."""

    def __init__(self, name: bytes) -> None:
        self._name, self.goes_on = name, threading.Event()

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method == "/s/Name":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: self._name)
        return grpc.unary_stream_rpc_method_handler(self._names)

    def _names(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield self._name
        self.goes_on.wait(10)
        yield self._name


@pytest.fixture
def service() -> Iterator[tuple[Service, list[str]]]:
    """One that is found at two addresses."""
    served = Service(b"one")
    server = grpc.server(ThreadPoolExecutor(4), handlers=[served])
    addresses = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}" for _ in range(2)]
    server.start()
    yield served, addresses
    served.goes_on.set()
    server.stop(0).wait(5)


def wait_until(holds: Any) -> None:
    asyncio.run(until(holds))


def test_a_channel_to_an_instance_that_is_gone_is_closed(service: tuple[Service, list[str]]) -> None:
    """At the next call, whether that opens another one or not."""
    _, (first, second) = service
    found, opened = Found(first), Opened()
    channel = ServiceChannel(found, opened)
    name = channel.unary_unary("/s/Name")
    assert name(b"") == b"one"
    found.there(second, first)
    assert name.with_call(b"")[0] == b"one"
    assert opened.open == [first, second]
    found.there(second)
    assert name.future(b"").result(5) == b"one"
    wait_until(lambda: opened.open == [second])
    found.there()
    with pytest.raises(NoInstance):
        name(b"")
    wait_until(lambda: not opened.open)
    found.there(first)
    assert name(b"") == b"one"
    channel.close()
    assert not opened.open


def test_what_is_under_way_is_not_cut_off(service: tuple[Service, list[str]]) -> None:
    """An instance is found no more, and ends what it has begun."""
    served, (first, second) = service
    found, opened = Found(first), Opened()
    channel = ServiceChannel(found, opened)
    names = channel.unary_stream("/s/Names")(b"")
    assert next(names) == b"one"
    found.there(second)
    assert channel.unary_unary("/s/Name")(b"") == b"one"
    assert opened.open == [first, second]
    served.goes_on.set()
    assert list(names) == [b"one"]
    wait_until(lambda: opened.open == [second])
    channel.close()


class Passes(grpc.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """Hands answers on as many interceptors do: what it returns is no call."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        yield from continuation(client_call_details, request)


def test_a_stream_may_be_intercepted_by_what_tells_no_end(service: tuple[Service, list[str]]) -> None:
    served, (first, _) = service
    served.goes_on.set()
    channel = ServiceChannel(
        Found(first), lambda address: grpc.intercept_channel(grpc.insecure_channel(address), Passes()))
    assert list(channel.unary_stream("/s/Names")(b"")) == [b"one", b"one"]
    channel.close()


def test_a_close_ends_what_is_under_way(service: tuple[Service, list[str]]) -> None:
    _, (first, second) = service
    found, opened = Found(first), Opened()
    channel = ServiceChannel(found, opened)
    names = channel.unary_stream("/s/Names")(b"")
    assert next(names) == b"one"
    found.there(second)
    assert channel.unary_unary("/s/Name")(b"") == b"one"
    channel.close()
    assert not opened.open
    with contextlib.suppress(grpc.RpcError):
        assert not list(names)


def test_channels_of_asyncio_are_closed_when_their_calls_have_ended(
    service: tuple[Service, list[str]]
) -> None:
    served, (first, second) = service
    found, opened = Found(first), Opened()

    async def main() -> None:
        channel = AioServiceChannel(found, opened.aio)
        name = channel.unary_unary("/s/Name")
        assert await name(b"") == b"one"
        names = channel.unary_stream("/s/Names")(b"")
        assert await names.read() == b"one"
        found.there(second, first)
        assert await name(b"") == b"one"
        found.there(second)
        assert await name(b"") == b"one"
        assert opened.open == [first, second]
        served.goes_on.set()
        assert await names.read() == b"one"
        assert await names.read() == grpc.aio.EOF
        await until(lambda: opened.open == [second])
        found.there(first)
        assert await name(b"") == b"one"
        await until(lambda: opened.open == [first])
        await channel.close()
        assert not opened.open

    asyncio.run(main())


def test_threads_share_one_channel_to_an_instance() -> None:
    opened: list[str] = []
    together = threading.Barrier(4)

    def opens(address: str) -> Any:
        opened.append(address)
        time.sleep(0.05)  # the others come meanwhile
        return SimpleNamespace(unary_unary=lambda path: lambda request: request)

    name = ServiceChannel(Found("a:1"), opens).unary_unary("/s/Name")

    def call() -> None:
        together.wait(5)
        assert name(b"x") == b"x"

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert opened == ["a:1"]
